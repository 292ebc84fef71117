import ipaddress

import pytest

from nacre.sandbox import uplink


def test_a_closed_door_lets_nothing_through() -> None:
    rules = uplink.door("nacre_1", "ext-out", way_out=None, is_open=False)
    assert "accept;" in rules and rules.count(" drop") == 2 and "masquerade" not in rules
    assert 'iifname "ext-out" drop' in rules and 'oifname "ext-out" drop' in rules


def test_an_open_door_lets_out_and_only_answers_in() -> None:
    rules = uplink.door("nacre_1", "ext-out", way_out="uplink", is_open=True).splitlines()
    forward = [rule.strip() for rule in rules[rules.index("    chain forward {") + 2 : rules.index("    }")]]
    assert forward == [
        'iifname "ext-out" ip daddr 169.254.0.0/16 drop',
        'iifname "ext-out" oifname "uplink" meta nfproto ipv4 accept',
        'oifname "ext-out" ct state established,related accept',
        'iifname "ext-out" drop',
        'oifname "ext-out" drop',
    ]
    assert '        iifname "ext-out" oifname "uplink" masquerade' in rules


@pytest.mark.parametrize(
    ("mark", "taken", "chosen"),
    [
        ("00000000", [], "198.18.0.0/30"),
        ("00000001", [], "198.18.0.4/30"),
        ("00000000", ["198.18.0.2", "10.0.0.0/8"], "198.18.0.4/30"),
        ("00000000", ["198.18.0.0/16"], "198.19.0.0/30"),
        ("00007fff", ["198.19.255.252/30"], "198.18.0.0/30"),
    ],
)
def test_its_network_is_one_that_the_machine_does_not_know(mark: str, taken: list[str], chosen: str) -> None:
    assert uplink.choose(mark, taken) == ipaddress.IPv4Network(chosen)


def test_no_room_is_told() -> None:
    with pytest.raises(LookupError, match=r"198\.18\.0\.0/15"):
        uplink.choose("00000000", ["198.16.0.0/13"])
