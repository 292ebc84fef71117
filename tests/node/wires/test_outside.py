import pytest

from nacre.node.wires import outside

LINKS = [
    {"ifname": "eth0", "addr_info": [{"family": "inet", "local": "192.168.1.7", "prefixlen": 24, "scope": "global"}]},
    {"ifname": "ext-out", "addr_info": [{"family": "inet", "local": "172.24.4.1", "prefixlen": 24, "scope": "global"}]},
    {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
]


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        ("172.24.4.1/24", {}),
        ("203.0.113.1/24", {}),
        ("fd00::1/64", {}),
        ("192.168.1.1/24", {"192.168.1.1/24": "eth0"}),
        ("192.168.0.1/16", {"192.168.0.1/16": "eth0"}),
    ],
)
def test_the_hosts_own_networks_are_not_taken(wanted: str, refused: dict[str, str]) -> None:
    assert outside.clashes([wanted], LINKS) == refused
