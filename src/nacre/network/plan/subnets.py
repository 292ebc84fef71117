"""Whether a subnet can be as it is asked for. Pure; raises the refusals of upstream, naming the field."""

import ipaddress
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from nacre.network.faults import fault, invalid, refused
from nacre.network.plan import addresses

RA_MODES = ("slaac", "dhcpv6-stateful", "dhcpv6-stateless")
_MOST_NAMESERVERS, _MOST_ROUTES = 5, 20


def cidr(written: Any, version: int) -> addresses.Network:
    """The range, its host bits cleared as upstream clears them."""
    try:
        network = ipaddress.ip_network(written, strict=False)
        if "/" not in str(written):
            raise ValueError
    except ValueError:
        raise invalid("cidr", f"'{written}' is not a valid IP subnet") from None
    if network.version != version:
        raise refused(f"ip_version {version} does not match cidr '{written}'")
    if network.prefixlen == 0:
        raise refused("0 is not allowed as CIDR prefix length")
    if network.is_multicast or network.is_loopback:
        raise refused(f"loopback and multicast IP subnets are not supported, cidr '{written}'")
    return network


def address(field: str, written: Any, version: int | None = None) -> str:
    """An address in its usual spelling."""
    try:
        found = ipaddress.ip_address(written)
    except ValueError:
        raise invalid(field, f"'{written}' is not a valid IP address") from None
    if version is not None and found.version != version:
        raise refused(f"{field} '{written}' does not match the ip_version '{version}'")
    return str(found)


def gateway(network: addresses.Network, given: Any) -> str | None:
    """The gateway: given, none (None), or the first address when nothing is said (`...`)."""
    if given is None:
        return None
    if given is ...:
        if network.prefixlen >= network.max_prefixlen - (1 if network.version == 4 else 0):
            return None if network.prefixlen == network.max_prefixlen else str(network.network_address)
        return str(network.network_address + 1)
    found = address("gateway_ip", given, network.version)
    inside = ipaddress.ip_address(found) in network
    first, last = addresses.usable(network)
    if not inside and network.version == 4:
        raise refused(f"Gateway is not valid on subnet: gateway_ip '{given}' is not in cidr '{network}'")
    if inside and not first <= int(ipaddress.ip_address(found)) <= last:
        raise refused(f"Gateway is not valid on subnet: gateway_ip '{given}' is the network or broadcast address of cidr '{network}'")
    return found


def checked_pools(network: addresses.Network, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Allocation pools in ascending order: inside the subnet, not overlapping."""
    first, last = addresses.usable(network)
    found = []
    for pool in asked:
        ends = [address("allocation_pools", pool.get(end), network.version) for end in ("start", "end")]
        named = f"{ends[0]}-{ends[1]}"
        low, high = (int(ipaddress.ip_address(end)) for end in ends)
        if high < low:
            raise fault("InvalidAllocationPool", pool=named)
        if low < first or high > last:
            raise fault("OutOfBoundsAllocationPool", pool=named, subnet_cidr=network)
        found.append((low, high))
    found.sort()
    for one, other in itertools.pairwise(found):
        if other[0] <= one[1]:
            names = [f"{addresses.text(pool[0], network.version)}-{addresses.text(pool[1], network.version)}" for pool in (one, other)]
            raise fault("OverlappingAllocationPools", pool_1=names[0], pool_2=names[1], subnet_cidr=network)
    return addresses.written(found, network.version)


def gateway_outside_pools(given: str | None, pools: Sequence[Mapping[str, str]]) -> None:
    if given is None:
        return
    at = int(ipaddress.ip_address(given))
    for (low, high), pool in zip(addresses.pools(pools), pools, strict=True):
        if low <= at <= high:
            raise fault("GatewayConflictWithAllocationPools", ip_address=given, pool=f"{pool['start']}-{pool['end']}")


def nameservers(asked: Sequence[str]) -> list[str]:
    if len(asked) > _MOST_NAMESERVERS:
        raise fault("DNSNameServersExhausted", subnet_id="new subnet", quota=_MOST_NAMESERVERS)
    found = [address("dns_nameservers", one) for one in asked]
    if len(set(found)) != len(found):
        raise invalid("dns_nameservers", f"Duplicate nameserver in {', '.join(found)}")
    return found


def routes(field: str, asked: Sequence[Mapping[str, Any]], version: int | None = None) -> list[dict[str, str]]:
    """[{"destination", "nexthop"}] in their usual spelling."""
    if field == "host_routes" and len(asked) > _MOST_ROUTES:
        raise fault("HostRoutesExhausted", subnet_id="new subnet", quota=_MOST_ROUTES)
    found = []
    for route in asked:
        if set(route) != {"destination", "nexthop"}:
            raise invalid(field, f"'{dict(route)}' must have destination and nexthop")
        try:
            destination = ipaddress.ip_network(route["destination"], strict=True)
        except ValueError:
            raise invalid(field, f"'{route['destination']}' is not a valid CIDR") from None
        nexthop = address(field, route["nexthop"], version)
        if destination.version != ipaddress.ip_address(nexthop).version:
            raise invalid(field, f"destination {destination} and nexthop {nexthop} are of different IP versions")
        found.append({"destination": str(destination), "nexthop": nexthop})
    if len({tuple(route.values()) for route in found}) != len(found):
        raise invalid(field, "Duplicate routes")
    return found


def ipv6_modes(version: int, network: addresses.Network, wanted: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(ra mode, address mode)."""
    ra, mode = wanted.get("ipv6_ra_mode"), wanted.get("ipv6_address_mode")
    if version == 4:
        if ra or mode:
            raise refused("ipv6_ra_mode and ipv6_address_mode are only valid when ip_version is 6")
        return None, None
    for field, value in (("ipv6_ra_mode", ra), ("ipv6_address_mode", mode)):
        if value is not None and value not in RA_MODES:
            raise invalid(field, f"'{value}' is not in {list(RA_MODES)}")
    if (ra or mode) and not wanted.get("enable_dhcp", True):
        raise refused("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    if ra and mode and ra != mode:
        raise refused(f"ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{mode}' is not valid. If both attributes are set, they "
                      "must be the same value")  # fmt: skip
    if automatic(mode) and network.prefixlen != 64:
        raise refused(f"Invalid CIDR {network} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix "
                      "to be /64")  # fmt: skip
    return ra, mode


def automatic(address_mode: str | None) -> bool:
    """Whether machines give themselves their address."""
    return address_mode in ("slaac", "dhcpv6-stateless")
