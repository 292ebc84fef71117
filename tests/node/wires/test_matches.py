import pytest
from hypothesis import given
from hypothesis import strategies as st

from nacre.node.wires.matches import address_match, family_of, masks, rule_matches


@given(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted))
def test_masks_cover_exactly_the_range(ends: list[int]) -> None:
    covered: list[int] = []
    for text in masks(*ends):
        value, _, mask = text.partition("/")
        first, size = int(value, 0), 0x10000 - int(mask, 0) if mask else 1
        assert first % size == 0
        covered += [first, first + size]
    assert covered[0] == ends[0] and covered[-1] == ends[1] + 1
    assert covered[1:-1:2] == covered[2::2], "no gap and no overlap"
    assert len(covered) <= 2 * 30


def test_masks_of_well_known_ranges() -> None:
    assert masks(22, 22) == ["22"]
    assert masks(8000, 8100) == ["0x1f40/0xffc0", "0x1f80/0xffe0", "0x1fa0/0xfffc", "8100"]
    assert masks(0, 65535) == ["0x0/0x0"]
    with pytest.raises(ValueError, match="no range"):
        masks(9, 3)


def rule(**more: object) -> dict[str, object]:
    return {"ethertype": "IPv4", "protocol": None, "port_range_min": None, "port_range_max": None, **more}


@pytest.mark.parametrize(
    ("given_rule", "family", "matches"),
    [
        (rule(), "ip", ["ip"]),
        (rule(ethertype="IPv6"), "ipv6", ["ipv6"]),
        (rule(protocol="any"), "ip", ["ip"]),
        (rule(protocol="tcp"), "ip", ["tcp"]),
        (rule(protocol="6", port_range_min=22, port_range_max=22), "ip", ["tcp,tp_dst=22"]),
        (rule(protocol="udp", port_range_min=0, port_range_max=65535), "ip", ["udp"]),
        (rule(protocol="tcp", ethertype="IPv6", port_range_min=2, port_range_max=3), "ipv6", ["tcp6,tp_dst=0x2/0xfffe"]),
        (rule(protocol="sctp", port_range_min=1, port_range_max=1), "ip", ["sctp,tp_dst=1"]),
        (rule(protocol="icmp"), "ip", ["icmp"]),
        (rule(protocol="icmp", port_range_min=8), "ip", ["icmp,icmp_type=8"]),
        (rule(protocol="icmp", port_range_min=3, port_range_max=0), "ip", ["icmp,icmp_type=3,icmp_code=0"]),
        (rule(protocol="icmp", ethertype="IPv6"), "ipv6", ["icmp6"]),
        (rule(protocol="ipv6-icmp", ethertype="IPv6", port_range_min=128), "ipv6", ["icmp6,icmp_type=128"]),
        (rule(protocol="vrrp"), "ip", ["ip,nw_proto=112"]),
        (rule(protocol="47"), "ip", ["ip,nw_proto=47"]),
        (rule(protocol="udplite", port_range_min=1, port_range_max=9), "ip", ["ip,nw_proto=136"]),
    ],
)
def test_every_form_of_a_rule(given_rule: dict[str, object], family: str, matches: list[str]) -> None:
    assert rule_matches(given_rule) == (family, matches)


@pytest.mark.parametrize("bad", [{"protocol": "300"}, {"protocol": "carrots"}, {"protocol": "icmp", "port_range_min": 256}])
def test_what_is_no_rule_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        rule_matches(rule(**bad))


def test_addresses() -> None:
    assert address_match("ip", "src", "10.0.0.0/8") == "nw_src=10.0.0.0/8"
    assert address_match("ip", "dst", "10.0.0.1/32") == "nw_dst=10.0.0.1"
    assert address_match("ipv6", "src", "2001:db8::/64") == "ipv6_src=2001:db8::/64"
    assert address_match("ip", "src", "0.0.0.0/0") == ""
    assert (family_of("10.0.0.1"), family_of("::/0")) == ("ip", "ipv6")
