"""A router's room: its legs, routes and the ruleset a person can read with `nft list ruleset` in the namespace. Pure.

Translations: a floating IP goes both ways to its fixed address; other guests leave with the gateway's address when the router does so.
A guest that reaches a floating IP from within is translated too (the answer must come back through the router), which is what the mark
is for: what came from outside carries it and keeps its sender.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nacre.node.wires.driver import Document
from nacre.node.wires.layout import METADATA, Leg, Room, Route, short

METADATA_PORT = 9697


def room(document: Document, networks: Mapping[str, Document]) -> Room:
    """Raises KeyError when a document, or one it needs, lacks something; ValueError for an impossible address."""
    body = document.body
    legs = [_leg("qr-", interface, networks) for interface in body["interfaces"]]
    gateway, routes = body.get("gateway"), []
    floating = [floating for floating in body.get("floating_ips") or [] if gateway]
    if gateway:
        outside = _leg("qg-", gateway, networks)
        own = tuple(f"{entry['floating_ip_address']}/32" for entry in floating)
        legs.append(Leg(outside.name, outside.port_id, outside.network_id, outside.mac, outside.mtu, outside.addresses + own))
        routes = _ways_out(outside, gateway, networks[gateway["network_id"]])
    pairs = [(entry["floating_ip_address"], entry["fixed_ip_address"]) for entry in floating]
    extra = tuple(Route(_plain(route["destination"]), route["nexthop"]) for route in body.get("routes") or [])
    return Room(
        namespace=f"qrouter-{document.id}",
        owner=(document.kind, document.id),
        legs=tuple(legs),
        routes=tuple(dict.fromkeys(routes)),
        extra=tuple(dict.fromkeys(extra)),
        forwards=True,
        nft=ruleset(gateway, pairs),
        floating=tuple(pairs),
    )


def _leg(prefix: str, port: Mapping[str, Any], networks: Mapping[str, Document]) -> Leg:
    mtu = int(networks[port["network_id"]].body.get("mtu") or 1500)
    addresses = tuple(f"{fixed['ip_address']}/{fixed['prefixlen']}" for fixed in port["fixed_ips"])
    return Leg(short(prefix, port["port_id"]), port["port_id"], port["network_id"], port["mac_address"].lower(), mtu, addresses)


def _plain(destination: str) -> str:
    network = ipaddress.ip_network(destination, strict=False)
    if network.prefixlen == 0:
        return "default"
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _ways_out(outside: Leg, gateway: Mapping[str, Any], network: Document) -> list[Route]:
    """A default way in each family, and every range of the external network on the link."""
    routes, families = [], set()
    own = [ipaddress.ip_interface(address).network for address in outside.addresses]
    for subnet in network.body.get("subnets") or []:
        cidr = ipaddress.ip_network(subnet["cidr"])
        if cidr.version == 4 and cidr not in own:
            routes.append(Route(str(cidr), None, outside.name))
    for address in gateway.get("gateway_ips") or []:
        version = ipaddress.ip_address(address).version
        if version not in families and any(network.version == version for network in own):
            families.add(version)
            routes.append(Route("default" if version == 4 else "::/0", address, outside.name))
    return routes


def _map(name: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    elements = ",\n".join(f"            {key} : {value}" for key, value in sorted(pairs))
    return [f"    map {name} {{", "        type ipv4_addr : ipv4_addr", f"        elements = {{\n{elements}\n        }}", "    }"]


def _chain(name: str, hook: str, rules: Sequence[str]) -> list[str]:
    return [f"    chain {name} {{", f"        {hook}; policy accept;", *(f"        {rule}" for rule in rules), "    }"]


def ruleset(gateway: Mapping[str, Any] | None, floating: Sequence[tuple[str, str]]) -> str:
    """The whole of table `router`, replacing the one that is there in one go. `floating`: (floating, fixed) addresses."""
    outside = short("qg-", gateway["port_id"]) if gateway else None
    lines = ["table ip router", "delete table ip router", "table ip router {"]
    incoming = [f'iifname "qr-*" ip daddr {METADATA} tcp dport 80 redirect to :{METADATA_PORT}']
    locally, outgoing = [], []
    if floating:
        lines += _map("floating_to_fixed", floating) + _map("fixed_to_floating", [(fixed, address) for address, fixed in floating])
        incoming.append("dnat to ip daddr map @floating_to_fixed")
        locally.append("dnat to ip daddr map @floating_to_fixed")
    if outside and gateway:
        outgoing = _translations(outside, gateway, bool(floating))
        lines += _chain("from_outside", "type filter hook prerouting priority mangle", [f'iifname "{outside}" meta mark set 2'])
    guard = f"tcp dport {METADATA_PORT} ct original ip daddr != {METADATA} drop"
    lines += _chain("prerouting", "type nat hook prerouting priority dstnat", incoming)
    lines += _chain("output", "type nat hook output priority -100", locally)
    lines += _chain("postrouting", "type nat hook postrouting priority srcnat", outgoing)
    lines += _chain("input", "type filter hook input priority filter", [guard])
    return "\n".join([*lines, "}", ""])


def _translations(outside: str, gateway: Mapping[str, Any], floating: bool) -> list[str]:
    own = next((fixed["ip_address"] for fixed in gateway["fixed_ips"] if ":" not in fixed["ip_address"]), None)
    rules = [f'oifname != "{outside}" meta mark 2 accept', f'oifname != "{outside}" ct status & dnat == 0 accept']
    if floating:
        rules.append("snat to ip saddr map @fixed_to_floating")
    if own and gateway.get("enable_snat", True):
        rules.append(f'oifname "{outside}" snat to {own}')
    if own and floating:
        rules.append(f"ct status & dnat != 0 snat to {own}")
    return rules
