"""All flows of a host, from what is wanted and the port numbers the switch gave. Pure but for a memory of what was compiled.

Each guest's port is compiled alone: one with an impossible address loses its own wires and nobody else's. What was compiled for a port
is kept while port, groups and number stay, so that a change costs what it changes.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.node.wires import firewall, ports, switching
from nacre.node.wires.driver import Document, Wanted
from nacre.node.wires.layout import TUNNELS, Network, Plug, Room, plug_of_port, plugs_of_room, taps
from nacre.node.wires.openflow import Entry, Flows, Key, Owner
from nacre.node.wires.ovsdb import Switch

Ids = Mapping[firewall.Remote, int]


@dataclass
class FlowSet:
    """`bridges`: bridge -> its flows; `failed`: documents that cannot be compiled; `wired`: ports and rooms that have their flows."""

    bridges: dict[str, dict[Key, Entry]] = field(default_factory=dict)
    failed: dict[Owner, Exception] = field(default_factory=dict)
    wired: set[Owner] = field(default_factory=set)


def trunks(networks: Iterable[Network], peers: Mapping[str, Iterable[str]], switch: Switch) -> switching.Trunks:
    networks = list(networks)
    bridges = {network.bridge for network in networks if network.bridge}
    inner = {bridge: number for bridge in bridges if (number := switch.numbered(f"int-{bridge}"))}
    outer = {bridge: number for bridge in bridges if (number := switch.numbered(f"phy-{bridge}"))}
    tunnels = {
        (network.kind, peer): number
        for network in networks
        if network.kind in TUNNELS
        for peer in peers.get(network.id, ())
        if (number := switch.numbered(ports.tunnel_name(network.kind, peer)))
    }
    return switching.Trunks(switch.numbered("patch-tun"), switch.numbered("patch-int"), inner, outer, tunnels)


def peers_of(wanted: Wanted) -> tuple[dict[str, list[str]], dict[Owner, Exception]]:
    """network id -> addresses of other hosts with ports of it, and the documents that cannot be understood."""
    peers: dict[str, list[str]] = {}
    failed: dict[Owner, Exception] = {}
    for id_, document in wanted.get("forwarding", {}).items():
        try:
            addresses = {entry["tunnel_ip"] for entry in document.body["entries"]}
            peers[id_] = sorted(str(ipaddress.IPv4Address(address)) for address in addresses if address)
        except (KeyError, ValueError, TypeError) as error:
            failed["forwarding", id_] = error
    return peers, failed


class Compiler:
    def __init__(self) -> None:
        self._memory: dict[Owner, tuple[object, tuple[Flows, dict[Owner, Exception]]]] = {}
        self._ids: tuple[frozenset[firewall.Remote], Ids] = (frozenset(), {})

    def compile(self, wanted: Wanted, networks: Mapping[str, Network], rooms: Sequence[Room], switch: Switch) -> FlowSet:
        made = FlowSet()
        peers, made.failed = peers_of(wanted)
        trunk = trunks(networks.values(), peers, switch)
        groups = wanted.get("security_group", {})
        ids = self._conjunctions(groups)
        plugs = self._rooms(made, rooms, networks, switch)
        firewalls = Flows()
        stateful: dict[Owner, bool] = {}
        for plug, flows in self._ports(made, wanted, networks, switch, ids):
            plugs.append(plug)
            firewalls.merge(flows)
            if plug.groups is not None:
                stateful[plug.owner] = _stateful(plug, groups)
        integration = switching.integration(networks.values(), plugs, stateful, trunk)
        integration.merge(firewalls)
        integration.merge(_sets(made, wanted, ids))
        made.bridges[ports.INTEGRATION] = integration.entries()
        forwarding = {id_: document.body["entries"] for id_, document in wanted.get("forwarding", {}).items() if id_ in peers}
        made.bridges[ports.TUNNEL] = switching.tunnelling(networks.values(), forwarding, trunk).entries()
        for bridge in {network.bridge for network in networks.values() if network.bridge}:
            made.bridges[bridge] = switching.physical(bridge, networks.values(), trunk).entries()
        return made

    def _conjunctions(self, groups: Mapping[str, Document]) -> Ids:
        remote = frozenset(needed for group in groups.values() for rule in group.body.get("rules", ()) if (needed := firewall.remote(rule)))
        if remote != self._ids[0]:
            self._ids = (remote, firewall.conjunction_ids(remote))
            self._memory.clear()
        return self._ids[1]

    def _rooms(self, made: FlowSet, rooms: Iterable[Room], networks: Mapping[str, Network], switch: Switch) -> list[Plug]:
        plugs = []
        for room in rooms:
            found = plugs_of_room(room, networks, switch)
            plugs += found
            if len(found) == len(room.legs):
                made.wired.add(room.owner)
        return plugs

    def _ports(self, made: FlowSet, wanted: Wanted, networks: Mapping[str, Network], switch: Switch, ids: Ids) -> list[tuple[Plug, Flows]]:
        found, groups, there = [], wanted.get("security_group", {}), taps(switch)
        for document in wanted.get("port", {}).values():
            owner = (document.kind, document.id)
            tap = there.get(document.id)
            number, network = switch.numbered(tap) if tap else None, networks.get(document.body.get("network_id", ""))
            if not number or not network:
                continue
            try:
                plug = plug_of_port(document, network, number)
                missing = [group for group in plug.groups or () if group not in groups]
                flows, bad = self._port(plug, groups, ids)
                found.append((plug, flows))
                made.failed.update(bad)
                if not missing:
                    made.wired.add(owner)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                made.failed[owner] = error
        for owner in set(self._memory) - {plug.owner for plug, _ in found}:
            del self._memory[owner]
        return found

    def _port(self, plug: Plug, groups: Mapping[str, Document], ids: Ids) -> tuple[Flows, dict[Owner, Exception]]:
        """The flows of one port, and the groups of which a rule had to be left out (rules only allow: without it, less is allowed)."""
        versions = tuple((id_, groups[id_].version) for id_ in plug.groups or () if id_ in groups)
        known = self._memory.get(plug.owner)
        if known and known[0] == (plug, versions):
            return known[1]
        flows = Flows()
        bad: dict[Owner, Exception] = {}
        if plug.groups is not None:
            firewall.guard(flows, plug, _stateful(plug, groups))
            for id_, _ in versions:
                for rule in groups[id_].body.get("rules", ()):
                    try:
                        firewall.allow(flows, plug, rule, ids)
                    except (KeyError, ValueError, TypeError, AttributeError) as error:
                        bad["security_group", id_] = error
        self._memory[plug.owner] = ((plug, versions), (flows, bad))
        return flows, bad


def _stateful(plug: Plug, groups: Mapping[str, Document]) -> bool:
    """A port without groups is stateful: nothing but answers to nothing."""
    kinds = [bool(groups[id_].body.get("stateful", True)) for id_ in plug.groups or () if id_ in groups]
    return any(kinds) or not kinds


def _sets(made: FlowSet, wanted: Wanted, ids: Ids) -> Flows:
    flows = Flows()
    for group in {group for group, _, _ in ids}:
        document = wanted.get("address_set", {}).get(group)
        own = {key: number for key, number in ids.items() if key[0] == group}
        members: dict[str, Any] = {group: document.body.get("addresses", ()) if document else ()}
        try:
            part = Flows()
            firewall.address_sets(part, members, own)
            flows.merge(part)
        except (ValueError, TypeError) as error:
            made.failed["address_set", group] = error
    return flows
