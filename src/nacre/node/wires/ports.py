"""Bridges and ports in the switch's database: what should be there, what differs, and that difference as one transaction.

`plan` is pure. A port of ours carries the external id `nacre`, and only such ports are ever taken away; guests' ports belong to
libvirt and get their VLAN tag only. The local VLAN of each network is kept as `vlan-<network id>` among br-int's external ids, so that
an agent that starts again finds it.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nacre.node.wires.layout import TUNNELS, Network, Room
from nacre.node.wires.ovsdb import Operation, Switch, SwitchPort

INTEGRATION, TUNNEL, UNDERLAY = "br-int", "br-tun", "br-phy"
MARK = "nacre"
_VLAN = "vlan-"


@dataclass(frozen=True)
class WantedPort:
    bridge: str
    type: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    external_ids: Mapping[str, str] = field(default_factory=dict)
    tag: int | None = None


@dataclass(frozen=True)
class WantedBridge:
    """`secure`: without our flows it passes nothing."""

    secure: bool
    mac: str | None = None


@dataclass(frozen=True)
class Changes:
    bridges: Mapping[str, WantedBridge] = field(default_factory=dict)
    added: Mapping[str, WantedPort] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    tags: Mapping[str, int] = field(default_factory=dict)
    vlans: Mapping[str, int] | None = None

    def __bool__(self) -> bool:
        return bool(self.bridges or self.added or self.removed or self.tags or self.vlans is not None)


def kept_vlans(switch: Switch) -> dict[str, int]:
    """network id -> local VLAN as the database remembers."""
    bridge = switch.bridges.get(INTEGRATION)
    external_ids = bridge.external_ids if bridge else {}
    return {key[len(_VLAN) :]: int(value) for key, value in external_ids.items() if key.startswith(_VLAN) and value.isdigit()}


def tunnel_name(kind: str, peer: str) -> str:
    """As neutron names it: `vxlan-c000020b` for 192.0.2.11. Raises ValueError for what is no IPv4 address."""
    return f"{kind}-{int(ipaddress.IPv4Address(peer)):08x}"


def patches(bridges: Iterable[str]) -> dict[str, WantedPort]:
    """br-int to br-tun and to each bridge of a physical network, named as neutron names them."""
    pairs = [(INTEGRATION, "patch-tun", TUNNEL, "patch-int")]
    pairs += [(INTEGRATION, f"int-{bridge}", bridge, f"phy-{bridge}") for bridge in sorted(set(bridges))]
    ports = {}
    for near_bridge, near, far_bridge, far in pairs:
        for bridge, name, peer in ((near_bridge, near, far), (far_bridge, far, near)):
            ports[name] = WantedPort(bridge, "patch", {"peer": peer}, {MARK: "patch"})
    return ports


def tunnels(networks: Iterable[Network], local: str | None, peers: Mapping[str, Iterable[str]]) -> dict[str, WantedPort]:
    """One port for each (type, peer) that a network of this host needs; `peers`: network id -> addresses of hosts with ports of it."""
    ports = {}
    for network in networks:
        for peer in peers.get(network.id, ()) if network.kind in TUNNELS and local else ():
            if peer != local:
                options = {"local_ip": str(local), "remote_ip": peer, "key": "flow", "df_default": "true"}
                ports[tunnel_name(network.kind, peer)] = WantedPort(TUNNEL, network.kind, options, {MARK: "tunnel"})
    return ports


def legs(rooms: Iterable[Room], vlans: Mapping[str, int]) -> dict[str, WantedPort]:
    ports = {}
    for room in rooms:
        for leg in room.legs:
            external_ids = {MARK: room.namespace, "iface-id": leg.port_id, "attached-mac": leg.mac, "iface-status": "active"}
            ports[leg.name] = WantedPort(INTEGRATION, "", {}, external_ids, vlans[leg.network_id])
    return ports


def _ours(port: SwitchPort) -> bool:
    return MARK in port.external_ids


def plan(
    bridges: Mapping[str, WantedBridge],
    ports: Mapping[str, WantedPort],
    guests: Mapping[str, int],
    vlans: Mapping[str, int],
    switch: Switch,
    spared: Iterable[str] = (),
) -> Changes:
    """`guests`: name of a guest's port -> its local VLAN. `spared`: rooms whose ports stay though they are not among `ports`."""
    keep = set(spared)
    added, removed = {}, []
    tags = {name: vlan for name, vlan in guests.items() if name in switch.ports and switch.ports[name].tag != vlan}
    for name, wanted in ports.items():
        seen = switch.ports.get(name)
        if seen and (seen.bridge, seen.type) == (wanted.bridge, wanted.type) and dict(seen.options) == dict(wanted.options):
            if wanted.tag is not None and seen.tag != wanted.tag:
                tags[name] = wanted.tag
            continue
        if seen:
            removed.append(name)
        added[name] = wanted
    removed += [name for name, port in switch.ports.items() if name not in ports and _ours(port) and port.external_ids[MARK] not in keep]
    changed = None if kept_vlans(switch) == dict(vlans) else vlans
    missing = {name: bridge for name, bridge in bridges.items() if name not in switch.bridges}
    return Changes(missing, added, tuple(sorted(removed)), tags, changed)


def operations(changes: Changes, switch: Switch, root: str, datapath_type: str) -> list[Operation]:
    """`changes` as the operations of one transaction."""
    made: list[Operation] = []
    into: dict[str, list[list[str]]] = {}
    for name in changes.bridges:
        into[name] = []
        made += _port(name, WantedPort(name, "internal"), into[name])
    for name, port in changes.added.items():
        made += _port(name, port, into.setdefault(port.bridge, []))
    new = [_bridge(name, bridge, into.pop(name), datapath_type) for name, bridge in changes.bridges.items()]
    made += [operation for operation, _ in new]
    if new:
        made.append(_mutate("Open_vSwitch", root, [["bridges", "insert", ["set", [reference for _, reference in new]]]]))
    out: dict[str, list[list[str]]] = {}
    for name in changes.removed:
        port_seen = switch.ports[name]
        out.setdefault(port_seen.bridge, []).append(["uuid", port_seen.uuid])
    for name in sorted({*into, *out}):
        mutations = [["ports", "delete", ["set", out.get(name, [])]], ["ports", "insert", ["set", into.get(name, [])]]]
        made.append(_mutate("Bridge", switch.bridges[name].uuid, mutations))
    for name, tag in changes.tags.items():
        made.append({"op": "update", "table": "Port", "where": _is(switch.ports[name].uuid), "row": {"tag": tag}})
    if changes.vlans is not None:
        made += _remember(changes.vlans, switch)
    return made


def _is(uuid: str) -> list[list[object]]:
    return [["_uuid", "==", ["uuid", uuid]]]


def _mutate(table: str, uuid: str, mutations: Sequence[object]) -> Operation:
    return {"op": "mutate", "table": table, "where": _is(uuid), "mutations": mutations}


def _map(pairs: Mapping[str, str]) -> list[object]:
    return ["map", [[key, value] for key, value in pairs.items()]]


def _symbol(prefix: str, name: str) -> str:
    return prefix + "".join(letter if letter.isalnum() else f"_{ord(letter):x}_" for letter in name)


def _port(name: str, port: WantedPort, into: list[list[str]]) -> list[Operation]:
    interface, own = _symbol("i", name), _symbol("p", name)
    into.append(["named-uuid", own])
    row = {"name": name, "type": port.type, "options": _map(port.options), "external_ids": _map(port.external_ids)}
    holder: dict[str, object] = {"name": name, "interfaces": ["named-uuid", interface]}
    if port.tag is not None:
        holder["tag"] = port.tag
    return [
        {"op": "insert", "table": "Interface", "uuid-name": interface, "row": row},
        {"op": "insert", "table": "Port", "uuid-name": own, "row": holder},
    ]


def _bridge(name: str, bridge: WantedBridge, ports: list[list[str]], datapath_type: str) -> tuple[Operation, list[str]]:
    symbol = _symbol("b", name)
    row: dict[str, object] = {"name": name, "datapath_type": datapath_type, "ports": ["set", ports]}
    row["fail_mode"] = "secure" if bridge.secure else "standalone"
    if bridge.mac:
        row["other_config"] = _map({"hwaddr": bridge.mac})
    return {"op": "insert", "table": "Bridge", "uuid-name": symbol, "row": row}, ["named-uuid", symbol]


def _remember(vlans: Mapping[str, int], switch: Switch) -> list[Operation]:
    kept, uuid = kept_vlans(switch), switch.bridges[INTEGRATION].uuid
    gone = [_VLAN + id_ for id_ in kept if vlans.get(id_) != kept[id_]]
    new = {_VLAN + id_: str(vlan) for id_, vlan in vlans.items() if kept.get(id_) != vlan}
    return [_mutate("Bridge", uuid, [["external_ids", "delete", ["set", list(gone)]], ["external_ids", "insert", _map(new)]])]
