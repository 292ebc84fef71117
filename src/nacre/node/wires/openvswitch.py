"""Wires by Open vSwitch: br-int, br-tun, a bridge for each physical network; rooms for DHCP and routers; the metadata service.

`apply` goes one way every time: decide which networks, rooms and ports there should be (layout, router, ports: pure), make rooms and
their cables, change the switch's database in one transaction, put the difference of flows (flowset, firewall, switching: pure), set up
what serves in the rooms, take away what nobody wants. A step that fails for one document marks that document, and the rest goes on;
what exists of a failed document stays.

What may race: libvirt makes a guest's port anew at each start (the database rings, the next apply sees the new number); vswitchd
restarts and loses its flows (watch sees it, and the session for which they were put is over); a person changes a room by hand (rooms
are looked at again once a minute).
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.node.commands import CommandFailed
from nacre.node.metadata import Metadata, Spot
from nacre.node.wires import dnsmasq, layout, netns, radvd, router, survey
from nacre.node.wires.connections import Connections
from nacre.node.wires.driver import KINDS, Applied, Document, Keep, Lookup, Wanted
from nacre.node.wires.failures import Failures
from nacre.node.wires.flowset import FlowSet
from nacre.node.wires.layout import METADATA, Network, Room
from nacre.node.wires.openflow import BASE
from nacre.node.wires.outside import Outside
from nacre.node.wires.ovsdb import Ovsdb
from nacre.node.wires.ports import INTEGRATION, TUNNEL, UNDERLAY
from nacre.node.wires.rooms import Rooms
from nacre.node.wires.switch import SwitchDriver
from nacre.node.wires.watch import Watch

log = logging.getLogger(__name__)
_NEED_FLOWS = frozenset(KINDS) - {"outside"}
_NEED_PLUGS = frozenset({"port", "dhcp", "router"})


class OpenVSwitchWires:
    """`folder`: the agent's own, for what must survive a reboot; `served`: where dnsmasq's files are, radvd's beside it, for every user to
    walk to."""

    def __init__(self, folder: Path, lookup: Lookup, keep: Keep, dhcp_lease_duration: int = 86400, served: Path = Path("/run/nacre/dhcp")) -> None:
        self._lease = dhcp_lease_duration
        self._watch = Watch(INTEGRATION)
        self._database = Ovsdb(self._watch.ring)
        self._switch = SwitchDriver(self._database, self._watch)
        self._metadata = Metadata(folder / "metadata", lookup, keep, self._watch.ring)
        self._rooms, self._outside, self._connections = Rooms(served), Outside(), Connections()
        self._failures = Failures()
        self._last: dict[str, Room] = {}
        self._serving: dict[str, bool] = {"dhcp": True, "l3": True, "metadata": True}
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Raises OvsdbError when the switch's database does not answer within 10 s."""
        self._switch.recover()

    def watch(self, changed: Callable[[], None]) -> None:
        self._watch.start(changed)

    def agents(self) -> Mapping[str, bool]:
        """Beside the switch itself, an agent is alive when all it should serve was served at the last apply."""
        switched = self._database.connected() and not self._database.hangs and self._watch.session() is not None
        return {"openvswitch": switched, **self._serving, **({"dhcp": False} if self._rooms.stopped() else {})}

    def trouble(self) -> Mapping[str, str]:
        found = {f"{role} {room.partition('-')[2]}": "it is stopped" for room, role in self._rooms.stopped().items()}
        if self._database.hangs or not self._database.connected():
            found["ovsdb-server"] = "it does not answer"
        elif self._watch.session() is None:
            found["ovs-vswitchd"] = "it does not answer"
        return found

    def close(self) -> None:
        self._watch.close()
        self._database.close()
        self._metadata.close()

    def survey(self, wanted: Wanted) -> dict[str, Any]:
        with self._lock:
            if not self._switch.ready():
                return {"found": [survey.finding("switch", INTEGRATION, "the switch does not answer")], "taps": [], "others": []}
            networks = self._networks(wanted)
            rooms, kept, now = self._wanted_rooms(wanted, networks), self._kept(wanted), self._database.switch()
            found = survey.switch(self._switch.changes(wanted, networks, rooms, kept)) + survey.flows(self._switch.missing_flows())
            found += survey.namespaces(rooms, kept, netns.rooms()) + survey.servers(self._rooms, rooms, kept)
            found += [survey.finding("not-true", " ".join(owner).strip(), cause) for owner, cause in self._failures.all()]
            bridges = {INTEGRATION, TUNNEL, UNDERLAY, *layout.bridge_mappings(wanted).values()}
            taps = survey.taps(now, netns.devices(), (leg.name for room in rooms for leg in room.legs))
            return {"found": found, "taps": taps, "others": survey.others(now, bridges, kept)}

    def repair(self, wanted: Wanted, taps: Sequence[str]) -> None:
        with self._lock:
            for pid in self._rooms.strangers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            ports = wanted.get("port", {})
            unwanted = [name for name in taps if not any(id_.startswith(name.removeprefix("tap")) for id_ in ports)]
            switched = self._database.switch().ports
            self._switch.remove(unwanted)  # the switch takes the devices of its own away with them
            netns.remove(name for name in unwanted if name not in switched)
            self._switch.forget()
            self._rooms.forget()

    def apply(self, wanted: Wanted) -> Applied:
        """Raises OvsdbError, CommandFailed when the switch as a whole cannot be used."""
        with self._lock:
            self._failures.begin()
            if not self._switch.ready():
                self.recover()
            networks = self._networks(wanted)
            rooms = self._wanted_rooms(wanted, networks)
            kept = self._kept(wanted)
            self._rooms.lay(rooms, self._failures, offload=not self._switch.netdev)
            with self._failures.of(BASE):  # what is plugged already goes on without the switch's database
                self._switch.plug(wanted, networks, rooms, kept)
            for room in rooms:
                with self._failures.of(room.owner):
                    self._rooms.furnish(room)
            flows = self._switch.flow(wanted, networks, rooms, self._failures)
            if flows:
                self._forget_connections(wanted, networks)
            self._rooms.release(kept)
            self._serve(wanted, rooms)
            self._set_outside(wanted)
            if not self._rooms.clear(kept, self._failures):
                self._watch.ring()
            self._failures.end()
            return self._applied(wanted, flows, {room.owner for room in rooms})

    def _forget_connections(self, wanted: Wanted, networks: Mapping[str, Network]) -> None:
        try:
            self._connections.settle(wanted, networks)
        except CommandFailed as error:
            log.warning("connections of what is gone are still tracked: %s", error)

    def _set_outside(self, wanted: Wanted) -> None:
        failed: Mapping[str, Exception]
        try:
            failed = self._outside.apply(wanted)
        except (CommandFailed, OSError) as error:
            failed = dict.fromkeys(wanted.get("outside", {}), error)
        for id_, reason in failed.items():
            self._failures.add(("outside", id_), reason)

    def _networks(self, wanted: Wanted) -> dict[str, Network]:
        documents = wanted.get("network", {})
        vlans = layout.allocate(documents, self._switch.kept_vlans())
        mappings = layout.bridge_mappings(wanted)
        networks: dict[str, Network] = {}
        for id_, document in documents.items():
            with self._failures.of(("network", id_)):
                networks[id_] = layout.network_of(document, vlans[id_], mappings)
        return networks

    def _wanted_rooms(self, wanted: Wanted, networks: Mapping[str, Network]) -> list[Room]:
        """A room whose document cannot be understood stays as it was last."""
        documents, rooms = wanted.get("network", {}), []
        for namespace, document in self._documents_of_rooms(wanted).items():
            with self._failures.of((document.kind, document.id)):
                is_router = namespace.startswith("qrouter-")
                room = router.room(document, documents) if is_router else layout.dhcp_room(document, documents[document.id])
                lost = [leg.network_id for leg in room.legs if leg.network_id not in networks]
                if lost:
                    raise LookupError(f"its network {lost[0]} cannot be wired")
                self._last[namespace] = room
            known = self._last.get(namespace)
            if known and all(leg.network_id in networks for leg in known.legs):
                rooms.append(known)
        self._last = {room.namespace: room for room in rooms}
        return rooms

    def _documents_of_rooms(self, wanted: Wanted) -> dict[str, Document]:
        """namespace -> the document that wants it; what is down has no room."""
        networks = wanted.get("network", {})
        found = {}
        for id_, document in wanted.get("dhcp", {}).items():
            if id_ not in networks or networks[id_].body.get("admin_state_up", True):
                found[f"qdhcp-{id_}"] = document
        for id_, document in wanted.get("router", {}).items():
            if document.body.get("admin_state_up", True):
                found[f"qrouter-{id_}"] = document
        return found

    def _kept(self, wanted: Wanted) -> list[str]:
        return list(self._documents_of_rooms(wanted))

    def _serve(self, wanted: Wanted, rooms: Sequence[Room]) -> None:
        spots = {}
        for room in rooms:
            kind, id_ = room.owner
            if kind == "router":
                spots["router", id_] = Spot(room.namespace, "0.0.0.0", router.METADATA_PORT)
                with self._failures.of(room.owner):
                    if room.owner not in self._failures:
                        self._rooms.advertise(room, radvd.plan(wanted["router"][id_], wanted["network"], room))
                continue
            spots["network", id_] = Spot(room.namespace, METADATA, 80)
            with self._failures.of(room.owner):
                if room.owner not in self._failures:
                    plan = dnsmasq.plan(wanted["dhcp"][id_], wanted["network"][id_], room, self._lease)
                    self._rooms.serve(room, plan)
        failed = self._metadata.serve(spots)
        for (kind, id_), error in failed.items():
            self._failures.add(("dhcp" if kind == "network" else kind, id_), error)
        self._watch.attend(self._rooms.processes().values())
        self._serving = {
            "dhcp": not any(room.owner in self._failures for room in rooms if room.owner[0] == "dhcp"),
            "l3": not any(room.owner in self._failures for room in rooms if room.owner[0] == "router"),
            "metadata": not failed and (not spots or self._metadata.alive()),
        }

    def _applied(self, wanted: Wanted, flows: FlowSet | None, rooms: set[tuple[str, str]]) -> Applied:
        def is_true(document: Document) -> bool:
            owner = (document.kind, document.id)
            if owner in self._failures or (flows is None and document.kind in _NEED_FLOWS):
                return False
            roomless = document.kind != "port" and owner not in rooms
            return document.kind not in _NEED_PLUGS or roomless or bool(flows and owner in flows.wired)

        applied: Applied = {}
        for kind in KINDS:
            true = {id_: document.version for id_, document in wanted.get(kind, {}).items() if is_true(document)}
            if true:
                applied[kind] = true
        return applied
