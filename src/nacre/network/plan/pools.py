"""What a subnet pool may be, and which range of it is cut next. Pure; raises the refusals of upstream.

Ranges are cut from the lowest free place; the walk goes from one taken range to the next, so it costs what is taken, not what is free.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nacre.network.faults import fault, invalid
from nacre.network.plan.addresses import Network

_LENGTHS = {4: (8, 32), 6: (64, 128)}


def prefixes(written: Sequence[Any]) -> list[str]:
    """Joined where they meet, in order. All must be of one IP version."""
    found: list[Any] = []
    for one in written:
        try:
            found.append(ipaddress.ip_network(one, strict=False))
        except ValueError:
            raise invalid("prefixes", f"'{one}' is not a valid IP subnet") from None
    if not found:
        raise fault("EmptySubnetPoolPrefixList")
    if len({network.version for network in found}) > 1:
        raise fault("PrefixVersionMismatch")
    return [str(network) for network in ipaddress.collapse_addresses(found)]


def lengths(version: int, wanted: Mapping[str, Any]) -> dict[str, int]:
    """min_prefixlen, max_prefixlen, default_prefixlen: as wanted, or upstream's defaults; the default length is the least unless said."""
    low, high = _LENGTHS[version]
    least = low if wanted.get("min_prefixlen") is None else int(wanted["min_prefixlen"])
    most = high if wanted.get("max_prefixlen") is None else int(wanted["max_prefixlen"])
    usual = least if wanted.get("default_prefixlen") is None else int(wanted["default_prefixlen"])
    for kind, value in (("min", least), ("max", most), ("default", usual)):
        if not 0 <= value <= high:
            raise fault("InvalidSubnetPoolPrefix", which=kind, value=value, version=version)
    for kind, value, base, other in (("min", least, "max", most), ("min", least, "default", usual), ("default", usual, "max", most)):
        if value > other:
            raise fault("IllegalSubnetPoolPrefixBounds", which=kind, value=value, base=base, other=other)
    return {"min_prefixlen": least, "max_prefixlen": most, "default_prefixlen": usual}


def grown(before: Sequence[str], after: Sequence[str]) -> None:
    """A pool only grows: what subnets were cut of stays in it."""
    wider = [ipaddress.ip_network(one) for one in after]
    for one in before:
        network: Any = ipaddress.ip_network(one)
        if not any(network.version == other.version and network.subnet_of(other) for other in wider):
            raise fault("IllegalSubnetPoolPrefixUpdate", msg=f"Existing prefixes must be a subset of the new prefixes: {one} is missing")


def fits(length: int, pool: Mapping[str, Any]) -> None:
    if length < pool["min_prefixlen"]:
        raise fault("MinPrefixSubnetAllocationError", prefixlen=length, min_prefixlen=pool["min_prefixlen"])
    if length > pool["max_prefixlen"]:
        raise fault("MaxPrefixSubnetAllocationError", prefixlen=length, max_prefixlen=pool["max_prefixlen"])


def free(of: Iterable[str], taken: Iterable[str], length: int) -> str:
    """The lowest range of that length that overlaps none of those taken."""
    busy = sorted((int(network.network_address), int(network.broadcast_address)) for network in map(ipaddress.ip_network, taken))
    for one in map(ipaddress.ip_network, of):
        if length < one.prefixlen:
            continue
        size, at = 1 << (one.max_prefixlen - length), int(one.network_address)
        for first, last in busy:
            if last >= at and first < at + size:
                at = -(-(last + 1) // size) * size
        if at + size - 1 <= int(one.broadcast_address):
            return str(type(one)((at, length)))
    raise fault("SubnetAllocationError", reason="Insufficient prefix space to allocate subnet size /" + str(length))


def check_free(asked: Network, of: Iterable[str], taken: Iterable[str]) -> None:
    """A range that was asked for is inside the pool and overlaps none of those taken."""
    inside: list[Any] = [ipaddress.ip_network(one) for one in of]
    wanted: Any = asked
    if not any(wanted.version == one.version and wanted.subnet_of(one) for one in inside):
        raise fault("SubnetAllocationError", reason="Cannot allocate requested subnet from the available set of prefixes")
    if any(wanted.overlaps(other) for other in map(ipaddress.ip_network, taken)):
        raise fault("SubnetAllocationError", reason="Cannot allocate requested subnet from the available set of prefixes")


def weight(cidr: str) -> int:
    """What a range counts against a project's quota: its addresses (IPv4), or its ranges of 64 bits (IPv6)."""
    network = ipaddress.ip_network(cidr)
    return network.num_addresses if network.version == 4 else max(1, 1 << max(0, 64 - network.prefixlen))
