"""From wanted documents to the things that wires are made of: networks with their local VLANs, legs of rooms, plugs on br-int.

Pure. A *room* is a namespace of ours (qdhcp-, qrouter-), a *leg* a veth pair whose inner end lies in a room and whose outer end of the
same name is plugged in br-int. A *plug* is whatever local port of br-int carries a network's frames: a guest's tap or a leg.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nacre.node.wires.driver import Document, Wanted
from nacre.node.wires.ovsdb import Switch

log = logging.getLogger(__name__)

TUNNELS = {"gre": 3, "vxlan": 4, "geneve": 6}
"""Tunnelled network types and the br-tun table their frames are received in."""
METADATA = "169.254.169.254"
_LAST_VLAN = 4094


@dataclass(frozen=True)
class Network:
    id: str
    vlan: int
    kind: str
    segment: int | None
    bridge: str | None
    mtu: int
    up: bool


@dataclass(frozen=True)
class Route:
    """`via` None means that the destination is on the link."""

    destination: str
    via: str | None
    device: str | None = None


@dataclass(frozen=True)
class Leg:
    name: str
    port_id: str
    network_id: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Room:
    """`nft` is the whole ruleset of the room, `extra` are a user's routes, which may be impossible for a while,
    `floating` pairs of floating and fixed address."""

    namespace: str
    owner: tuple[str, str]
    legs: tuple[Leg, ...]
    routes: tuple[Route, ...] = ()
    extra: tuple[Route, ...] = ()
    forwards: bool = False
    nft: str = ""
    floating: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Pair:
    """A MAC address with a network address (or range) that a guest may use."""

    mac: str
    address: str


@dataclass(frozen=True)
class Plug:
    """One local port of a network. `groups` None: nothing is checked on it."""

    owner: tuple[str, str]
    number: int
    vlan: int
    macs: tuple[str, ...]
    up: bool = True
    pairs: tuple[Pair, ...] = ()
    groups: tuple[str, ...] | None = None


def allocate(networks: Iterable[str], kept: Mapping[str, int]) -> dict[str, int]:
    """network id -> local VLAN: those kept stay, new ones get numbers after the highest, so that a number rests before it is used again."""
    vlans = {id_: kept[id_] for id_ in networks if id_ in kept}
    used, following = set(kept.values()), max(kept.values(), default=0)
    for id_ in sorted(set(networks) - set(vlans)):
        order = [*range(following + 1, _LAST_VLAN + 1), *range(1, following + 1)]
        vlans[id_] = next(number for number in order if number not in used)
        used.add(vlans[id_])
        following = vlans[id_]
    return vlans


def bridge_mappings(wanted: Wanted) -> dict[str, str]:
    mappings: dict[str, str] = {}
    for host in wanted.get("host", {}).values():
        mappings.update(host.body.get("bridge_mappings") or {})
    return mappings


def tunnel_ip(wanted: Wanted) -> str | None:
    return next((host.body.get("tunnel_ip") for host in wanted.get("host", {}).values()), None)


def network_of(document: Document, vlan: int, mappings: Mapping[str, str]) -> Network:
    """Raises KeyError when the document lacks something, LookupError when no bridge leads to its physical network."""
    body = document.body
    kind, physical = body["network_type"], body.get("physical_network")
    bridge = None
    if kind in ("flat", "vlan"):
        bridge = mappings.get(physical or "")
        if not bridge:
            raise LookupError(f"network {document.id}: no bridge of this host leads to physical network {physical!r}")
    segment = body.get("segmentation_id")
    return Network(document.id, vlan, kind, segment, bridge, int(body.get("mtu") or 1500), bool(body.get("admin_state_up", True)))


def short(prefix: str, port_id: str) -> str:
    return prefix + port_id[:11]


def _with_prefix(fixed_ips: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{fixed['ip_address']}/{fixed['prefixlen']}" for fixed in fixed_ips)


def dhcp_room(document: Document, network: Document) -> Room:
    """Raises KeyError when a document lacks something."""
    port = document.body["port"]
    name = short("tap", port["id"])
    addresses = (*_with_prefix(port["fixed_ips"]), f"{METADATA}/32")
    leg = Leg(name, port["id"], network.id, port["mac_address"].lower(), int(network.body.get("mtu") or 1500), addresses)
    return Room(f"qdhcp-{network.id}", (document.kind, document.id), (leg,))


def plugs_of_room(room: Room, networks: Mapping[str, Network], switch: Switch) -> list[Plug]:
    """One plug a leg that the switch has already numbered."""
    plugs = []
    for leg in room.legs:
        number, network = switch.numbered(leg.name), networks.get(leg.network_id)
        if number and network:
            plugs.append(Plug(room.owner, number, network.vlan, (leg.mac,), network.up))
    return plugs


def taps(switch: Switch) -> dict[str, str]:
    """Port id -> name of the guest's port on br-int that says it is; of several the one that is named after it."""
    found: dict[str, str] = {}
    for name, port in sorted(switch.ports.items()):
        id_ = port.external_ids.get("iface-id")
        if id_ and port.bridge == "br-int" and port.ofport and (id_ not in found or name == short("tap", id_)):
            found[id_] = name
    return found


def plug_of_port(document: Document, network: Network, number: int) -> Plug:
    """Raises KeyError when the document lacks something."""
    body = document.body
    mac = body["mac_address"].lower()
    up = bool(body.get("admin_state_up", True)) and network.up
    if not body.get("port_security", True):
        return Plug((document.kind, document.id), number, network.vlan, (mac,), up)
    pairs = [Pair(mac, fixed["ip_address"]) for fixed in body["fixed_ips"]]
    for pair in body.get("allowed_address_pairs") or []:
        pairs.append(Pair((pair.get("mac_address") or mac).lower(), pair["ip_address"]))
    macs = tuple(dict.fromkeys([mac, *(pair.mac for pair in pairs)]))
    groups = tuple(body.get("security_groups") or ())
    return Plug((document.kind, document.id), number, network.vlan, macs, up, tuple(dict.fromkeys(pairs)), groups)
