"""Security group rules: what can be said, and when two say the same. Pure; raises the refusals of upstream."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from nacre.network.faults import fault, invalid

NAMES = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "igmp": 2, "ip": 0, "ipip": 4, "ipv6-encap": 41,
    "ipv6-frag": 44, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43, "ospf": 89, "pgm": 113,
    "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}  # fmt: skip
ANY = (None, "any", "-1", -1, 0, "0", "ip")
_ONLY_IPV6 = ("ipv6-encap", "ipv6-frag", "ipv6-icmp", "icmpv6", "ipv6-nonxt", "ipv6-opts", "ipv6-route")
_ETHERTYPES = {"ipv4": "IPv4", "ipv6": "IPv6"}
_WITH_PORTS = ("dccp", "sctp", "tcp", "udp", "udplite")
DEFAULTS = tuple({"direction": "egress", "ethertype": kind} for kind in ("IPv4", "IPv6"))


def checked(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The rule's columns, in their usual spelling."""
    if wanted["direction"] not in ("ingress", "egress"):
        raise invalid("direction", f"'{wanted['direction']}' is not in ['ingress', 'egress']")
    written = wanted.get("ethertype") or "IPv4"
    ethertype = _ETHERTYPES.get(str(written).lower())
    if ethertype is None:
        raise fault("SecurityGroupRuleInvalidEtherType", ethertype=written, values=list(_ETHERTYPES.values()))
    protocol = _protocol(wanted.get("protocol"), ethertype)
    low, high = _ports(protocol, wanted.get("port_range_min"), wanted.get("port_range_max"))
    prefix = _prefix(wanted.get("remote_ip_prefix"), ethertype)
    if prefix is not None and wanted.get("remote_group_id"):
        raise fault("SecurityGroupMultipleRemoteEntites")
    return {
        "direction": wanted["direction"], "ethertype": ethertype, "protocol": protocol, "port_range_min": low, "port_range_max": high,
        "remote_ip_prefix": prefix, "remote_group_id": wanted.get("remote_group_id") or None,
    }  # fmt: skip


def _protocol(written: Any, ethertype: str) -> str | None:
    if written in ANY or (isinstance(written, str) and written.lower() in ANY):
        return None
    name = str(written).lower()
    if name.isdecimal():
        if not 0 <= int(name) <= 255:
            raise fault("SecurityGroupRuleInvalidProtocol", protocol=written, values=sorted(NAMES))
        return str(int(name))
    if name not in NAMES:
        raise fault("SecurityGroupRuleInvalidProtocol", protocol=written, values=sorted(NAMES))
    if ethertype == "IPv6" and name in ("icmp", "icmpv6"):
        return "ipv6-icmp"
    if ethertype == "IPv4" and name in _ONLY_IPV6:
        raise fault("SecurityGroupEthertypeConflictWithProtocol", ethertype=ethertype, protocol=written)
    return name


def number(protocol: str | None) -> int | None:
    return None if protocol is None else NAMES[protocol] if protocol in NAMES else int(protocol)


def _port(value: Any) -> int | None:
    if value is None:
        return None
    try:
        port = int(value)
    except (TypeError, ValueError):
        raise fault("SecurityGroupInvalidPortValue", port=value) from None
    if not 0 <= port <= 65535:
        raise fault("SecurityGroupInvalidPortValue", port=value)
    return port


def _ports(protocol: str | None, first: Any, last: Any) -> tuple[int | None, int | None]:
    low, high = _port(first), _port(last)
    if low is None and high is None:
        return None, None
    if protocol is None:
        if (low, high) in ((1, 65535), (0, 65535)):
            return None, None
        raise fault("SecurityGroupProtocolRequiredWithPorts")
    if number(protocol) in (1, 58):
        for attr, field, value in (("port_range_min", "type", low), ("port_range_max", "code", high)):
            if value is not None and value > 255:
                raise fault("SecurityGroupInvalidIcmpValue", field=field, attr=attr, value=value)
        if low is None:
            raise fault("SecurityGroupMissingIcmpType", value=high)
        return low, high
    if number(protocol) not in {NAMES.get(name) for name in _WITH_PORTS}:
        raise fault("SecurityGroupInvalidProtocolForPort", protocol=protocol, valid_port_protocols=", ".join(_WITH_PORTS))
    if low is None or high is None or low > high:
        raise fault("SecurityGroupInvalidPortRange")
    if low == 0 and protocol in ("tcp", "udp"):
        raise fault("SecurityGroupInvalidPortValue", port=low)
    return low, high


def _prefix(written: Any, ethertype: str) -> str | None:
    """As upstream keeps it: with the bits of a host, if some were written."""
    if not written:
        return None
    try:
        network = ipaddress.ip_interface(written)
    except ValueError:
        raise fault("InvalidCIDR", input=written) from None
    if f"IPv{network.version}" != ethertype:
        raise fault("SecurityGroupRuleParameterConflict", ethertype=ethertype, cidr=written)
    return network.with_prefixlen


def alike(rule: Mapping[str, Any]) -> str:
    """Equal for two rules of a group that match the same packets in the same spelling of upstream's comparison."""
    prefix = rule.get("remote_ip_prefix")
    everybody = prefix in ("0.0.0.0/0", "::/0") or prefix is None
    parts = [rule["direction"], rule["ethertype"], number(rule.get("protocol")), rule.get("port_range_min"), rule.get("port_range_max"),
             None if everybody else prefix, rule.get("remote_group_id")]  # fmt: skip
    return "|".join("" if part is None else str(part) for part in parts)
