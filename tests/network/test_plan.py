"""The pure decisions of the network service: addresses, subnets, segments, rules, places."""

import ipaddress
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.config import Config, Ml2, Ml2TypeVlan
from nacre.core.errors import Error
from nacre.network.plan import addresses, rules, scheduling, segments, subnets
from nacre.network.plan.scheduling import Move
from nacre.network.plan.segments import Segment


class Taken:
    """A database of taken numbers with the two questions that the planner asks; counts the rows it gave out."""

    def __init__(self, numbers: set[int] | None = None) -> None:
        self.numbers = numbers if numbers is not None else set()
        self.rows = 0

    def which(self, asked: Sequence[int]) -> set[int]:
        found = self.numbers & set(asked)
        self.rows += len(found)
        return found

    def following(self, first: int, last: int, limit: int) -> list[int]:
        found = sorted(number for number in self.numbers if first <= number <= last)[:limit]
        self.rows += len(found)
        return found

    def choose(self, pools: Sequence[addresses.Pool], dice: random.Random) -> int | None:
        return addresses.choose(pools, dice, self.which, self.following)


def in_a_row(pools: Sequence[addresses.Pool]) -> list[int]:
    return [value for first, last in pools for value in range(first, last + 1)]


_pools = st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(sorted).map(
    lambda ends: [(ends[n] * 10, ends[n + 1] * 10 - 1) for n in range(0, len(ends) - 1, 2)])  # fmt: skip


@given(pools=_pools, seed=st.integers(), data=st.data())
@settings(max_examples=200)
def test_a_chosen_number_is_free_and_in_a_pool(pools: list[addresses.Pool], seed: int, data: st.DataObject) -> None:
    members = in_a_row(pools)
    taken = Taken(set(data.draw(st.lists(st.sampled_from(members), max_size=len(members)))))
    chosen = taken.choose(pools, random.Random(seed))
    if chosen is None:
        assert taken.numbers >= set(members), "refused while something was free"
    else:
        assert chosen in set(members) - taken.numbers


@given(prefix=st.integers(24, 30), gateway=st.booleans(), seed=st.integers())
@settings(max_examples=40, deadline=None)
def test_a_subnet_gives_each_address_once_and_never_the_gateway(prefix: int, gateway: bool, seed: int) -> None:
    network = ipaddress.ip_network(f"172.16.1.0/{prefix}")
    way_out = subnets.gateway(network, ... if gateway else None)
    pools = addresses.default_pools(network, way_out)
    taken, dice = Taken(), random.Random(seed)
    while (chosen := taken.choose(pools, dice)) is not None:
        assert chosen not in taken.numbers
        taken.numbers.add(chosen)
    given_out = {addresses.text(value, 4) for value in taken.numbers}
    expected = {str(host) for host in network.hosts()} - {way_out}
    assert given_out == expected


def test_a_big_subnet_is_not_scanned() -> None:
    pools = [(1, 1 << 16)]
    taken = Taken(set(range(1, 1 << 15)))
    assert taken.choose(pools, random.Random(1)) is not None
    assert taken.rows <= 24


@pytest.mark.parametrize(
    ("cidr", "gateway", "pools"),
    [
        ("172.16.1.0/24", "172.16.1.1", [("172.16.1.2", "172.16.1.254")]),
        ("172.16.1.0/24", "172.16.1.254", [("172.16.1.1", "172.16.1.253")]),
        ("172.16.1.0/24", "172.16.1.9", [("172.16.1.1", "172.16.1.8"), ("172.16.1.10", "172.16.1.254")]),
        ("172.16.1.0/24", None, [("172.16.1.1", "172.16.1.254")]),
        ("172.16.1.0/30", "172.16.1.1", [("172.16.1.2", "172.16.1.2")]),
        ("172.16.1.0/31", None, [("172.16.1.0", "172.16.1.1")]),
        ("fd00::/64", "fd00::1", [("fd00::2", "fd00::ffff:ffff:ffff:ffff")]),
    ],
)
def test_default_pools(cidr: str, gateway: str | None, pools: list[tuple[str, str]]) -> None:
    network = ipaddress.ip_network(cidr)
    found = addresses.written(addresses.default_pools(network, gateway), network.version)
    assert [(pool["start"], pool["end"]) for pool in found] == pools
    assert addresses.written(addresses.pools(found), network.version) == found


def test_slaac_is_upstreams_address() -> None:
    assert addresses.slaac("fd00:1::/64", "fa:16:3e:18:9b:6e") == "fd00:1::f816:3eff:fe18:9b6e"


def test_numbers_sort_as_addresses_do() -> None:
    written = ["9.0.0.1", "10.0.0.2", "10.0.0.10", "200.1.1.1"]
    assert sorted(written, key=addresses.number) == written


V4 = ipaddress.ip_network("172.16.1.0/24")


@pytest.mark.parametrize(
    ("refuse", "kind", "words"),
    [
        (lambda: subnets.cidr("172.16.1.0", 4), "HTTPBadRequest", "cidr"),
        (lambda: subnets.cidr("172.16.300.0/24", 4), "HTTPBadRequest", "cidr"),
        (lambda: subnets.cidr("fd00::/64", 4), "InvalidInput", "ip_version 4"),
        (lambda: subnets.cidr("0.0.0.0/0", 4), "InvalidInput", "prefix length"),
        (lambda: subnets.cidr("224.0.0.0/24", 4), "InvalidInput", "multicast"),
        (lambda: subnets.gateway(V4, "172.16.1.0"), "InvalidInput", "gateway_ip '172.16.1.0' is the network or broadcast address"),
        (lambda: subnets.gateway(V4, "172.16.1.255"), "InvalidInput", "gateway_ip '172.16.1.255' is the network or broadcast address"),
        (lambda: subnets.gateway(V4, "172.16.2.1"), "InvalidInput", "is not in cidr"),
        (lambda: subnets.gateway(V4, "fd00::1"), "InvalidInput", "gateway_ip"),
        (lambda: subnets.gateway(V4, "nonsense"), "HTTPBadRequest", "gateway_ip"),
        (lambda: subnets.checked_pools(V4, [{"start": "172.16.1.9", "end": "172.16.1.5"}]), "InvalidAllocationPool", "172.16.1.9-172.16.1.5"),
        (lambda: subnets.checked_pools(V4, [{"start": "172.16.1.9"}]), "HTTPBadRequest", "allocation_pools"),
        (lambda: subnets.checked_pools(V4, [{"start": "172.16.1.9", "end": "172.16.2.5"}]), "OutOfBoundsAllocationPool", "172.16.1.0/24"),
        (lambda: subnets.checked_pools(V4, [{"start": "172.16.1.0", "end": "172.16.1.5"}]), "OutOfBoundsAllocationPool", "172.16.1.0/24"),
        (lambda: subnets.checked_pools(V4, [{"start": "172.16.1.2", "end": "172.16.1.9"}, {"start": "172.16.1.9", "end": "172.16.1.20"}]),
         "OverlappingAllocationPools", "172.16.1.2-172.16.1.9 172.16.1.9-172.16.1.20"),
        (lambda: subnets.gateway_outside_pools("172.16.1.5", [{"start": "172.16.1.2", "end": "172.16.1.9"}]),
         "GatewayConflictWithAllocationPools", "172.16.1.2-172.16.1.9"),
        (lambda: subnets.nameservers(["8.8.8.8", "nonsense"]), "HTTPBadRequest", "dns_nameservers"),
        (lambda: subnets.nameservers(["8.8.8.8"] * 2), "HTTPBadRequest", "dns_nameservers"),
        (lambda: subnets.nameservers([f"8.8.8.{n}" for n in range(6)]), "DNSNameServersExhausted", "limit 5"),
        (lambda: subnets.routes("host_routes", [{"destination": "10.0.0.0/8"}]), "HTTPBadRequest", "host_routes"),
        (lambda: subnets.routes("host_routes", [{"destination": "10.0.0.1/8", "nexthop": "172.16.1.2"}]), "HTTPBadRequest", "host_routes"),
        (lambda: subnets.routes("routes", [{"destination": "10.0.0.0/8", "nexthop": "fd00::1"}]), "HTTPBadRequest", "routes"),
        (lambda: subnets.ipv6_modes(4, V4, {"ipv6_ra_mode": "slaac"}), "InvalidInput", "ip_version is 6"),
        (lambda: subnets.ipv6_modes(6, ipaddress.ip_network("fd00::/80"), {"ipv6_address_mode": "slaac"}), "InvalidInput", "/64"),
        (lambda: subnets.ipv6_modes(6, ipaddress.ip_network("fd00::/64"), {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"}),
         "InvalidInput", "same value"),
        (lambda: subnets.ipv6_modes(6, ipaddress.ip_network("fd00::/64"), {"ipv6_ra_mode": "other"}), "HTTPBadRequest", "ipv6_ra_mode"),
    ],
)  # fmt: skip
def test_subnets_that_cannot_be(refuse: Any, kind: str, words: str) -> None:
    with pytest.raises(Error) as refused:
        refuse()
    assert refused.value.name == kind
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ({"direction": "ingress", "protocol": "TCP", "port_range_min": "22", "port_range_max": 22},
         {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "ethertype": "IPv4"}),
        ({"direction": "ingress", "protocol": "icmp", "ethertype": "ipv6"}, {"protocol": "ipv6-icmp", "ethertype": "IPv6"}),
        ({"direction": "egress", "protocol": "any"}, {"protocol": None}),
        ({"direction": "egress", "protocol": 89}, {"protocol": "89"}),
        ({"direction": "ingress", "protocol": "icmp", "port_range_min": 8, "port_range_max": 0}, {"port_range_min": 8, "port_range_max": 0}),
        ({"direction": "ingress", "remote_ip_prefix": "10.1.2.3"}, {"remote_ip_prefix": "10.1.2.3/32"}),
        ({"direction": "ingress", "remote_ip_prefix": "10.1.2.3/8"}, {"remote_ip_prefix": "10.1.2.3/8"}),
    ],
)  # fmt: skip
def test_rules_in_their_usual_spelling(asked: dict[str, Any], columns: dict[str, Any]) -> None:
    found = rules.checked(asked)
    assert {name: found[name] for name in columns} == columns


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"direction": "sideways"}, "HTTPBadRequest"),
        ({"ethertype": "IPX"}, "SecurityGroupRuleInvalidEtherType"),
        ({"protocol": "nonsense"}, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": "256"}, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": "ipv6-icmp"}, "SecurityGroupEthertypeConflictWithProtocol"),
        ({"protocol": "tcp", "port_range_min": 23, "port_range_max": 22}, "SecurityGroupInvalidPortRange"),
        ({"protocol": "tcp", "port_range_min": 22}, "SecurityGroupInvalidPortRange"),
        ({"protocol": "tcp", "port_range_min": 22, "port_range_max": 65536}, "SecurityGroupInvalidPortValue"),
        ({"protocol": "tcp", "port_range_min": "ssh", "port_range_max": 22}, "SecurityGroupInvalidPortValue"),
        ({"protocol": "icmp", "port_range_min": 256}, "SecurityGroupInvalidIcmpValue"),
        ({"protocol": "icmp", "port_range_max": 1}, "SecurityGroupMissingIcmpType"),
        ({"protocol": "ah", "port_range_min": 1, "port_range_max": 2}, "SecurityGroupInvalidProtocolForPort"),
        ({"port_range_min": 1, "port_range_max": 2}, "SecurityGroupProtocolRequiredWithPorts"),
        ({"remote_ip_prefix": "nonsense"}, "InvalidCIDR"),
        ({"remote_ip_prefix": "fd00::/64"}, "SecurityGroupRuleParameterConflict"),
        ({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "x"}, "SecurityGroupMultipleRemoteEntites"),
    ],
)
def test_rules_that_cannot_be(asked: dict[str, Any], kind: str) -> None:
    with pytest.raises(Error) as refused:
        rules.checked({"direction": "ingress", **asked})
    assert refused.value.name == kind


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"protocol": "tcp"}, {"protocol": "6"}, True),
        ({"remote_ip_prefix": "0.0.0.0/0"}, {}, True),
        ({"protocol": "tcp"}, {"protocol": "udp"}, False),
        ({"protocol": "tcp"}, {"protocol": "tcp", "ethertype": "IPv6"}, False),
        ({}, {"remote_group_id": "x"}, False),
    ],
)
def test_rules_that_say_the_same(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    spelled = [rules.alike(rules.checked({"direction": "ingress", **rule})) for rule in (one, other)]
    assert (spelled[0] == spelled[1]) is same


CONFIG = Config(ml2=Ml2(tenant_network_types=("vlan", "vxlan")), ml2_type_vlan=Ml2TypeVlan(network_vlan_ranges=("external:100:199", "other")))


def test_segments_that_an_administrator_names() -> None:
    assert segments.provider(CONFIG, "flat", "external", None) == Segment("flat", "external", 0)
    assert segments.provider(CONFIG, "vlan", "external", None) == Segment("vlan", "external", None, ((100, 199),))
    assert segments.provider(CONFIG, "vlan", "other", 4000) == Segment("vlan", "other", 4000, ())
    assert segments.provider(CONFIG, "local", None, None) == Segment("local")
    assert segments.provider(CONFIG, "gre", None, 7).number == 7
    assert [segment.network_type for segment in segments.tenant_choices(CONFIG)] == ["vlan", "vxlan"]


@pytest.mark.parametrize(
    ("kind", "physical", "number", "words"),
    [
        ("token-ring", None, None, "network_type value 'token-ring' not supported"),
        ("flat", None, None, "physical_network required"),
        ("flat", "elsewhere", None, "physical_network 'elsewhere' unknown"),
        ("flat", "external", 7, "segmentation_id prohibited"),
        ("vlan", "elsewhere", 7, "physical_network 'elsewhere' unknown"),
        ("vlan", None, 7, "physical_network required"),
        ("vlan", "external", 4095, "segmentation_id out of range"),
        ("vlan", "external", 0, "segmentation_id out of range"),
        ("vxlan", "external", 7, "provider:physical_network specified for vxlan"),
        ("vxlan", None, 1 << 24, "segmentation_id out of range"),
        ("local", None, 1, "segmentation_id prohibited"),
    ],
)
def test_segments_that_cannot_be(kind: str, physical: str | None, number: int | None, words: str) -> None:
    with pytest.raises(Error) as refused:
        segments.provider(CONFIG, kind, physical, number)
    assert refused.value.name == "InvalidInput"
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("placed", "alive", "dead", "moves"),
    [
        ({"a": None}, ["h1"], [], [Move("a", None, "h1")]),
        ({"a": None}, [], [], []),
        ({"a": "h1", "b": None}, ["h1", "h2"], [], [Move("b", None, "h2")]),
        ({"a": "h1"}, ["h2"], ["h1"], [Move("a", "h1", "h2")]),
        ({"a": "h1"}, ["h2"], [], []),
        ({"a": "h3", "b": "h3", "c": "h1"}, ["h1", "h2"], ["h3"], [Move("a", "h3", "h2"), Move("b", "h3", "h1")]),
    ],
)
def test_places(placed: dict[str, str | None], alive: list[str], dead: list[str], moves: list[Move]) -> None:
    assert scheduling.moves(placed, alive, set(dead)) == moves
