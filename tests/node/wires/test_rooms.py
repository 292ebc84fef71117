import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.node.wires import dnsmasq, layout, netns, outside, radvd, router
from nacre.node.wires.driver import Document
from nacre.node.wires.layout import Leg, Room, Route
from nacre.node.wires.netns import Seen

SUBNET = {
    "id": "s1",
    "cidr": "172.16.1.0/24",
    "ip_version": 4,
    "gateway_ip": "172.16.1.1",
    "enable_dhcp": True,
    "dns_nameservers": [],
    "host_routes": [],
}
V6 = {"id": "s6", "cidr": "2001:db8:1::/64", "ip_version": 6, "gateway_ip": "2001:db8:1::1", "enable_dhcp": True, "ipv6_ra_mode": "slaac"}
NETWORK = Document("network", "n", 1, {"network_type": "vxlan", "mtu": 1450, "subnets": [SUBNET, V6]})
EXTERNAL = Document("network", "x", 1, {"network_type": "flat", "mtu": 1500, "subnets": [
    {"id": "x1", "cidr": "172.24.4.0/24", "ip_version": 4}, {"id": "x2", "cidr": "172.24.5.0/24", "ip_version": 4}]})  # fmt: skip
PORT = {
    "id": "dhcp-port-0001",
    "mac_address": "FA:16:3E:00:00:02",
    "fixed_ips": [
        {"ip_address": "172.16.1.2", "prefixlen": 24, "subnet_id": "s1"},
        {"ip_address": "2001:db8:1::2", "prefixlen": 64, "subnet_id": "s6"},
    ],
}
HOST = {
    "port_id": "p",
    "mac_address": "FA:16:3E:00:00:0A",
    "hostname": "host-172-16-1-10",
    "fixed_ips": [{"ip_address": "172.16.1.10", "subnet_id": "s1"}, {"ip_address": "2001:db8:1::a", "subnet_id": "s6"}],
}
DHCP = Document("dhcp", "n", 1, {"network_id": "n", "port": PORT, "dns_domain": "openstacklocal", "hosts": [HOST]})


def dhcp_plan(lease: int = 86400, **subnet: Any) -> dnsmasq.Plan:
    network = Document("network", "n", 1, {**NETWORK.body, "subnets": [{**SUBNET, **subnet}, V6]})
    return dnsmasq.plan(DHCP, network, layout.dhcp_room(DHCP, network), lease)


def test_dnsmasq_files() -> None:
    plan = dhcp_plan()
    assert plan.files["hosts"] == "fa:16:3e:00:00:0a,host-172-16-1-10.openstacklocal,172.16.1.10\n"
    assert "172.16.1.10 host-172-16-1-10.openstacklocal host-172-16-1-10\n" in plan.files["names"]
    assert plan.files["options"].splitlines() == [
        "tag:subnet-s1,option:dns-server,172.16.1.2",
        "tag:subnet-s1,option:classless-static-route,169.254.169.254/32,172.16.1.2,0.0.0.0/0,172.16.1.1",
        "tag:subnet-s1,249,169.254.169.254/32,172.16.1.2,0.0.0.0/0,172.16.1.1",
        "tag:subnet-s1,option:router,172.16.1.1",
        "option:mtu,1450",
    ]
    assert "--dhcp-range=set:subnet-s1,172.16.1.0,static,255.255.255.0,86400s" in plan.arguments
    assert "--interface=tapdhcp-port-0" in plan.arguments and plan.owners == {"172.16.1.10": "fa:16:3e:00:00:0a"}
    assert not any("2001" in argument for argument in plan.arguments)


def test_dnsmasq_obeys_the_subnet() -> None:
    options = dhcp_plan(
        gateway_ip=None, dns_nameservers=["9.9.9.9", "2620:fe::fe"], host_routes=[{"destination": "10.9.0.0/16", "nexthop": "172.16.1.7"}]
    )
    assert "tag:subnet-s1,option:dns-server,9.9.9.9\n" in options.files["options"]
    assert "10.9.0.0/16,172.16.1.7,169.254.169.254/32,172.16.1.2\n" in options.files["options"]
    assert "tag:subnet-s1,option:router\n" in options.files["options"], "no router is told, so that none is guessed"
    assert not [argument for argument in dhcp_plan(enable_dhcp=False).arguments if "range" in argument]
    assert any(argument.endswith(",infinite") for argument in dhcp_plan(lease=-1).arguments)


def test_stale_leases() -> None:
    line = "1700000000 fa:16:3e:00:00:0a 172.16.1.10 host *\n"
    assert not dnsmasq.stale_leases(line, {"172.16.1.10": "fa:16:3e:00:00:0a"}, {})
    assert not dnsmasq.stale_leases(line, {"172.16.1.11": "fa:16:3e:00:00:0b"}, {})
    assert dnsmasq.stale_leases(line, {"172.16.1.10": "fa:16:3e:00:00:0b"}, {})
    assert not dnsmasq.stale_leases("duid 00:01\n", {}, {})
    line = "1700000000 251658251 2001:db8::a host 00:03:00:01:fa:16:3e:00:00:0a\n"
    mine, others = {"2001:db8::a": "fa:16:3e:00:00:0a"}, {"2001:db8::a": "fa:16:3e:00:00:0b"}
    assert not dnsmasq.stale_leases(line, mine, {}) and not dnsmasq.stale_leases(line, mine, mine)
    assert dnsmasq.stale_leases(line, mine, others)


def six(**modes: Any) -> dnsmasq.Plan:
    network = Document("network", "n", 1, {**NETWORK.body, "subnets": [{**V6, "ipv6_ra_mode": None, **modes}]})
    return dnsmasq.plan(DHCP, network, layout.dhcp_room(DHCP, network), 600)


@pytest.mark.parametrize("modes", [{"ipv6_address_mode": "dhcpv6-stateful", "ipv6_ra_mode": "dhcpv6-stateful"},
                                   {"ipv6_address_mode": "dhcpv6-stateless", "ipv6_ra_mode": "dhcpv6-stateless"}, {}])  # fmt: skip
def test_dnsmasq_serves_ipv6(modes: dict[str, str]) -> None:
    plan = six(**modes)
    assert plan.files["hosts"] == "fa:16:3e:00:00:0a,host-172-16-1-10.openstacklocal,[2001:db8:1::a]\n"
    assert plan.files["options"].splitlines() == [
        "option:mtu,1450", "tag:subnet-s6,option6:dns-server,[2001:db8:1::2]", "tag:subnet-s6,option6:domain-search,openstacklocal",
    ]  # fmt: skip
    assert "--dhcp-range=set:subnet-s6,2001:db8:1::,static,64,600s" in plan.arguments
    servers = six(**modes, dns_nameservers=["9.9.9.9", "2620:fe::fe"]).files["options"]
    assert "option6:dns-server,[2620:fe::fe]\n" in servers


@pytest.mark.parametrize("modes", [{"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}, {"ipv6_ra_mode": "dhcpv6-stateful"},
                                   {"ipv6_address_mode": "slaac"}])  # fmt: skip
def test_dnsmasq_leaves_to_others_what_is_theirs(modes: dict[str, str]) -> None:
    plan = six(**modes)
    assert not plan.files["hosts"] and not plan.owners and not any("2001" in argument for argument in plan.arguments)
    assert "2001:db8:1::a host-172-16-1-10.openstacklocal" in plan.files["names"], "its name is known all the same"


def advertised(*subnets: dict[str, Any], mtu: int = 1450) -> str:
    network = Document("network", "n", 1, {**NETWORK.body, "mtu": mtu, "subnets": [SUBNET, *subnets]})
    document = Document("router", "r", 1, ROUTER)
    networks = {"n": network, "x": EXTERNAL}
    return radvd.plan(document, networks, router.room(document, networks))


def test_router_advertisements() -> None:
    text = advertised({**V6, "dns_nameservers": ["2620:fe::fe", "9.9.9.9"]})
    assert text.startswith("interface qr-inside-port {\n    AdvSendAdvert on;") and "AdvLinkMTU 1450;" in text
    assert "prefix 2001:db8:1::/64 {\n        AdvOnLink on;\n        AdvAutonomous on;" in text and "RDNSS 2620:fe::fe {};" in text
    assert "Flag" not in text and "qg-" not in text
    stateful, stateless = (advertised({**V6, "ipv6_ra_mode": mode}) for mode in ("dhcpv6-stateful", "dhcpv6-stateless"))
    assert "AdvManagedFlag on;" in stateful and "AdvAutonomous off;" in stateful
    assert "AdvOtherConfigFlag on;" in stateless and "AdvAutonomous on;" in stateless
    assert advertised() == "" and advertised({**V6, "ipv6_ra_mode": None, "ipv6_address_mode": "slaac"}) == ""
    assert advertised({**V6, "id": "the router has no address of this one"}) == ""


def test_a_pid_of_somebody_else_is_not_dnsmasq(tmp_path: Path) -> None:
    server = dnsmasq.Dnsmasq(tmp_path, "qdhcp-n")
    assert server.pid() is None
    (tmp_path / "pid").write_text("1\n")
    assert server.pid() is None
    server.stop()


ROUTER: dict[str, Any] = {
    "interfaces": [{"port_id": "inside-port-1", "network_id": "n", "mac_address": "fa:16:3e:00:00:01", "fixed_ips": [
        {"ip_address": "172.16.1.1", "prefixlen": 24, "subnet_id": "s1"}, {"ip_address": "2001:db8:1::1", "prefixlen": 64, "subnet_id": "s6"}]}],
    "gateway": {"port_id": "outer-port-1", "network_id": "x", "mac_address": "fa:16:3e:00:00:f1", "enable_snat": True,
                "fixed_ips": [{"ip_address": "172.24.4.100", "prefixlen": 24, "subnet_id": "x1"}], "gateway_ips": ["172.24.4.1"]},
    "floating_ips": [{"id": "f", "floating_ip_address": "172.24.5.9", "fixed_ip_address": "172.16.1.10"}],
    "routes": [{"destination": "10.1.0.0/16", "nexthop": "172.16.1.77"}],
}  # fmt: skip


def room(**more: Any) -> Room:
    return router.room(Document("router", "r", 1, {**copy.deepcopy(ROUTER), **more}), {"n": NETWORK, "x": EXTERNAL})


def test_a_router_room() -> None:
    made = room()
    assert made.namespace == "qrouter-r" and [leg.name for leg in made.legs] == ["qr-inside-port", "qg-outer-port-"]
    assert made.legs[1].addresses == ("172.24.4.100/24", "172.24.5.9/32")
    assert made.routes == (Route("172.24.5.0/24", None, "qg-outer-port-"), Route("default", "172.24.4.1", "qg-outer-port-"))
    assert made.extra == (Route("10.1.0.0/16", "172.16.1.77"),) and made.floating == (("172.24.5.9", "172.16.1.10"),)


def test_rulesets() -> None:
    text = room().nft
    assert "172.24.5.9 : 172.16.1.10" in text and "172.16.1.10 : 172.24.5.9" in text
    assert 'oifname "qg-outer-port-" snat to 172.24.4.100' in text
    gateway = {**ROUTER["gateway"], "enable_snat": False}
    without = room(gateway=gateway).nft
    assert 'oifname "qg-outer-port-" snat' not in without and "ct status & dnat != 0 snat to 172.24.4.100" in without
    lonely = room(gateway=None)
    assert "snat" not in lonely.nft and "map" not in lonely.nft and "redirect to :9697" in lonely.nft and not lonely.routes
    assert all(text.startswith("table ip router\ndelete table ip router\n") for text in (text, without, lonely.nft)), "replaced in one go"


def performed(changes: netns.Changes, seen: Seen) -> Seen:
    """A kernel small enough for these lines."""
    addresses = {name: set(there) for name, there in seen.addresses.items()}
    mtus, macs, up, routes = dict(seen.mtus), dict(seen.macs), set(seen.up), set(seen.routes)
    for line in (*changes.batch, *changes.attempts):
        words = line.split()
        if words[:2] == ["link", "delete"]:
            addresses.pop(words[2]), mtus.pop(words[2])
        elif words[0] == "link":
            name, what = words[2], words[3]
            if what == "up":
                up.add(name)
            elif what == "mtu":
                mtus[name] = int(words[4])
            else:
                macs[name] = words[4]
        elif words[0] == "address":
            assert words[1] == "del" or words[2] not in addresses[words[4]]
            (addresses[words[4]].remove if words[1] == "del" else addresses[words[4]].add)(words[2])
        else:
            key = (words[2], words[words.index("via") + 1] if "via" in words else None)
            (routes.remove if words[1] == "del" else routes.add)(key)
    frozen = {name: frozenset(there) for name, there in addresses.items()}
    return Seen(frozen, mtus, macs, frozenset(up), frozenset(routes))


bodies = st.fixed_dictionaries({
    "floating_ips": st.lists(st.integers(2, 9), unique=True, max_size=3).map(
        lambda numbers: [{"floating_ip_address": f"172.24.5.{n}", "fixed_ip_address": f"172.16.1.{n}"} for n in numbers]),
    "routes": st.lists(st.sampled_from([{"destination": "10.1.0.0/16", "nexthop": "172.16.1.77"},
                                        {"destination": "0.0.0.0/0", "nexthop": "172.16.1.5"},
                                        {"destination": "2001:db8:9::/64", "nexthop": "2001:db8:1::5"}]), max_size=2),
    "gateway": st.sampled_from([None, ROUTER["gateway"]]),
})  # fmt: skip


@given(bodies, bodies)
def test_planning_twice_leaves_nothing_to_do(first: dict[str, Any], second: dict[str, Any]) -> None:
    seen = Seen(
        {"lo": frozenset(), "qr-inside-port": frozenset(), "qg-outer-port-": frozenset()},
        {"lo": 65536, "qr-inside-port": 1450, "qg-outer-port-": 1500},
    )
    for body in (first, second):
        made = room(**body)
        seen = performed(netns.plan(made, seen), seen)
        assert netns.plan(made, seen) == netns.Changes((), (), ())
        if body["gateway"] is None:
            assert "qg-outer-port-" not in seen.addresses
            seen = Seen({**seen.addresses, "qg-outer-port-": frozenset()}, {**seen.mtus, "qg-outer-port-": 1500}, seen.macs, seen.up, seen.routes)


def test_new_addresses_are_announced_and_right_ones_left_alone() -> None:
    made = room()
    there = {leg.name: frozenset(leg.addresses) for leg in made.legs}
    seen = Seen({**there, "qg-outer-port-": frozenset({"172.24.4.100/24", "172.24.4.66/32"})},
                {"qr-inside-port": 1450, "qg-outer-port-": 1500}, {leg.name: leg.mac for leg in made.legs},
                frozenset({"lo", *there}), frozenset((route.destination, route.via) for route in (*made.routes, *made.extra)))  # fmt: skip
    changes = netns.plan(made, seen)
    assert changes.batch == ("address del 172.24.4.66/32 dev qg-outer-port-", "address add 172.24.5.9/32 dev qg-outer-port-")
    assert changes.announce == (("qg-outer-port-", "172.24.5.9"),)


def test_what_ip_tells() -> None:
    link = {"ifname": "qr-x", "mtu": 1450, "address": "fa:16:3e:00:00:01", "flags": ["UP"], "addr_info": [
        {"family": "inet", "local": "10.0.0.1", "prefixlen": 24, "scope": "global"},
        {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        {"family": "inet", "local": "169.254.169.254", "prefixlen": 32, "scope": "link"}]}  # fmt: skip
    seen = netns.seen_of([link], [{"dst": "default", "gateway": "10.0.0.254"}, {"dst": "default", "gateway": "fd00::1"}])
    assert seen.addresses == {"qr-x": {"10.0.0.1/24", "169.254.169.254/32"}}
    assert seen.routes == {("default", "10.0.0.254"), ("::/0", "fd00::1")}


def test_outside_addresses() -> None:
    links = [{"addr_info": [{"local": "172.24.4.1", "prefixlen": 24, "scope": "global"}, {"local": "fe80::1", "prefixlen": 64, "scope": "link"}]}]
    assert outside.plan(["172.24.4.1/24"], links) == []
    assert outside.plan(["172.24.5.1/24"], links) == ["address del 172.24.4.1/24 dev ext-out", "address add 172.24.5.1/24 dev ext-out"]
    with pytest.raises(ValueError):
        outside.plan(["nowhere"], links)


def test_a_dhcp_room_also_answers_for_metadata() -> None:
    made = layout.dhcp_room(DHCP, NETWORK)
    expected = ("172.16.1.2/24", "2001:db8:1::2/64", "169.254.169.254/32")
    assert made.legs == (Leg("tapdhcp-port-0", "dhcp-port-0001", "n", "fa:16:3e:00:00:02", 1450, expected),)
