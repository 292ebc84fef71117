"""What an attacker on the next port would try, with real guests, judged by what arrives at the neighbour's tap.

Three guests on one cloud: `mallory` and `alice` on a network of demo's, `twin` on a network of admin's with the same range, and with
alice's address and MAC address. Frames that no tool of the guest makes are sent by a small program from lines of hexadecimal digits.
"""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from machine import forgery
from machine.course import GUEST_SSH, Course, fresh, until
from machine.rest import Rest

pytestmark = pytest.mark.machine

MALLORY, ALICE, GHOST, DHCP = "172.16.1.11", "172.16.1.22", "172.16.1.99", "172.16.1.2"
_PROTOCOLS = {"any": None, "any6": None, "icmp": "icmp", "icmp6": "ipv6-icmp", "tcp": "tcp"}
STRANGER = "fa:16:3e:66:66:66"
PREFIX = "2001:db8:1:"


@dataclass
class Cloud:
    """`floating`: guest -> its floating IP; `ports`: guest -> what `port show` says; `groups`: security group -> id."""

    course: Course
    users: dict[str, Rest] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    floating: dict[str, str] = field(default_factory=dict)
    ports: dict[str, dict[str, object]] = field(default_factory=dict)

    def mac(self, guest: str) -> str:
        return str(self.ports[guest]["mac_address"])

    def tap(self, guest: str) -> str:
        return f"tap{str(self.ports[guest]['id'])[:11]}"

    def six(self, guest: str) -> str:
        return forgery.link_local(self.mac(guest)).replace("fe80::", f"{PREFIX}0:")

    def on(self, guest: str, command: str, timeout: float = 30) -> str:
        """What a shell command in the guest says."""
        done = self.course.ssh(self.floating[guest], command, timeout=timeout)
        assert done.returncode not in (124, 255), (guest, command, done.stderr)
        return done.stdout

    def works(self, guest: str, command: str) -> bool:
        return self.course.ssh(self.floating[guest], command).returncode == 0

    def send(self, *frames: bytes) -> None:
        """From mallory's card."""
        (self.course.work / "frames").write_text("".join(f"{frame.hex()}\n" for frame in frames))
        self.course.exec("sh", "-c", f"ssh -i {self.course.work}/id_rsa {' '.join(GUEST_SSH)} cirros@{self.floating['mallory']} "
                                     f"'sudo /tmp/frames eth0' < {self.course.work}/frames")  # fmt: skip

    @contextmanager
    def spawned(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command on the host, ended with the block."""
        typed = [str(self.course.clone / "nacre"), "exec", "--home", str(self.course.home), "--", *words]
        with subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.terminate()

    @contextmanager
    def capture(self, guest: str, expression: str) -> Iterator[list[str]]:
        """What arrives at the guest's tap while the block lasts: lines, there after it."""
        seen: list[str] = []
        with self.spawned("tcpdump", "-lenni", self.tap(guest), expression) as process:
            assert process.stderr and any("listening on" in line for line in process.stderr)
            yield seen
            time.sleep(0.5)  # what is on its way
            process.terminate()
            seen += filter(None, process.communicate(timeout=20)[0].splitlines())

    @contextmanager
    def rules(self, *wanted: str, who: str = "demo") -> Iterator[None]:
        """Rules of ingress, each "GROUP PROTOCOL [PORT]", for as long as it takes; a protocol ending in 6 is of IPv6."""
        api, made = self.users[who], []
        try:
            for group, protocol, *port in (words.split() for words in wanted):
                ports = {"port_range_min": int(port[0]), "port_range_max": int(port[0])} if port else {}
                kind = {"ethertype": "IPv6" if protocol.endswith("6") else "IPv4", "protocol": _PROTOCOLS[protocol], **ports}
                made.append(api.network("security_group_rule", security_group_id=self.groups[group], direction="ingress", **kind)["id"])
            yield
        finally:
            for id_ in made:
                api("DELETE", f"/network/v2.0/security-group-rules/{id_}")


def _external(admin: Rest) -> str:
    physical = {"provider:network_type": "flat", "provider:physical_network": "external", "router:external": True}
    external = str(admin.network("network", name="ext", **physical)["id"])
    admin.network("subnet", network_id=external, ip_version=4, cidr="172.24.4.0/24", enable_dhcp=False)
    return external


def _network(api: Rest, who: str, external: str, *six: str) -> tuple[str, str]:
    """A network behind a router, the DHCP server's address known; its id and that of its subnet of IPv4."""
    network = api.network("network", name=f"net-{who}")["id"]
    pools = [{"start": DHCP, "end": DHCP}]
    subnet = api.network("subnet", network_id=network, ip_version=4, cidr="172.16.1.0/24", allocation_pools=pools)["id"]
    modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    others = [api.network("subnet", network_id=network, ip_version=6, cidr=cidr, **modes)["id"] for cidr in six]
    router = api.network("router", name=f"router-{who}", external_gateway_info={"network_id": external})["id"]
    for one in (subnet, *others):
        api("PUT", f"/network/v2.0/routers/{router}/add_router_interface", {"subnet_id": one})
    return network, subnet


def _group(api: Rest, name: str, *ports: int) -> str:
    group = str(api.network("security_group", name=name)["id"])
    for port in ports:
        rule = {"direction": "ingress", "protocol": "tcp", "port_range_min": port, "port_range_max": port}
        api.network("security_group_rule", security_group_id=group, **rule)
    return group


def _guest(api: Rest, external: str, name: str, image: str, **port: object) -> tuple[dict[str, object], str]:
    """Its port and floating IP."""
    made = api.network("port", name=name, **port)
    server = {"name": name, "flavorRef": "0", "imageRef": image, "networks": [{"port": made["id"]}], "key_name": "key"}
    api("POST", "/compute/v2.1/servers", {"server": server})
    return made, api.network("floatingip", floating_network_id=external, port_id=made["id"])["floating_ip_address"]


def _set_up(cloud: Cloud) -> None:
    admin, demo = Rest(cloud.course, "admin"), Rest(cloud.course, "demo")
    cloud.users.update(admin=admin, demo=demo)
    admin("POST", "/compute/v2.1/flavors", {"flavor": {"id": "0", "name": "m1.nano", "ram": 64, "vcpus": 1, "disk": 1}})
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(cloud.course.work / "id_rsa")], check=True)
    for api in (admin, demo):
        api("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "key", "public_key": (cloud.course.work / "id_rsa.pub").read_text()}})
    image, external = admin("GET", "/image/v2/images?name=nacre-guest")["images"][0]["id"], _external(admin)
    network, subnet = _network(demo, "demo", external, f"{PREFIX}:/64")
    other, other_subnet = _network(admin, "admin", external)
    cloud.groups.update(attacker=_group(demo, "attacker", 22), victim=_group(demo, "victim"), twins=_group(admin, "twins", 22))
    for api, name, on, under, group, address in (
        (demo, "mallory", network, subnet, "attacker", MALLORY),
        (demo, "alice", network, subnet, "victim", ALICE),
        (admin, "twin", other, other_subnet, "twins", ALICE),
    ):
        fixed = [{"subnet_id": under, "ip_address": address}]
        port: dict[str, object] = {"network_id": on, "security_groups": [cloud.groups[group]], "fixed_ips": fixed}
        same = {"mac_address": cloud.mac("alice")} if name == "twin" else {}
        cloud.ports[name], cloud.floating[name] = _guest(api, external, name, image, **port, **same)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with fresh() as course:
        made = Cloud(course)
        _set_up(made)
        source = Path(__file__).with_name("frames.c")
        subprocess.run(["gcc", "-static", "-Os", "-o", str(course.work / "sender"), str(source)], check=True)
        for name in ("mallory", "twin"):
            until(lambda name=name: made.works(name, "true"), 90, every=1)  # type: ignore[misc]
        course.exec("sh", "-c", f"ssh -i {course.work}/id_rsa {' '.join(GUEST_SSH)} cirros@{made.floating['mallory']} "
                                f"'cat > /tmp/frames && chmod 755 /tmp/frames' < {course.work}/sender")  # fmt: skip
        yield made


def test_a_closed_port_hangs_and_a_rule_opens_it_at_once(cloud: Cloud) -> None:
    until(lambda: "login:" in cloud.course.openstack("demo", "console", "log", "show", "alice"), 60)
    refused = cloud.course.ssh(cloud.floating["alice"], "true")
    assert refused.returncode == 255 and "timed out" in refused.stderr, refused
    cloud.course.openstack("demo", *"security group rule create --proto tcp --dst-port 22 victim".split())
    began = time.monotonic()
    until(lambda: cloud.works("alice", "true"), 8, every=0.1)
    assert cloud.on("alice", "hostname").strip() == "alice", time.monotonic() - began


def test_names_of_the_networks_ports_resolve(cloud: Cloud) -> None:
    for name, expected in (("alice", ALICE), ("alice.openstacklocal", cloud.six("alice")), ("mallory", MALLORY)):
        found = cloud.on("mallory", f"nslookup {name} 2>&1; cat /etc/resolv.conf")
        assert expected in found, found
    assert "twin" not in cloud.on("mallory", "nslookup twin 2>&1 | grep -v NXDOMAIN | grep -v find")


def test_slaac_and_neighbours_over_ipv6(cloud: Cloud) -> None:
    for guest in ("mallory", "alice"):
        until(lambda guest=guest: cloud.six(guest) in cloud.on(guest, "/sbin/ip -6 addr show dev eth0"), 20)  # type: ignore[misc]
        told = cloud.on(guest, "/sbin/ip -6 route; dmesg | tail -n 5")
        assert "default via fe80::" in told, (told, cloud.course.exec("sh", "-c", "tail -n 20 /run/nacre/ra/*/*").stdout)
    router = cloud.course.value("demo", "id", "router", "show", "router-demo")
    within = ("ip", "netns", "exec", f"qrouter-{router}", "ping", "-c", "1", "-W", "2", cloud.six("alice"))
    assert not cloud.works("mallory", f"ping6 -c 1 -W 1 {cloud.six('alice')}")
    with cloud.rules("victim icmp6"):
        until(lambda: cloud.works("mallory", f"ping6 -c 1 -W 2 {cloud.six('alice')}"), 5)
        assert "1 received" in cloud.course.exec(*within).stdout
    until(lambda: not cloud.works("mallory", f"ping6 -c 1 -W 1 {cloud.six('alice')}"), 5)


def _forged(cloud: Cloud) -> list[bytes]:
    mallory, alice = cloud.mac("mallory"), cloud.mac("alice")
    own6, alice6 = cloud.six("mallory"), cloud.six("alice")
    return [
        forgery.echo(STRANGER, alice, MALLORY, ALICE, 61), forgery.echo(mallory, alice, GHOST, ALICE, 62), forgery.echo6(mallory, alice6),
        forgery.echo6(STRANGER, own6), forgery.arp(mallory, mallory, "172.16.1.1", ALICE), forgery.arp(mallory, STRANGER, MALLORY, ALICE),
        forgery.arp(mallory, mallory, GHOST, ALICE, answer=False), forgery.arp(STRANGER, STRANGER, MALLORY, ALICE),
        forgery.dhcp_offer(mallory, MALLORY, GHOST, alice), forgery.dhcp6_reply(mallory), forgery.router_advertisement(mallory),
        forgery.neighbour_advertisement(mallory, f"{PREFIX}:1", own6), forgery.neighbour_advertisement(mallory, alice6, alice6),
    ]  # fmt: skip


def test_nothing_forged_reaches_the_neighbour(cloud: Cloud) -> None:
    mallory, alice = cloud.mac("mallory"), cloud.mac("alice")
    honest = [forgery.echo(mallory, alice, MALLORY, ALICE, 77), forgery.echo6(mallory, cloud.six("mallory"))]
    with cloud.rules("victim any", "victim any6"):
        until(lambda: cloud.works("mallory", f"ping -c 1 -W 1 {ALICE}"), 5)
        with cloud.capture("alice", f"(ether src {mallory} or ether src {STRANGER} or host {GHOST}) and not tcp") as seen:
            cloud.send(*_forged(cloud), *honest)
    said = "\n".join(seen)
    assert f"{MALLORY} > {ALICE}: ICMP echo request, id 77" in said and f"{cloud.six('mallory')} > ff02::1: ICMP6, echo request" in said
    for never in (STRANGER, GHOST, "id 61", "id 62", "router advertisement", f"tgt is {PREFIX}:1,", f"tgt is {cloud.six('alice')},",
                  "172.16.1.1 is-at", "BOOTP", ".67 >", "dhcp6"):  # fmt: skip
        assert never not in said, (never, said)


def _tagged(cloud: Cloud) -> list[bytes]:
    """An honest frame behind tags: none (0), the number of each network on this switch, any; by 802.1Q, by 802.1ad, and both."""
    honest = forgery.echo(cloud.mac("mallory"), cloud.mac("alice"), MALLORY, ALICE, 81)
    told = cloud.course.exec("ovs-vsctl", "get", "bridge", "br-int", "external_ids").stdout
    numbers = [0, 100, *map(int, re.findall(r'vlan-[\w-]+"?="?(\d+)', told))]
    assert len(numbers) == 5, told
    kinds = [(forgery.CUSTOMER,), (forgery.SERVICE,), (forgery.SERVICE, forgery.CUSTOMER), (forgery.CUSTOMER, forgery.CUSTOMER)]
    return [forgery.tagged(honest, *((kind, number) for kind in stack)) for stack in kinds for number in numbers]


def test_tagged_frames_reach_nobody(cloud: Cloud) -> None:
    mallory = cloud.mac("mallory")
    with cloud.rules("victim any"), cloud.rules("twins any", who="admin"):
        until(lambda: cloud.works("mallory", f"ping -c 1 -W 1 {ALICE}"), 5)
        sent = f"ether src {mallory} and not tcp"
        with cloud.capture("alice", sent) as alice, cloud.capture("twin", sent) as twin:
            cloud.send(*_tagged(cloud), forgery.echo(mallory, cloud.mac("alice"), MALLORY, ALICE, 78))
    assert [line for line in alice if "ICMP echo" in line and "id 78" not in line] == [] == twin and "id 78" in "".join(alice), (alice, twin)


def test_a_guest_that_changes_itself_reaches_nobody(cloud: Cloud) -> None:
    """By the means of the guest itself: another MAC address, another address."""
    own = cloud.mac("mallory")
    script = (f"ip link set eth0 address {STRANGER}; ping -c 2 -W 1 {ALICE}; ip link set eth0 address {own}; ip addr add {GHOST}/24 dev eth0;"
              f" ping -c 1 -W 1 -I {GHOST} {ALICE}; arping -c 1 -w 1 -I eth0 -s {GHOST} {ALICE}; ip addr del {GHOST}/24 dev eth0;"
              f" udhcpc -n -q -i eth0 -s /usr/share/udhcpc/default.script -O staticroutes -O mtu; ping -c 2 {ALICE}; touch /tmp/done")  # fmt: skip
    with cloud.rules("victim icmp"), cloud.capture("alice", f"ether src {STRANGER} or src {GHOST} or (icmp and host {MALLORY})") as seen:
        cloud.on("mallory", f"rm -f /tmp/done; sudo sh -c '({script}) > /tmp/changed 2>&1 &'")
        until(lambda: cloud.works("mallory", "test -e /tmp/done"), 60, every=1)
    said = "\n".join(seen)
    assert STRANGER not in said and GHOST not in said and f"{MALLORY} > {ALICE}" in said, (said, cloud.on("mallory", "cat /tmp/changed"))


def test_a_removed_rule_ends_its_connections_and_no_others(cloud: Cloud) -> None:
    for port in (8000, 8001):
        cloud.on("alice", f"setsid nc -l -p {port} -e sh -c 'while :; do echo tick; sleep 0.2; done' > /dev/null 2>&1 &")
    sizes = "wc -c < /tmp/8000; wc -c < /tmp/8001"

    def grew(seconds: float) -> list[bool]:
        words = [int(size) for size in cloud.on("mallory", f"{sizes}; sleep {seconds}; {sizes}").split()]
        return [new > old for old, new in zip(words[:2], words[2:], strict=True)]

    with cloud.rules("victim tcp 8001"):
        with cloud.rules("victim tcp 8000"):
            for port in (8000, 8001):
                cloud.on("mallory", f"setsid sh -c 'sleep 60 | nc {ALICE} {port} > /tmp/{port}' > /dev/null 2>&1 &")
            time.sleep(1)
            assert grew(1) == [True, True], (cloud.on("mallory", "ps; ls -l /tmp"), cloud.on("alice", "ps; netstat -tn"))
        until(lambda: grew(1) == [False, True], 6)
        assert grew(2) == [False, True]


def test_metadata_is_told_to_its_own_guest_only(cloud: Cloud) -> None:
    ask = "timeout 4 wget -q -O - http://169.254.169.254/latest/meta-data/hostname"
    assert cloud.on("mallory", ask).startswith("mallory")
    pretend = (f"sudo ip addr add {ALICE}/32 dev eth0; sudo ip route replace 169.254.169.254 via {{}} dev eth0 src {ALICE}; {ask};"
               f" sudo ip route replace 169.254.169.254 via {DHCP} dev eth0 src {MALLORY}; sudo ip addr del {ALICE}/32 dev eth0")  # fmt: skip
    for way in (DHCP, "172.16.1.1"):
        assert cloud.on("mallory", f"PATH=$PATH:/sbin; {pretend.format(way)}").strip() == "", way
    header = f"timeout 4 wget -q --header 'X-Forwarded-For: {ALICE}' -O - http://169.254.169.254/latest/meta-data/hostname"
    assert cloud.on("mallory", header).startswith("mallory")
    assert cloud.on("mallory", ask).startswith("mallory")


def test_the_hosts_own_addresses_are_not_reached(cloud: Cloud) -> None:
    with cloud.spawned("socat", "TCP-LISTEN:7777,fork,reuseaddr", "SYSTEM:echo reached"):
        until(lambda: ":7777" in cloud.course.exec("ss", "-Hlnt").stdout, 5)
        assert "reached" in cloud.on("mallory", "timeout 3 nc 172.24.4.1 7777 < /dev/null || true"), "what the outside's gateway has is reached"
        addresses = re.findall(r"inet (\S+)/", cloud.course.exec("ip", "-4", "addr").stdout)
        assert "192.0.2.1" in addresses
        for address in addresses:
            if address not in ("127.0.0.1", "172.24.4.1"):
                assert not cloud.works("mallory", f"timeout 3 nc {address} 7777 < /dev/null | grep reached"), address
                assert not cloud.works("mallory", f"ping -c 1 -W 1 {address}"), address
        sockets = cloud.course.exec("ss", "-Hlntu").stdout
        there = {line.split()[4] for line in sockets.splitlines()} - {"0.0.0.0:7777"}
        assert all(one.startswith(("127.", "[::1]")) for one in there), f"the host itself listens to nobody outside: {there}"
    gateway = cloud.course.exec("sh", "-c", "cat /sys/class/net/ext-out/address").stdout.strip()
    router = cloud.course.value("demo", "id", "router", "show", "router-demo")
    legs = json.loads(cloud.course.exec("ip", "-n", f"qrouter-{router}", "-j", "link").stdout)
    inner = [leg["address"] for leg in legs if leg["ifname"].startswith("qr-")]
    targets = ("127.0.0.1", "192.0.2.1", "172.16.1.1")
    with cloud.capture("mallory", "icmp") as seen:
        cloud.send(*(forgery.echo(cloud.mac("mallory"), mac, MALLORY, target) for mac in (gateway, *inner) for target in targets))
    said = "\n".join(seen)
    assert "172.16.1.1 > " in said and "127.0.0.1 >" not in said and "192.0.2.1 >" not in said, said
    for port in (9697, 22, cloud.course.port):
        assert not cloud.works("mallory", f"timeout 2 nc 172.16.1.1 {port} < /dev/null"), port


def test_two_projects_with_one_address_never_meet(cloud: Cloud) -> None:
    assert cloud.mac("twin") == cloud.mac("alice")
    assert cloud.on("twin", "hostname").strip() == "twin" and cloud.on("alice", "hostname").strip() == "alice"
    with cloud.rules("twins any", who="admin"), cloud.rules("victim icmp"), cloud.capture("twin", "not port 22") as seen:
        until(lambda: cloud.works("mallory", f"ping -c 1 -W 1 {ALICE}"), 5)
        mallory = cloud.mac("mallory")
        cloud.send(forgery.arp(mallory, mallory, MALLORY, ALICE), forgery.echo6(mallory, cloud.six("mallory")))
        assert cloud.works("twin", "ping -c 1 -W 1 172.16.1.1")
    said = "\n".join(seen)
    assert f"172.16.1.1 > {ALICE}" in said and mallory not in said and MALLORY not in said, said


def test_allowed_pairs_and_port_security_off(cloud: Cloud) -> None:
    network = cloud.course.value("demo", "id", "network", "show", "net-demo")

    def reached(address: str) -> bool:
        ping = ("ip", "netns", "exec", f"qdhcp-{network}", "ping", "-c", "2", "-i", "0.3", "-W", "1", address)
        return cloud.course.exec(*ping, check=False).returncode == 0

    ways = ("172.16.1.200", f"{PREFIX}:200")
    for address, size in zip(ways, (24, 64), strict=True):
        cloud.on("mallory", f"sudo /sbin/ip addr add {address}/{size} dev eth0")
    with cloud.rules("attacker icmp", "attacker icmp6"):
        until(lambda: reached(MALLORY), 5)
        assert [reached(address) for address in ways] == [False, False]
        pairs = [word for address in ways for word in ("--allowed-address", f"ip-address={address}")]
        cloud.course.openstack("demo", "port", "set", "mallory", *pairs)
        until(lambda: all(reached(address) for address in ways), 8)
        cloud.course.openstack("demo", "port", "set", "mallory", "--no-allowed-address")
        until(lambda: not reached(ways[0]), 8)
    cloud.course.openstack("demo", "port", "set", "mallory", "--no-security-group", "--disable-port-security")
    with cloud.rules("victim icmp"):
        until(lambda: all(reached(address) for address in ways), 8)
        with cloud.capture("alice", f"ether src {STRANGER} or ether src {cloud.mac('mallory')}") as seen:
            cloud.send(*_tagged(cloud), forgery.echo(STRANGER, cloud.mac("alice"), GHOST, ALICE, 63))
    said = "\n".join(seen)
    assert f"{GHOST} > {ALICE}: ICMP echo request, id 63" in said and "id 81" not in said, "a tag is not its to set even so"
