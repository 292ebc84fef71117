"""IPv6 on the wires, in a sandbox host; guests are namespaces with a cable into br-int (dhclient plays the guest that knows DHCPv6)."""

import re
import select
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from machine.test_wires import GROUP, GUESTS, NET, ROUTER, dhcp, everything, network, port, router, rule, subnet
from machine.wires_host import Host

pytestmark = pytest.mark.machine

SIX = "sub-6"
PING6 = rule("ingress", ethertype="IPv6", protocol="ipv6-icmp")
SLAAC = {"a": "2001:db8:1:0:f816:3eff:fe00:a", "b": "2001:db8:1:0:f816:3eff:fe00:b"}
LEASED = {"a": "2001:db8:1::a0", "b": "2001:db8:1::b0"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("wires6"), 1)
    try:
        made.start()
        yield made
    finally:
        try:
            made.stop()
        finally:
            made.sandbox.stop()


def six(mode: str | None, version: int, *rules: dict[str, Any], **ports: dict[str, Any]) -> dict[str, Any]:
    """The wires' whole, with an IPv6 subnet of that mode; `ports`: what is different of a guest's port."""
    addresses = LEASED if mode in (None, "dhcpv6-stateful") else SLAAC
    own = {"cidr": "2001:db8:1::/64", "gateway": "2001:db8:1::1", "ip_version": 6, "ipv6_ra_mode": mode, "ipv6_address_mode": mode}
    serving, routing, between = dhcp(), router(), network()
    between["subnets"].append(subnet(SIX, **own))
    serving["port"]["fixed_ips"].append({"ip_address": "2001:db8:1::2", "prefixlen": 64, "subnet_id": SIX})
    for one, name in zip(serving["hosts"], "ab", strict=False):
        one["fixed_ips"].append({"ip_address": addresses[name], "subnet_id": SIX})
    routing["interfaces"][0]["fixed_ips"].append({"ip_address": "2001:db8:1::1", "prefixlen": 64, "subnet_id": SIX})
    wanted = everything(*rules, version=version, router={ROUTER: [version, routing]}, dhcp={NET: [version, serving]})
    wanted["network"][NET] = [version, between]
    for name in "ab":
        body = {**port(name), **ports.get(name, {})}
        body["fixed_ips"] = [*body["fixed_ips"], {"ip_address": addresses[name], "subnet_id": SIX}]
        wanted["port"][GUESTS[name].port] = [version, body]
    return wanted


def shown(host: Host, name: str, *what: str) -> str:
    return host.within(name, "ip", "-6", *what)


def until(host: Host, name: str, text: str, *what: str, seconds: float = 12) -> None:
    end = time.monotonic() + seconds
    while text not in (seen := shown(host, name, *what)):
        assert time.monotonic() < end, (seen, host.run("sh", "-c", "cat /run/nacre/ra/*/*", check=False), host.log.read_text()[-2000:])
        time.sleep(0.2)


def solicit(host: Host, name: str) -> None:
    """A guest whose link comes up anew asks for routers."""
    host.within(name, "ip", "link", "set", "eth0", "down")
    host.within(name, "ip", "link", "set", "eth0", "up")


def test_slaac_gives_address_route_and_mtu(host: Host) -> None:
    wanted = six("slaac", 1, PING6)
    host.apply(wanted)
    for name in "ab":
        host.guest(name, GUESTS[name], mtu=1500)
    host.settle(wanted)
    for name in "ab":
        solicit(host, name)
    for name in "ab":
        until(host, name, f"{SLAAC[name]}/64", "address", "show", "dev", "eth0", "-tentative")
        until(host, name, "default via fe80::f816:3eff:fe00:1 ", "route")
        assert "mtu 1450" in shown(host, name, "route")
    assert host.pings("a", SLAAC["b"]) and host.pings("b", SLAAC["a"]), "neighbours"
    assert host.pings("a", "2001:db8:1::1") and host.pings("a", "2001:db8:1::2"), "router and DHCP server"
    for room in (f"qrouter-{ROUTER}", f"qdhcp-{NET}"):
        assert host.pings(room, SLAAC["a"]), room
    found = host.within("a", "busybox", "nslookup", "-type=aaaa", "host-172-16-1-11.openstacklocal", "2001:db8:1::2", check=False)
    assert SLAAC["b"] in found, found


def test_rules_of_ipv6_decide_and_cut(host: Host) -> None:
    host.settle(six("slaac", 2, PING6))
    assert host.pings("a", SLAAC["b"])
    host.settle(six("slaac", 3))
    host.revalidate()
    assert not host.pings("a", SLAAC["b"])
    ssh = rule("ingress", ethertype="IPv6", protocol="tcp", port_range_min=22, port_range_max=22, remote_ip_prefix=f"{SLAAC['a']}/128")
    with host.begin("b", "timeout", "6", "socat", "-u", "TCP6-LISTEN:22,fork,reuseaddr", "OPEN:/dev/null"):
        time.sleep(0.3)
        assert not host.talks("a", f"[{SLAAC['b']}]", 22)
        host.settle(six("slaac", 4, ssh))
        host.revalidate()
        assert host.talks("a", f"[{SLAAC['b']}]", 22) and not host.pings("a", SLAAC["b"])
        assert not host.talks(f"qrouter-{ROUTER}", f"[{SLAAC['b']}]", 22)


def test_a_removed_rule_ends_the_connection(host: Host) -> None:
    web = rule("ingress", ethertype="IPv6", protocol="tcp", port_range_min=8000, port_range_max=8000)
    host.settle(six("slaac", 40, PING6, web))
    inside = host.sandbox.command(["ip", "netns", "exec", "a", "socat", "-", f"TCP:[{SLAAC['b']}]:8000,retry=20,interval=0.1"])
    echo = host.begin("b", "timeout", "40", "socat", "TCP6-LISTEN:8000,reuseaddr", "PIPE")
    with echo, subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as client:
        assert client.stdin and client.stdout

        def echoed(word: bytes, seconds: float) -> bool:
            client.stdin.write(word)
            return bool(select.select([client.stdout], [], [], seconds)[0]) and client.stdout.read(99) == word

        try:
            assert echoed(b"one", 5)
            host.settle(six("slaac", 41, web))
            assert echoed(b"two", 5), "another rule's end is no matter to it"
            host.settle(six("slaac", 42, PING6))
            host.revalidate()
            assert not echoed(b"three", 3)
        finally:
            client.kill()
            echo.terminate()


FORGED = """
import socket, struct, sys
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
own, foreign, everybody = (socket.inet_pton(socket.AF_INET6, text) for text in (sys.argv[2], sys.argv[3], "ff02::1"))
def checksum(source, target, kind, body):
    data = source + target + struct.pack("!II", len(body), kind) + body
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return struct.pack("!H", ~total & 0xffff)
def packet(source, kind, body, place):
    body = body[:place] + checksum(source, everybody, kind, body) + body[place + 2:]
    return b"\\x33\\x33\\0\\0\\0\\1" + mac + b"\\x86\\xdd" + struct.pack("!IHBB", 6 << 28, len(body), kind, 255) + source + everybody + body
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
advertised = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\\1\\1" + mac
answer = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + foreign + b"\\2\\1" + mac
doubt = struct.pack("!BBHI", 135, 0, 0, 0) + foreign
redirect = struct.pack("!BBHI", 137, 0, 0, 0) + foreign + foreign
reply = struct.pack("!HHHH", 547, 546, 12, 0) + b"\\7abc"
echo = struct.pack("!BBHHH", 128, 0, 0, 7, 7)
everywhere = socket.inet_pton(socket.AF_INET6, sys.argv[4])
for source, kind, body, place in ((own, 58, advertised, 2), (own, 58, answer, 2), (b"\\0" * 16, 58, doubt, 2), (own, 58, redirect, 2),
                                  (own, 17, reply, 6), (foreign, 58, echo, 2)):
    raw.send(packet(source, kind, body, place))
for source, hidden, number in ((own, advertised, 9), (everywhere, answer, 10)):
    for offset, part in ((0x0001, b"\\x3a\\0\\1\\4\\0\\0\\0\\0"), (0x0008, packet(source, 58, hidden, 2)[54:])):
        extended = struct.pack("!BBHI", 60, 0, offset, number) + part
        head = struct.pack("!IHBB", 6 << 28, len(extended), 44, 255)
        raw.send(b"\\x33\\x33\\0\\0\\0\\1" + mac + b"\\x86\\xdd" + head + source + everybody + extended)
raw.send(packet(own, 58, echo, 2))
"""


@pytest.mark.parametrize("stateful", [True, False])
def test_a_guest_cannot_be_another_or_a_router(host: Host, stateful: bool) -> None:
    anything = [rule("ingress"), rule("ingress", ethertype="IPv6")]
    wanted = six("slaac", 5 + stateful, *anything)
    wanted["security_group"][GROUP][1]["stateful"] = stateful
    host.settle(wanted)
    expression = f"ether src {GUESTS['a'].mac} or host 2001:db8:1::bad"
    capture = host.begin("b", "timeout", "2", "tcpdump", "-lnni", "eth0", "-e", "-v", expression)
    try:
        time.sleep(0.7)
        host.within("a", "python3", "-c", FORGED, GUESTS["a"].mac, "fe80::f816:3eff:fe00:a", "2001:db8:1::bad", SLAAC["a"])
    finally:
        seen, _ = capture.communicate(timeout=10)
    assert "echo request" in seen, "what it may send arrives"
    for never in ("router advertisement", "2001:db8:1::bad", "redirect", "dhcp6", ":0|", "0x00000009"):
        assert never not in seen, seen


def test_allowed_pairs_of_both_families(host: Host) -> None:
    extra = {"a": ("172.16.1.200", "2001:db8:1::200")}
    anything = [rule("ingress"), rule("ingress", ethertype="IPv6")]
    host.settle(six("slaac", 8, *anything))
    for name in "ab":
        host.address(name)
    host.within("a", "ip", "address", "add", "172.16.1.200/24", "dev", "eth0")
    host.within("a", "ip", "address", "add", "2001:db8:1::200/64", "dev", "eth0", "nodad")

    def reached() -> list[bool]:
        host.within("b", "ip", "neigh", "flush", "all")
        return [host.pings("b", address) for address in extra["a"]]

    assert reached() == [False, False]
    pairs = [{"ip_address": "172.16.1.192/26", "mac_address": None}, {"ip_address": "2001:db8:1::200", "mac_address": GUESTS["a"].mac}]
    host.settle(six("slaac", 9, *anything, a={"allowed_address_pairs": pairs}))
    assert reached() == [True, True]
    host.settle(six("slaac", 10, *anything))
    host.revalidate()
    assert reached() == [False, False]
    for address in ("172.16.1.200/24", "2001:db8:1::200/64"):
        host.within("a", "ip", "address", "del", address, "dev", "eth0")


def test_port_security_off_switches_all_off(host: Host) -> None:
    open_a = {"port_security": False, "security_groups": []}
    host.within("a", "ip", "address", "add", "172.16.1.66/24", "dev", "eth0")
    host.within("a", "ip", "address", "add", "2001:db8:1::66/64", "dev", "eth0", "nodad")
    host.settle(six("slaac", 11, PING6, rule("ingress", protocol="icmp")))
    host.revalidate()
    assert not host.pings("b", "172.16.1.66") and not host.pings("b", "2001:db8:1::66")
    host.settle(six("slaac", 12, PING6, rule("ingress", protocol="icmp"), a=open_a))
    host.within("b", "ip", "neigh", "flush", "all")
    assert host.pings("b", "172.16.1.66") and host.pings("b", "2001:db8:1::66")
    host.within("a", "ip", "link", "set", "eth0", "address", "fa:16:3e:66:66:66")
    host.within("b", "ip", "neigh", "flush", "all")
    assert host.pings("b", "172.16.1.66"), "even under another MAC address"
    host.within("a", "ip", "link", "set", "eth0", "address", GUESTS["a"].mac)
    for address in ("172.16.1.66/24", "2001:db8:1::66/64"):
        host.within("a", "ip", "address", "del", address, "dev", "eth0", check=False)


def test_stateless_groups_track_nothing(host: Host) -> None:
    def wanted(version: int, *rules: dict[str, Any]) -> dict[str, Any]:
        made = six("slaac", version, *rules)
        made["security_group"][GROUP][1]["stateful"] = False
        return made

    host.settle(wanted(13))
    solicit(host, "a")
    until(host, "a", f"{SLAAC['a']}/64", "address", "show", "dev", "eth0", "-tentative")
    until(host, "b", f"{SLAAC['b']}/64", "address", "show", "dev", "eth0", "-tentative")
    assert not host.pings("a", SLAAC["b"]), "an answer needs a rule of its own"
    host.settle(wanted(14, PING6))
    assert host.pings("a", SLAAC["b"])
    host.run("ovs-appctl", "dpctl/flush-conntrack")
    assert host.pings("a", SLAAC["b"])
    assert SLAAC["b"] not in host.run("ovs-appctl", "dpctl/dump-conntrack")


def lease(host: Host, name: str, *options: str) -> str:
    """What DHCPv6 gave; `-S` asks for configuration only."""
    folder = host.log.parent / f"dhclient-{name}"
    folder.mkdir(exist_ok=True)
    script = folder / "script"
    script.write_text('#!/bin/sh\necho "$reason $new_ip6_address $new_dhcp6_name_servers $new_dhcp6_domain_search" >> ' + f"{folder}/said\n")
    script.chmod(0o755)
    (folder / "said").write_text("")
    files = ["-lf", f"{folder}/leases", "-pf", f"{folder}/pid", "-sf", str(script), "-cf", "/dev/null"]
    try:
        host.within(name, "timeout", "8", "dhclient", "-6", "-1", "-d", "-D", "LL", *options, *files, "eth0", check=False)
    finally:
        (folder / "leases").unlink(missing_ok=True)
    return (folder / "said").read_text()


@pytest.mark.parametrize("mode", ["dhcpv6-stateful", "dhcpv6-stateless", None])
def test_dhcpv6(host: Host, mode: str | None) -> None:
    host.settle(six(mode, 20 + len(mode or ""), PING6))
    host.within("a", "ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")
    conf = host.run("cat", f"/run/nacre/ra/{ROUTER}/conf", check=False)
    if mode == "dhcpv6-stateless":
        assert "AdvOtherConfigFlag on" in conf
        solicit(host, "a")
        until(host, "a", f"{SLAAC['a']}/64", "address", "show", "dev", "eth0", "-tentative")
        assert "2001:db8:1::2 openstacklocal." in lease(host, "a", "-S")
        return
    assert ("AdvManagedFlag on" in conf) == (mode is not None) and bool(host.succeeds("pgrep", "-x", "radvd")) == (mode is not None)
    said = lease(host, "a")
    assert f" {LEASED['a']} 2001:db8:1::2 openstacklocal." in said, (said, host.run("sh", "-c", "cat /run/nacre/dhcp/*/log", check=False))
    assert SLAAC["a"] not in shown(host, "a", "address"), "nobody told it to make one"


def tracked(host: Host) -> set[str]:
    """Addresses in the table of connections; an echo's entry ends by itself."""
    lines = host.run("ovs-appctl", "dpctl/dump-conntrack").splitlines()
    return {address for line in lines if not line.startswith("icmp") for address in re.findall(r"(?:src|dst)=([^,)]+)", line)}


def test_connections_go_with_their_port_and_radvd_is_kept_alive(host: Host) -> None:
    anything = [rule("ingress"), rule("ingress", ethertype="IPv6")]
    wanted = six("slaac", 30, *anything)
    host.settle(wanted)
    for name in "ab":
        solicit(host, name)
    for name in "ab":
        until(host, name, f"{SLAAC[name]}/64", "address", "show", "dev", "eth0", "-tentative")
    host.address("b")
    with host.begin("b", "timeout", "3", "socat", "TCP6-LISTEN:80,fork,ipv6only=0", "PIPE"):
        time.sleep(0.3)
        assert host.talks("a", f"[{SLAAC['b']}]", 80) and host.talks("a", "172.16.1.11", 80)
        assert host.talks(f"qrouter-{ROUTER}", f"[{SLAAC['b']}]", 80)
        assert not {SLAAC["b"], "172.16.1.11"} - tracked(host)
    host.order(rings=True)
    host.run("kill", "-9", host.run("cat", f"/run/nacre/ra/{ROUTER}/pid").strip())
    end = time.monotonic() + 5
    while not host.order(rings=True):
        assert time.monotonic() < end, "nobody noticed that radvd ended"
        time.sleep(0.05)
    del wanted["port"][GUESTS["b"].port]
    host.settle(wanted)
    assert host.succeeds("pgrep", "-x", "radvd")
    assert not {SLAAC["b"], "172.16.1.11"} & tracked(host)
    wanted["router"] = {}
    host.settle(wanted)
    assert not host.succeeds("pgrep", "-x", "radvd") and not host.succeeds("test", "-e", f"/run/nacre/ra/{ROUTER}")
