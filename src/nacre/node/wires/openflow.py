"""Flows on the switch's bridges: wanted as a set, changed by difference, in bundles (all of a bridge's changes at once or none).

What was put is remembered, not read back: a bridge has many thousand flows and only we write the ones with our cookie. The memory is
void when the switch restarts, which `SwitchSession` sees as the end of a connection to it, and when a bridge is made anew. Then, and
at the start of the agent, everything wanted is put under a cookie of a new generation and in the same bundle older generations go:
flows that were right are replaced by themselves, so nothing in flight is disturbed. Until vswitchd's revalidators have run (it wakes them
by itself, some ms) packets of a stream that was let through may still pass.
"""

import contextlib
import logging
import re
import secrets
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from nacre.node.commands import CommandFailed, run

log = logging.getLogger(__name__)

_RUN = Path("/run/openvswitch")
OURS = 0x6E61637265 << 24
MASK = 0xFFFFFFFFFF << 24
Owner = tuple[str, str]
"""The document (kind, id) that a flow is for."""
PROBE = 3.0
"""Seconds of silence after which vswitchd is asked, and again after which it hangs."""
BASE: Owner = ("host", "")
"""The owner of what every host has."""


class Key(NamedTuple):
    table: int
    priority: int
    match: str

    def text(self) -> str:
        return f"table={self.table},priority={self.priority}" + (f",{self.match}" if self.match else "")


class Entry(NamedTuple):
    actions: str
    owner: Owner


class Flows:
    """The wanted flows of one bridge while they are being compiled. `conjoin` collects the conjunctions of equal matches."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._conjunctions: dict[Key, tuple[list[str], Owner]] = {}

    def add(self, owner: Owner, table: int, priority: int, match: str, actions: str) -> None:
        self._entries[Key(table, priority, match)] = Entry(actions, owner)

    def conjoin(self, owner: Owner, table: int, priority: int, match: str, clause: str) -> None:
        clauses = self._conjunctions.setdefault(Key(table, priority, match), ([], owner))[0]
        if clause not in clauses:
            clauses.append(clause)

    def merge(self, other: "Flows") -> None:
        self._entries.update(other._entries)
        for key, (clauses, owner) in other._conjunctions.items():
            for clause in clauses:
                self.conjoin(owner, key.table, key.priority, key.match, clause)

    def entries(self) -> dict[Key, Entry]:
        conjoined = {key: Entry(",".join(sorted(clauses)), owner) for key, (clauses, owner) in self._conjunctions.items()}
        return self._entries | conjoined


def difference(put: Mapping[Key, str], wanted: Mapping[Key, Entry], cookie: int) -> list[str]:
    """The lines of a bundle that turns `put` into `wanted`; removals first."""
    gone = [f"delete_strict {key.text()}" for key in put if key not in wanted]
    new = [f"add cookie={cookie:#x},{key.text()},actions={entry.actions}" for key, entry in wanted.items() if put.get(key) != entry.actions]
    return gone + new


class SwitchSession:
    """An OpenFlow connection to vswitchd held open only to see it end, or be silent: no pid file, and an echo now and then."""

    def __init__(self, bridge: str) -> None:
        """Raises OSError when vswitchd does not serve the bridge."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(2)
        try:
            self.socket.connect(str(_RUN / f"{bridge}.mgmt"))
            self.socket.sendall(struct.pack("!BBHI", 4, 0, 8, 1))
        except OSError:
            self.socket.close()
            raise
        self._pending = b""
        self._heard = time.monotonic()
        self._asked: float | None = None

    def probe(self) -> None:
        """Ask for an echo when nothing came for a while."""
        now = time.monotonic()
        if self._asked is None and now - self._heard >= PROBE:
            self._asked = now
            with contextlib.suppress(OSError):
                self.socket.sendall(struct.pack("!BBHI", 4, 2, 8, 2))

    @property
    def hangs(self) -> bool:
        """Whether vswitchd owes an echo for long."""
        return self._asked is not None and time.monotonic() - self._asked >= PROBE

    def read(self) -> bool:
        """Take what came, answering echo requests; False at the end of the connection."""
        with contextlib.suppress(OSError):
            piece = self.socket.recv(65536)
            self._heard, self._asked = time.monotonic(), None
            self._pending += piece
            while len(self._pending) >= 8:
                version, kind, length, xid = struct.unpack("!BBHI", self._pending[:8])
                if len(self._pending) < length or length < 8:
                    break
                message, self._pending = self._pending[:length], self._pending[length:]
                if kind == 2:
                    self.socket.sendall(struct.pack("!BBHI", version, 3, length, xid) + message[8:])
            return bool(piece)
        return False

    def close(self) -> None:
        self.socket.close()


class FlowTables:
    """What we put where. One thread."""

    def __init__(self) -> None:
        self._put: dict[str, tuple[object, dict[Key, str]]] = {}
        self._cookie = OURS | secrets.randbits(24)

    def ensure(self, bridge: str, identity: object, wanted: Mapping[Key, Entry]) -> set[Owner]:
        """Make the flows of `bridge` be `wanted`. `identity` differs when the bridge was made anew or the switch restarted.
        Returns the owners whose flows the switch refused; raises CommandFailed when it takes nothing at all."""
        known, put = self._put.get(bridge, (None, {}))
        old: list[str] = []
        if known != identity:
            put, old = {}, [f"delete cookie={cookie:#x}/-1" for cookie in self._strangers(bridge)]
        lines = difference(put, wanted, self._cookie) + old
        refused: set[Owner] = set()
        try:
            _bundle(bridge, lines)
            put = {key: entry.actions for key, entry in wanted.items()}
        except CommandFailed as error:
            if error.status is None:
                raise
            log.error("bridge %s refused %d changes, trying them one document at a time: %s", bridge, len(lines), error.stderr)
            put, refused = self._piecemeal(bridge, put, wanted)
            _bundle(bridge, old)
        self._put[bridge] = (identity, put)
        return refused

    def missing(self) -> dict[str, int]:
        """bridge -> how many of the flows that we put are not there. Raises CommandFailed."""
        found = {}
        for bridge, (_, put) in list(self._put.items()):
            text = run(["ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "dump-flows", bridge, f"cookie={self._cookie:#x}/-1"])
            there = sum("actions=" in line for line in text.splitlines())
            if there != len(put):
                found[bridge] = len(put) - there
        return found

    def forget(self) -> None:
        self._put.clear()

    def _strangers(self, bridge: str) -> list[int]:
        """Cookies of our older generations on the bridge."""
        text = run(["ovs-ofctl", "-O", "OpenFlow14", "dump-flows", bridge, f"cookie={OURS:#x}/{MASK:#x}"])
        return sorted({int(cookie, 16) for cookie in re.findall(r"cookie=(0x[0-9a-f]+)", text)} - {self._cookie})

    def _piecemeal(self, bridge: str, put: Mapping[Key, str], wanted: Mapping[Key, Entry]) -> tuple[dict[Key, str], set[Owner]]:
        """What is put now, and who was refused; the base's flows come first and must be taken."""
        done, refused = {key: actions for key, actions in put.items() if key in wanted}, set()
        _bundle(bridge, difference(put, {key: Entry(actions, BASE) for key, actions in done.items()}, self._cookie))
        for owner in sorted({entry.owner for entry in wanted.values()}, key=lambda owner: (owner != BASE, owner)):
            mine = {key: entry for key, entry in wanted.items() if entry.owner == owner and done.get(key) != entry.actions}
            try:
                _bundle(bridge, difference({}, mine, self._cookie))
                done.update({key: entry.actions for key, entry in mine.items()})
            except CommandFailed as error:
                if owner == BASE or error.status is None:
                    raise
                log.error("bridge %s refused the flows of %s %s: %s", bridge, *owner, error.stderr)
                refused.add(owner)
        return done, refused


def _bundle(bridge: str, lines: Iterable[str]) -> None:
    text = "\n".join(lines)
    if text:
        run(["ovs-ofctl", "-O", "OpenFlow14", "--bundle", "add-flows", bridge, "-"], stdin=text + "\n", timeout=30)
