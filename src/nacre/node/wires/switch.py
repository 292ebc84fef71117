"""The switch: its database and its flows made as wanted. One thread at a time."""

import logging
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nacre.node.commands import CommandFailed
from nacre.node.wires import layout, netns, ports, underlay
from nacre.node.wires.driver import Wanted
from nacre.node.wires.failures import Failures
from nacre.node.wires.flowset import Compiler, FlowSet, peers_of
from nacre.node.wires.layout import Network, Room
from nacre.node.wires.openflow import BASE, FlowTables
from nacre.node.wires.outside import EXTERNAL
from nacre.node.wires.ovsdb import Ovsdb, OvsdbError
from nacre.node.wires.ports import MARK, WantedBridge, WantedPort
from nacre.node.wires.watch import Watch

log = logging.getLogger(__name__)
_LIMIT = 5.0
_OWN = {ports.INTEGRATION: WantedBridge(secure=True), ports.TUNNEL: WantedBridge(secure=True)}


@dataclass(frozen=True)
class _Plan:
    """What the database should hold, and what moves to br-phy with it."""

    changes: ports.Changes
    numbered: frozenset[str]
    move: underlay.Move | None


class SwitchDriver:
    """`netdev`: the switch runs in user space, because the kernel has none."""

    def __init__(self, database: Ovsdb, watch: Watch) -> None:
        self._database, self._watch = database, watch
        self._tables, self._compiler = FlowTables(), Compiler()
        self._shielded: frozenset[tuple[int, str]] = frozenset()
        self.netdev = False

    def recover(self) -> None:
        """Raises OvsdbError when the switch's database does not answer within 10 s."""
        if not self._database.connected(10):
            raise OvsdbError("the switch's database does not answer")
        switch = self._database.switch()
        known = switch.bridges.get(ports.INTEGRATION)
        self.netdev = known.datapath_type == "netdev" if known else not underlay.kernel_datapath()
        self._transact(ports.Changes(bridges={name: bridge for name, bridge in _OWN.items() if name not in switch.bridges}))

    def ready(self) -> bool:
        return self._database.connected() and self._database.switch().bridges.keys() >= _OWN.keys()

    def kept_vlans(self) -> dict[str, int]:
        return ports.kept_vlans(self._database.switch())

    def changes(self, wanted: Wanted, networks: Mapping[str, Network], rooms: Sequence[Room], spared: Iterable[str]) -> ports.Changes:
        """What `plug` would change now."""
        return self._plan(wanted, networks, rooms, spared).changes

    def missing_flows(self) -> dict[str, int]:
        """bridge -> how many of our flows are not there. Raises CommandFailed."""
        return self._tables.missing()

    def forget(self) -> None:
        """Every flow is put again with the next `flow`."""
        self._tables.forget()

    def remove(self, names: Iterable[str]) -> None:
        """Takes these ports away, whoever made them. Raises OvsdbError."""
        there = self._database.switch().ports
        self._transact(ports.Changes(removed=tuple(sorted(name for name in names if name in there))))

    def plug(self, wanted: Wanted, networks: Mapping[str, Network], rooms: Sequence[Room], spared: Iterable[str]) -> None:
        """Bridges, ports, tags and tunnels; waits until new ports have numbers. Raises OvsdbError, CommandFailed."""
        plan = self._plan(wanted, networks, rooms, spared)
        self._transact(plan.changes)
        if plan.move:
            self._move(plan.move)
        new = bool(plan.changes.added or plan.changes.bridges)
        if not self._database.wait(lambda now: all(now.numbered(name) for name in plan.numbered), _LIMIT if new else 0.0):
            log.warning("the switch has not numbered all of its ports")
        if self.netdev:
            self._shield()

    def _plan(self, wanted: Wanted, networks: Mapping[str, Network], rooms: Sequence[Room], spared: Iterable[str]) -> _Plan:
        switch, devices = self._database.switch(), netns.devices()
        mapped = set(layout.bridge_mappings(wanted).values())
        local = layout.tunnel_ip(wanted)
        tunnels = ports.tunnels(networks.values(), local, peers_of(wanted)[0])
        vlans = {network.id: network.vlan for network in networks.values()}
        bridges = _OWN | {name: WantedBridge(secure=False) for name in mapped}
        wanted_ports = ports.patches(mapped) | tunnels | ports.legs(rooms, vlans)
        if EXTERNAL in devices and mapped:
            wanted_ports[EXTERNAL] = WantedPort(min(mapped), external_ids={MARK: "external"})
        move = underlay.plan(local, *underlay.look()) if self.netdev and tunnels else None
        if move:
            bridges[ports.UNDERLAY] = WantedBridge(secure=False, mac=move.mac)
            wanted_ports[move.device] = WantedPort(ports.UNDERLAY, external_ids={MARK: "underlay"})
        guests, taps = {}, layout.taps(switch)
        for document in wanted.get("port", {}).values():
            tap, network = taps.get(document.id), networks.get(document.body.get("network_id", ""))
            if tap and network:
                guests[tap] = network.vlan
        changes = ports.plan(bridges, wanted_ports, guests, vlans, switch, {*spared, "underlay"})
        numbered = frozenset(name for name, port in wanted_ports.items() if port.type or name in devices)
        return _Plan(changes, numbered, move)

    def _transact(self, changes: ports.Changes) -> None:
        if not changes:
            return
        datapath_type = "netdev" if self.netdev else "system"
        self._database.transact(ports.operations(changes, self._database.switch(), self._database.root(), datapath_type))
        new = {*changes.added, *changes.bridges}
        self._database.wait(lambda now: new <= {*now.ports, *now.bridges} and not set(changes.removed) - new & now.ports.keys(), _LIMIT)

    def _move(self, move: underlay.Move) -> None:
        end = time.monotonic() + _LIMIT
        while ports.UNDERLAY not in netns.devices() and time.monotonic() < end:
            time.sleep(0.01)
        netns.batch(None, underlay.lines(move))

    def _shield(self) -> None:
        switched = {name for name, port in self._database.switch().ports.items() if port.type == ""}
        present = frozenset((number, name) for number, name in socket.if_nameindex() if name in switched)
        if present != self._shielded:
            underlay.shield(name for _, name in present)
            self._shielded = present

    def flow(self, wanted: Wanted, networks: Mapping[str, Network], rooms: Sequence[Room], failures: Failures) -> FlowSet | None:
        """Flows compiled and put; None when the switch took none."""
        session, switch = self._watch.session(), self._database.switch()
        if session is None:
            failures.add(BASE, "the switch does not answer")
            return None
        made = self._compiler.compile(wanted, networks, rooms, switch)
        for owner, error in made.failed.items():
            failures.add(owner, error)
        try:
            for name, entries in made.bridges.items():
                if name in switch.bridges:
                    for owner in self._tables.ensure(name, (session, switch.bridges[name].uuid), entries):
                        failures.add(owner, "the switch refused its flows")
        except CommandFailed as error:
            self._tables.forget()
            failures.add(BASE, error)
            return None
        return made
