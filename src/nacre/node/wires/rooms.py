"""Rooms made, furnished and taken away; what serves in them.

A room is looked at when what is wanted of it changes, when it was made anew, and once a minute; otherwise it costs nothing.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nacre.node import trouble
from nacre.node.commands import CommandFailed, run
from nacre.node.wires import netns
from nacre.node.wires.daemons import Daemon
from nacre.node.wires.dnsmasq import Dnsmasq, Plan
from nacre.node.wires.failures import Failures
from nacre.node.wires.layout import Room
from nacre.node.wires.radvd import Radvd

log = logging.getLogger(__name__)
_LOOK_AGAIN = 60.0
_ROUNDS = 3
_BUDGET = 0.1


class Rooms:
    """`served`: where dnsmasq's files are, one folder a network; beside it `ra` with those of radvd, one folder a router."""

    def __init__(self, served: Path) -> None:
        self._served, self._advertised = served, served.with_name("ra")
        self._done: dict[str, tuple[Room, float]] = {}
        self._pids: dict[str, int] = {}

    def lay(self, rooms: Iterable[Room], failures: Failures, *, offload: bool) -> None:
        """Namespaces and veth pairs that are missing."""
        present, devices = netns.rooms(), netns.devices()
        for room in rooms:
            with failures.of(room.owner):
                fresh = room.namespace not in present
                if fresh or room.namespace not in self._done:
                    self._done.pop(room.namespace, None)
                    netns.make(room, present)
                if fresh:
                    netns.remove(leg.name for leg in room.legs)
                    devices -= {leg.name for leg in room.legs}
                missing = [leg for leg in room.legs if leg.name not in devices]
                if missing:
                    self._done.pop(room.namespace, None)
                    netns.lay(room.namespace, missing)
                if room.namespace not in self._done:
                    netns.ready(room, offload=offload)

    def furnish(self, room: Room) -> None:
        """Addresses, routes and rules. Raises CommandFailed, OSError."""
        known, when = self._done.get(room.namespace, (None, 0.0))
        if known == room and time.monotonic() - when < _LOOK_AGAIN:
            return
        self._done.pop(room.namespace, None)
        if room.nft and (known is None or known.nft != room.nft):
            netns.inside(room.namespace, lambda: run(["nft", "-f", "-"], stdin=room.nft))
        announce = self._arrange(room)
        gone = set(known.floating) - set(room.floating) if known else set()
        macs = {leg.name: leg.mac for leg in room.legs}

        def tell_neighbours() -> None:
            for device, address in announce:
                netns.announce(device, address, macs[device])
            for floating, _ in sorted(gone):
                netns.drop_connections(floating)

        if announce or gone:
            netns.inside(room.namespace, tell_neighbours)
        self._done[room.namespace] = (room, time.monotonic())

    def _arrange(self, room: Room) -> list[tuple[str, str]]:
        """Links, addresses and routes; returns the (device, address) pairs that are new."""
        announce: list[tuple[str, str]] = []
        for _ in range(_ROUNDS):
            changes = netns.plan(room, netns.look(room.namespace))
            netns.batch(room.namespace, changes.batch)
            try:
                netns.batch(room.namespace, changes.attempts, force=True)
            except CommandFailed as error:
                log.warning("%s: a route cannot be used now: %s", room.namespace, error.stderr)
            announce += [pair for pair in changes.announce if pair not in announce]
            if not any(" del" in line for line in changes.batch):
                break
        return announce

    def serve(self, room: Room, wanted: Plan) -> None:
        """DHCP in a room. Raises CommandFailed, OSError."""
        self._pids.pop(room.namespace, None)
        server = Dnsmasq(self._served / room.owner[1], room.namespace)
        server.ensure(wanted)
        self._expect(room, server)

    def advertise(self, room: Room, wanted: str) -> None:
        """Router advertisements in a room, none for an empty text. Raises CommandFailed, OSError."""
        self._pids.pop(room.namespace, None)
        server = Radvd(self._advertised / room.owner[1], room.namespace)
        if wanted:
            server.ensure(wanted)
            self._expect(room, server)
        elif server.folder.is_dir():
            server.stop()
            shutil.rmtree(server.folder)

    def _expect(self, room: Room, server: Daemon) -> None:
        pid = server.pid()
        if pid is None:
            raise OSError(f"{type(server).__name__.lower()} does not run; its log is {server.folder}/log")
        self._pids[room.namespace] = pid

    def processes(self) -> Mapping[str, int]:
        """Room -> pid of what serves in it."""
        return dict(self._pids)

    def stopped(self) -> dict[str, str]:
        """Room -> dnsmasq or radvd, of servers that a signal keeps from serving."""
        found = {room: pid for room, pid in self.processes().items() if trouble.stopped(pid)}
        return {room: "dnsmasq" if room.startswith("qdhcp-") else "radvd" for room in found}

    def forget(self) -> None:
        """Every room is looked at again with the next `furnish`."""
        self._done.clear()

    def servers(self) -> list[Daemon]:
        """What serves, or should, by the folders that are there."""
        return [server for _, server in self._servers()]

    def strangers(self) -> dict[int, str]:
        """pid -> room of servers that were started from our folders and that no folder knows."""
        known = {server.pid() for server in self.servers()}
        marks = {f"--pid-file={self._served}/".encode(): "qdhcp-", f"--pidfile={self._advertised}/".encode(): "qrouter-"}
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                for argument in path.read_bytes().split(b"\0"):
                    for mark, prefix in marks.items():
                        if argument.startswith(mark) and int(path.parent.name) not in known:
                            found[int(path.parent.name)] = prefix + argument.removeprefix(mark).partition(b"/")[0].decode(errors="replace")
        return found

    def release(self, kept: Sequence[str]) -> None:
        """Those whose rooms are not in `kept` are not expected to live on."""
        self._pids = {namespace: pid for namespace, pid in self._pids.items() if namespace in kept}

    def _servers(self) -> Iterator[tuple[str, Daemon]]:
        for kind, folders in (("dhcp", self._served), ("router", self._advertised)):
            for folder in folders.iterdir() if folders.is_dir() else ():
                yield kind, Dnsmasq(folder, f"qdhcp-{folder.name}") if kind == "dhcp" else Radvd(folder, f"qrouter-{folder.name}")

    def clear(self, kept: Sequence[str], failures: Failures) -> bool:
        """Take away rooms of ours that are not in `kept`, and their servers, for a short while; False when some are left for later."""
        end = time.monotonic() + _BUDGET
        for kind, server in self._servers():
            if server.namespace not in kept:
                with failures.of((kind, server.folder.name)):
                    server.stop()
                    shutil.rmtree(server.folder)
                if time.monotonic() > end:
                    return False
        for namespace in sorted(netns.rooms() - set(kept)):
            self._done.pop(namespace, None)
            with failures.of(("room", namespace)):
                netns.destroy(namespace)
            if time.monotonic() > end:
                return False
        return True
