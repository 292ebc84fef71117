"""Wires driven by wanted documents alone, in a sandbox host; guests are namespaces with a cable into br-int."""

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import forgery
from machine.wires_host import Guest, Host

pytestmark = pytest.mark.machine

NET, OUT, ROUTER, GROUP = "11111111-net", "22222222-out", "33333333-router", "44444444-group"
SUBNET, OUT1, OUT2 = "sub-1", "sub-out-1", "sub-out-2"
DHCP_PORT, QR, QG = "d0000000-00000", "e0000000-00000", "f0000000-00000"
GUESTS = {
    "a": Guest("a0000000-00000", "fa:16:3e:00:00:0a", "172.16.1.10"),
    "b": Guest("b0000000-00000", "fa:16:3e:00:00:0b", "172.16.1.11"),
    "c": Guest("c0000000-00000", "fa:16:3e:00:00:0c", "172.16.1.12"),
}
A, B = GUESTS["a"].port, GUESTS["b"].port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wires")


def running(folder: Path, number: int) -> Iterator[Host]:
    made = Host(folder, number)
    try:
        made.start()
        yield made
    finally:
        try:
            made.stop()
        finally:
            made.sandbox.stop()


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Host]:
    yield from running(folder, 1)


@pytest.fixture
def second(host: Host, folder: Path) -> Iterator[Host]:
    yield from running(folder, 2)


def rule(direction: str, **more: Any) -> dict[str, Any]:
    base = {"id": "r", "ethertype": "IPv4", "protocol": None, "port_range_min": None, "port_range_max": None}
    return {**base, "remote_ip_prefix": None, "remote_group_id": None, "direction": direction, **more}


EGRESS = [rule("egress"), rule("egress", ethertype="IPv6")]
PING = rule("ingress", protocol="icmp")


def port(name: str) -> dict[str, Any]:
    guest = GUESTS[name]
    return {
        "network_id": NET, "mac_address": guest.mac, "tap": guest.tap, "admin_state_up": True, "port_security": True,
        "fixed_ips": [{"ip_address": guest.address, "subnet_id": SUBNET}], "allowed_address_pairs": [], "security_groups": [GROUP],
        "device_id": name, "device_owner": "compute:nova",
    }  # fmt: skip


def subnet(id_: str, cidr: str, gateway: str, **more: Any) -> dict[str, Any]:
    base = {"id": id_, "cidr": cidr, "ip_version": 4, "gateway_ip": gateway, "enable_dhcp": True, "dns_nameservers": []}
    return {**base, "host_routes": [], "ipv6_ra_mode": None, "ipv6_address_mode": None, **more}


def network() -> dict[str, Any]:
    return {
        "network_type": "vxlan", "physical_network": None, "segmentation_id": 1001, "mtu": 1450, "admin_state_up": True,
        "subnets": [subnet(SUBNET, "172.16.1.0/24", "172.16.1.1")],
    }  # fmt: skip


def external() -> dict[str, Any]:
    ranges = [subnet(OUT1, "172.24.4.0/24", "172.24.4.1", enable_dhcp=False), subnet(OUT2, "172.24.5.0/24", "172.24.5.1", enable_dhcp=False)]
    return {
        "network_type": "flat", "physical_network": "external", "segmentation_id": None, "mtu": 1500, "admin_state_up": True,
        "subnets": ranges,
    }  # fmt: skip


def dhcp() -> dict[str, Any]:
    hosts = [
        {
            "port_id": guest.port, "mac_address": guest.mac, "hostname": "host-" + guest.address.replace(".", "-"),
            "fixed_ips": [{"ip_address": guest.address, "subnet_id": SUBNET}],
        }
        for guest in GUESTS.values()
    ]  # fmt: skip
    own = {"id": DHCP_PORT, "mac_address": "fa:16:3e:00:00:02", "fixed_ips": [{"ip_address": "172.16.1.2", "prefixlen": 24, "subnet_id": SUBNET}]}
    return {"network_id": NET, "port": own, "dns_domain": "openstacklocal", "hosts": hosts}


def router(**more: Any) -> dict[str, Any]:
    inside = {"port_id": QR, "network_id": NET, "mac_address": "fa:16:3e:00:00:01"}
    outside = {"port_id": QG, "network_id": OUT, "mac_address": "fa:16:3e:00:00:f1", "enable_snat": True, "gateway_ips": ["172.24.4.1"]}
    return {
        "admin_state_up": True,
        "interfaces": [{**inside, "fixed_ips": [{"ip_address": "172.16.1.1", "prefixlen": 24, "subnet_id": SUBNET}]}],
        "gateway": {**outside, "fixed_ips": [{"ip_address": "172.24.4.100", "prefixlen": 24, "subnet_id": OUT1}]},
        "floating_ips": [], "routes": [], **more,
    }  # fmt: skip


def everything(*rules: dict[str, Any], version: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "host": {"nacre-1": [1, {"tunnel_ip": "192.0.2.1", "bridge_mappings": {"external": "br-ex"}, "peers": []}]},
        "outside": {"external": [1, {"addresses": ["172.24.4.1/24", "172.24.5.1/24"]}]},
        "network": {NET: [1, network()], OUT: [1, external()]},
        "dhcp": {NET: [1, dhcp()]},
        "port": {GUESTS[name].port: [1, port(name)] for name in "ab"},
        "router": {ROUTER: [1, router()]},
        "security_group": {GROUP: [version, {"stateful": True, "rules": [*EGRESS, *rules]}]},
        "address_set": {}, "forwarding": {NET: [1, {"entries": []}]}, **more,
    }  # fmt: skip


def test_a_port_is_reported_only_when_its_tap_is_there(host: Host) -> None:
    wanted = everything()
    applied = host.apply(wanted)
    assert "port" not in applied
    assert applied["dhcp"] == {NET: 1} and applied["router"] == {ROUTER: 1}, host.log
    host.order(rings=True)
    host.guest("a", GUESTS["a"])
    host.guest("b", GUESTS["b"])
    time.sleep(0.3)
    assert host.order(rings=True) > 0
    host.settle(wanted)


def test_dhcp_gives_address_routes_mtu_and_names(host: Host) -> None:
    for name in "ab":
        said = host.address(name)
        assert f"ip={GUESTS[name].address}/24" in said and "mtu=1450" in said
        assert "169.254.169.254/32 172.16.1.2" in said and "0.0.0.0/0 172.16.1.1" in said
    found = host.within("a", "busybox", "nslookup", "host-172-16-1-11.openstacklocal", "172.16.1.2", check=False)
    assert "172.16.1.11" in found


def test_an_address_that_changes_hands_is_given_to_its_new_owner(host: Host) -> None:
    swapped = dhcp()
    first, second = swapped["hosts"][:2]
    first["fixed_ips"], second["fixed_ips"] = second["fixed_ips"], first["fixed_ips"]
    host.settle(everything(dhcp={NET: [2, swapped]}))
    assert f"ip={GUESTS['b'].address}/24" in host.address("a") and f"ip={GUESTS['a'].address}/24" in host.address("b")
    host.settle(everything())
    for name in "ab":
        host.within(name, "ip", "address", "flush", "dev", "eth0")
        assert f"ip={GUESTS[name].address}/24" in host.address(name)


def test_security_groups_decide_and_cut_what_they_allowed(host: Host) -> None:
    host.settle(everything())
    assert not host.pings("a", "172.16.1.11")
    host.settle(everything(PING, version=2))
    assert host.pings("a", "172.16.1.11") and host.pings("b", "172.16.1.10")
    web = rule("ingress", protocol="tcp", port_range_min=8000, port_range_max=8100, remote_group_id=GROUP)
    members = {GROUP: [1, {"addresses": [guest.address for guest in GUESTS.values()]}]}
    wanted = everything(PING, web, version=3, address_set=members)
    host.settle(wanted)
    echo = subprocess.Popen(host.sandbox.command(["ip", "netns", "exec", "b", "socat", "TCP-LISTEN:8080,fork,reuseaddr", "EXEC:cat"]))
    other = subprocess.Popen(host.sandbox.command(["ip", "netns", "exec", "b", "socat", "TCP-LISTEN:9000,fork,reuseaddr", "EXEC:cat"]))
    client = subprocess.Popen(
        host.sandbox.command(["ip", "netns", "exec", "a", "socat", "-", "TCP:172.16.1.11:8080,retry=10,interval=0.1"]),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdin and client.stdout
        client.stdin.write("one\n")
        client.stdin.flush()
        assert client.stdout.readline() == "one\n"
        assert not host.talks("a", "172.16.1.11", 9000)
        unrelated = rule("ingress", protocol="udp", port_range_min=53, port_range_max=53)
        host.settle(everything(PING, web, unrelated, version=4, address_set=members))
        client.stdin.write("two\n")
        client.stdin.flush()
        assert client.stdout.readline() == "two\n"
        host.settle(everything(PING, version=5))
        host.revalidate()
        client.stdin.write("three\n")
        client.stdin.flush()
        assert select.select([client.stdout], [], [], 2)[0] == [], "the established connection ended"
        assert not host.talks("a", "172.16.1.11", 8080)
        host.settle(wanted)
        assert select.select([client.stdout], [], [], 20)[0]
        assert client.stdout.readline() == "three\n", "allowed again, TCP sends it again"
    finally:
        for process in (client, echo, other):
            process.terminate()
            process.wait(5)
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


def test_a_guest_cannot_be_somebody_else(host: Host) -> None:
    anything = [rule("ingress"), rule("ingress", ethertype="IPv6")]
    host.settle(everything(*anything, version=6))
    assert host.pings("a", "172.16.1.11")
    capture = subprocess.Popen(
        host.sandbox.command(["ip", "netns", "exec", "b", "tcpdump", "-lni", "eth0", "-c", "200"]),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        time.sleep(0.5)
        host.within("a", "ip", "address", "add", "172.16.1.66/24", "dev", "eth0")
        host.within("a", "ping", "-c", "1", "-W", "1", "-I", "172.16.1.66", "172.16.1.11", check=False)
        host.within("a", "arping", "-c", "1", "-w", "1", "-S", "172.16.1.66", "-i", "eth0", "172.16.1.11", check=False)
        host.within("a", "ip", "link", "set", "eth0", "address", "fa:16:3e:66:66:66")
        host.within("a", "ping", "-c", "1", "-W", "1", "172.16.1.11", check=False)
        host.within("a", "ping", "-6", "-c", "1", "-W", "1", "-I", "eth0", "ff02::1", check=False)
        host.within("a", "ip", "link", "set", "eth0", "address", GUESTS["a"].mac)
        host.within("a", "ip", "address", "del", "172.16.1.66/24", "dev", "eth0")
        assert host.pings("a", "172.16.1.11")
    finally:
        time.sleep(0.3)
        for line in host.run("pgrep", "-x", "tcpdump", check=False).split():
            host.run("kill", line)
        seen, _ = capture.communicate(timeout=10)
    assert "172.16.1.10 > 172.16.1.11" in seen, seen
    assert "172.16.1.66" not in seen and "66:66:66" not in seen and "fe66:6666" not in seen, seen


def test_router_translates_both_ways_over_two_ranges(host: Host) -> None:
    anything = [rule("ingress"), rule("ingress", ethertype="IPv6")]
    floating = [
        {"id": "f1", "floating_ip_address": "172.24.4.50", "fixed_ip_address": "172.16.1.10"},
        {"id": "f2", "floating_ip_address": "172.24.5.51", "fixed_ip_address": "172.16.1.11"},
    ]
    host.settle(everything(*anything, version=7))
    assert host.pings("a", "172.24.4.1"), "a guest without a floating IP reaches the outside"
    host.settle(everything(*anything, version=7, router={ROUTER: [2, router(floating_ips=floating)]}))
    assert host.succeeds("ping", "-c", "1", "-W", "2", "172.24.4.50")
    assert host.succeeds("ping", "-c", "1", "-W", "2", "-I", "172.24.5.1", "172.24.5.51")
    assert host.pings("a", "172.24.5.51"), "a floating IP is reached from within"
    listener = subprocess.Popen(host.sandbox.command(["socat", "TCP-LISTEN:7000,reuseaddr,fork", "SYSTEM:echo from $SOCAT_PEERADDR"]))
    try:
        time.sleep(0.3)
        for name, own in (("a", "172.24.4.50"), ("b", "172.24.5.51")):
            found = host.within(name, "socat", "-T2", "-", "TCP:172.24.4.1:7000,connect-timeout=2")
            assert found.strip() == f"from {own}"
        host.settle(everything(*anything, version=7, router={ROUTER: [3, router()]}))
        host.revalidate()
        assert not host.succeeds("ping", "-c", "1", "-W", "1", "172.24.4.50")
        assert host.within("a", "socat", "-T2", "-", "TCP:172.24.4.1:7000,connect-timeout=2").strip() == "from 172.24.4.100"
    finally:
        listener.terminate()
        listener.wait(5)
    host.settle(everything(*anything, version=7, outside={"external": [2, {"addresses": ["172.24.4.1/24"]}]}, router={ROUTER: [3, router()]}))
    assert "172.24.5.1" not in host.run("ip", "address", "show", "dev", "ext-out")


def fetch(host: Host, name: str, path: str) -> str:
    return host.within(name, "busybox", "wget", "-q", "-O", "-", f"http://169.254.169.254{path}", check=False)


def test_metadata_by_both_ways_and_without_a_control_plane(host: Host) -> None:
    host.settle(everything())
    files = {"openstack/latest/meta_data.json": '{"uuid": "one"}', "latest/meta-data/instance-id": "i-1", "latest/user-data": "x" * 60000}
    host.order(answers={f"network {NET} 172.16.1.10": files, f"router {ROUTER} 172.16.1.11": files})
    assert fetch(host, "a", "/openstack/latest/meta_data.json") == '{"uuid": "one"}'
    assert fetch(host, "a", "/") == "latest" and fetch(host, "a", "/latest/meta-data/") == "instance-id"
    assert fetch(host, "a", "/latest/user-data") == "x" * 60000
    assert fetch(host, "a", "/nothing") == "" and fetch(host, "b", "/latest/meta-data/instance-id") == ""
    host.within("b", "ip", "route", "del", "169.254.169.254")
    assert fetch(host, "b", "/latest/meta-data/instance-id") == "i-1", "by way of the router"
    host.order(answers=None)
    time.sleep(2.1)
    assert fetch(host, "a", "/latest/meta-data/instance-id") == "i-1", "from disk"
    assert not host.talks("a", "172.16.1.1", 9697), "not around the redirection"
    host.run("kill", "-9", host.run("pgrep", "-f", "nacre.node.metadata_child").strip())
    time.sleep(2.5)
    host.settle(everything())
    assert fetch(host, "a", "/latest/meta-data/instance-id") == "i-1"
    children = [process for process in host.run("ps", "-eo", "user,args").splitlines() if "metadata_child" in process]
    assert len(children) == 1 and children[0].startswith("nobody")


def test_a_restart_of_the_switch_or_of_dnsmasq_or_of_the_driver_is_made_good(host: Host) -> None:
    wanted = everything(PING, version=8)
    host.settle(wanted)
    assert host.pings("a", "172.16.1.11")
    host.order(rings=True)
    host.run("kill", "-9", host.run("cat", "/run/openvswitch/ovs-vswitchd.pid").strip())
    host.run("kill", "-9", host.run("cat", f"/run/nacre/dhcp/{NET}/pid").strip())
    end = time.monotonic() + 10
    while not (rang := host.order(rings=True)) and time.monotonic() < end:
        time.sleep(0.05)
    assert rang
    host.settle(wanted)
    time.sleep(0.5)
    while host.order(rings=True):
        host.settle(wanted)
        time.sleep(0.5)
    assert host.pings("a", "172.16.1.11") and host.pings("a", "172.24.4.1")
    host.address("a")
    flows = host.run("ovs-ofctl", "dump-flows", "br-int")
    before = [host.run("cat", f"/run/nacre/dhcp/{NET}/pid"), host.run("ip", "netns", "list")]
    pinging = subprocess.Popen(
        host.sandbox.command(["ip", "netns", "exec", "a", "ping", "-i", "0.05", "-c", "40", "-W", "1", "172.16.1.11"]),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    host.stop()
    host.start()
    host.settle(wanted)
    assert " 0% packet loss" in pinging.communicate(timeout=20)[0]
    assert [host.run("cat", f"/run/nacre/dhcp/{NET}/pid"), host.run("ip", "netns", "list")] == before
    assert len(host.run("ovs-ofctl", "dump-flows", "br-int").splitlines()) == len(flows.splitlines())


def test_a_broken_document_stops_nobody_else(host: Host) -> None:
    bad = rule("ingress", protocol="tcp", port_range_min=9, port_range_max=3)
    wanted = everything(PING, version=8)
    other = {**port("b"), "security_groups": ["55555555-group"]}
    wanted["security_group"]["55555555-group"] = [1, {"stateful": True, "rules": [bad]}]
    wanted["port"][B] = [2, other]
    wanted["router"]["66666666-router"] = [1, {"admin_state_up": True}]
    applied = host.apply(wanted)
    host.revalidate()
    assert applied["port"] == {A: 1, B: 2} and applied["router"] == {ROUTER: 1}
    assert applied["security_group"] == {GROUP: 8}
    assert not host.pings("a", "172.16.1.11"), "what cannot be understood allows nothing"
    broken = {**router(), "interfaces": [{"port_id": QR}]}
    wanted = everything(PING, version=8, router={ROUTER: [9, broken]})
    assert "router" not in host.apply(wanted)
    assert host.pings("a", "172.24.4.1"), "what was there stays"


def at(number: int, network_document: dict[str, Any], name: str, *others: tuple[str, str, int]) -> dict[str, Any]:
    """One guest on host `number`; `others`: MAC, address and host of ports elsewhere."""
    entries = [{"mac_address": mac, "ip_addresses": [ip], "tunnel_ip": f"192.0.2.{n}", "host": f"nacre-{n}"} for mac, ip, n in others]
    body = {"tunnel_ip": f"192.0.2.{number}", "bridge_mappings": {"external": "br-ex"}, "peers": []}
    return {
        "host": {f"nacre-{number}": [1, body]},
        "network": {NET: [9, network_document]},
        "port": {GUESTS[name].port: [1, port(name)]},
        "security_group": {GROUP: [20, {"stateful": True, "rules": [*EGRESS, PING]}]},
        "forwarding": {NET: [9, {"entries": entries}]},
    }


@pytest.mark.parametrize("kind", ["vxlan", "geneve", "gre", "vlan"])
def test_two_hosts(host: Host, second: Host, kind: str) -> None:
    between = {**network(), "network_type": kind, "segmentation_id": 77, "physical_network": "external" if kind == "vlan" else None}
    a, c = GUESTS["a"], GUESTS["c"]
    first, other = at(1, between, "a", (c.mac, c.address, 2)), at(2, between, "c", (a.mac, a.address, 1))
    if kind == "vlan":
        first["forwarding"] = other["forwarding"] = {}
    host.settle(first)
    second.apply(other)
    second.guest("c", c)
    second.settle(other)
    for on, name, guest in ((host, "a", a), (second, "c", c)):
        on.within(name, "ip", "address", "replace", f"{guest.address}/24", "dev", "eth0")
    assert host.pings("a", c.address, 3) and second.pings("c", a.address), host.run("ovs-vsctl", "show")
    assert not host.talks("a", c.address, 22)
    listener = subprocess.Popen(second.sandbox.command(["ip", "netns", "exec", "c", "socat", "-u", "TCP-LISTEN:22", "OPEN:/dev/null"]))
    try:
        time.sleep(0.3)
        ssh = rule("ingress", protocol="tcp", port_range_min=22, port_range_max=22)
        other["security_group"] = {GROUP: [21, {"stateful": True, "rules": [*EGRESS, ssh]}]}
        second.settle(other)
        second.revalidate()
        assert host.talks("a", c.address, 22) and not host.pings("a", c.address)
    finally:
        listener.terminate()
        listener.wait(5)


SEND = """
import socket, sys
card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
card.bind(("eth0", 0))
for frame in sys.argv[1:]:
    card.send(bytes.fromhex(frame))
"""


@pytest.mark.parametrize("port_security", [True, False])
def test_a_tag_does_not_choose_the_network(host: Host, second: Host, port_security: bool) -> None:
    """`a` is on the untagged network of a wire, `c`, on another host, on VLAN 77 of it."""
    a, c = GUESTS["a"], GUESTS["c"]
    first = at(1, external(), "a")
    other = at(2, {**network(), "network_type": "vlan", "segmentation_id": 77, "physical_network": "external"}, "c")
    anything = [*EGRESS, rule("ingress"), rule("ingress", ethertype="IPv6")]
    first["security_group"] = other["security_group"] = {GROUP: [30, {"stateful": True, "rules": anything}]}
    first["port"][A] = [30, {**port("a"), "port_security": port_security, "security_groups": [GROUP] if port_security else []}]
    host.settle(first)
    second.apply(other)
    second.guest("c", c)
    second.settle(other)
    second.within("c", "ip", "address", "replace", f"{c.address}/24", "dev", "eth0")
    kinds = [(forgery.CUSTOMER,), (forgery.SERVICE,), (forgery.CUSTOMER, forgery.CUSTOMER), (forgery.SERVICE, forgery.CUSTOMER)]
    honest = forgery.echo(a.mac, forgery.EVERYBODY, a.address, c.address)
    frames = [forgery.tagged(honest, *((kind, 77) for kind in stack)).hex() for stack in kinds]
    with second.begin("c", "tcpdump", "-leni", "eth0") as capture:
        time.sleep(0.7)
        host.within("a", sys.executable, "-c", SEND, *frames)
        second.within("c", "ping", "-c", "1", "-W", "1", "172.16.1.99", check=False)
        for pid in second.run("pgrep", "-x", "tcpdump").split():
            second.run("kill", pid)
        seen = capture.communicate(timeout=10)[0]
    assert "Request who-has 172.16.1.99" in seen and a.mac not in seen, seen


def test_what_nobody_wants_goes(host: Host) -> None:
    host.settle(everything(PING, version=8))
    assert host.order(rss=True) < 60_000
    began = host.order(apply=everything(PING, version=8))["seconds"]
    assert began < 0.15
    wanted: dict[str, Any] = {"host": everything()["host"]}
    host.order(rings=True)
    host.settle(wanted)
    while host.order(rings=True):
        host.settle(wanted)
        time.sleep(0.2)
    assert "qdhcp-" not in host.run("ip", "netns", "list")
    assert "qrouter-" not in host.run("ip", "netns", "list")
    links = host.run("ip", "-br", "link")
    assert f"tap{DHCP_PORT[:11]}" not in links and "qr-" not in links and "qg-" not in links
    assert not host.succeeds("pgrep", "-x", "dnsmasq")
    assert "reg5" not in host.run("ovs-ofctl", "dump-flows", "br-int", "table=71")
    assert "172.24" not in host.run("ip", "address", "show", "dev", "ext-out")
    assert "vlan-" not in host.run("ovs-vsctl", "get", "bridge", "br-int", "external_ids")
    assert GUESTS["a"].tap in links, "a guest's tap is not ours"
