"""A security group rule as OpenFlow matches. Pure.

A range of ports becomes the least number of value/mask pairs that cover exactly it.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

_NUMBERS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58, "igmp": 2, "ip": None,
    "any": None, "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43, "ospf": 89,
    "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}  # fmt: skip
_WITH_PORTS = {6: "tcp", 17: "udp", 132: "sctp"}


def masks(first: int, last: int) -> list[str]:
    """The 16-bit ports `first`..`last` as matches: `22` or `0x400/0xfc00`. Raises ValueError for an impossible range."""
    if not 0 <= first <= last <= 0xFFFF:
        raise ValueError(f"no range of ports: {first} to {last}")
    found = []
    while first <= last:
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size >>= 1
        mask = 0x10000 - size
        found.append(str(first) if size == 1 else f"{first:#x}/{mask:#x}")
        first += size
    return found


def family_of(address: str) -> str:
    """`ip` or `ipv6`, as OpenFlow names them, of an address or range. Raises ValueError."""
    return "ip" if ipaddress.ip_network(address, strict=False).version == 4 else "ipv6"


def address_match(family: str, side: str, address: str) -> str:
    """`side` is `src` or `dst`. The whole range of a family matches everything: an empty text."""
    network = ipaddress.ip_network(address, strict=False)
    if network.prefixlen == 0:
        return ""
    text = str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
    return f"{'nw' if family == 'ip' else 'ipv6'}_{side}={text}"


def _number(protocol: str, family: str) -> int | None:
    known = _NUMBERS[protocol] if protocol in _NUMBERS else int(protocol)
    if known is not None and not 0 <= known <= 255:
        raise ValueError(f"no protocol: {protocol}")
    return 58 if known == 1 and family == "ipv6" else known


def _numbered(family: str, number: int, low: int | None, high: int | None) -> list[str]:
    if number in (1, 58):
        kind = "icmp" if family == "ip" else "icmp6"
        if (number == 1) != (family == "ip"):
            return [f"{family},nw_proto={number}"]
        if any(value is not None and not 0 <= value <= 255 for value in (low, high)):
            raise ValueError(f"no type and code of ICMP: {low}, {high}")
        parts = [kind] + ([f"icmp_type={low}"] if low is not None else []) + ([f"icmp_code={high}"] if high is not None else [])
        return [",".join(parts)]
    if number not in _WITH_PORTS:
        return [f"{family},nw_proto={number}"]
    name = _WITH_PORTS[number] + ("" if family == "ip" else "6")
    if low is None and high is None:
        return [name]
    ports = masks(low if low is not None else 1, high if high is not None else 0xFFFF)
    return [name] if ports == ["0x0/0x0"] else [f"{name},tp_dst={port}" for port in ports]


def rule_matches(rule: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The family of a rule and its matches of protocol and ports, without the remote. Raises ValueError, KeyError."""
    family = {"ipv4": "ip", "ipv6": "ipv6"}[str(rule["ethertype"]).lower()]
    protocol = rule.get("protocol")
    number = None if protocol is None else _number(str(protocol).lower(), family)
    if number is None:
        return family, [family]
    return family, _numbered(family, number, rule.get("port_range_min"), rule.get("port_range_max"))
