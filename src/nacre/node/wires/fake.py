"""Wires in memory, keeping the contract: for tests and for thousands of simulated hosts.

With a `folder` each document that is true is kept in a file of its own, made and taken away one by one, so that what an agent that is
killed has wired by then is found by the next one, as with the real ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nacre.node.fences import file_name, write_file
from nacre.node.wires.driver import KINDS, Applied, Document, Wanted


class FakeWires:
    """`taps` names the ports whose tap is there; None means that of every port. A document put in `broken` as (kind, id) never applies.
    `strays` (name -> kind), `stray_taps` (name -> port id) and `others` (name -> kind) are what a survey finds."""

    def __init__(self, taps: Iterable[str] | None = None, *, folder: Path | None = None) -> None:
        self.folder = folder
        self.taps = None if taps is None else set(taps)
        self.broken: set[tuple[str, str]] = set()
        self.alive = {"openvswitch": True, "dhcp": True, "l3": True, "metadata": True}
        self.made: dict[str, dict[str, Document]] = {}
        self.recovered = False
        self.closed = False
        self.strays: dict[str, str] = {}
        self.others: dict[str, str] = {}
        self.stray_taps: dict[str, str] = {}
        self.hung: dict[str, str] = {}
        self._changed: Callable[[], None] = lambda: None

    def trouble(self) -> Mapping[str, str]:
        return dict(self.hung)

    def recover(self) -> None:
        self.recovered = True
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("*.json"):
                document = msgspec.json.decode(path.read_bytes(), type=Document)
                self.made.setdefault(document.kind, {})[document.id] = document

    def apply(self, wanted: Wanted) -> Applied:
        possible = {kind: {id_: document for id_, document in wanted.get(kind, {}).items() if self._possible(document)} for kind in KINDS}
        for kind in KINDS:
            there = self.made.setdefault(kind, {})
            for id_ in there.keys() - possible[kind].keys():
                self._unmake(there[id_])
            for id_, document in possible[kind].items():
                if there.get(id_) != document:
                    self._make(document)
        return {kind: {id_: document.version for id_, document in made.items()} for kind, made in possible.items() if made}

    def _make(self, document: Document) -> None:
        if self.folder is not None:
            write_file(self.folder / f"{document.kind}-{file_name(document.id)}.json", msgspec.json.encode(document), sync=False)
        self.made[document.kind][document.id] = document

    def _unmake(self, document: Document) -> None:
        if self.folder is not None:
            (self.folder / f"{document.kind}-{file_name(document.id)}.json").unlink(missing_ok=True)
        del self.made[document.kind][document.id]

    def _possible(self, document: Document) -> bool:
        if (document.kind, document.id) in self.broken:
            return False
        return document.kind != "port" or self.taps is None or document.id in self.taps

    def watch(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def plug(self, port_id: str) -> None:
        """The hypervisor made a tap."""
        if self.taps is None:
            self.taps = set(self.made.get("port", {}))
        self.taps.add(port_id)
        self._changed()

    def unplug(self, port_id: str) -> None:
        if self.taps is None:
            self.taps = set(self.made.get("port", {}))
        self.taps.discard(port_id)
        self._changed()

    def survey(self, wanted: Wanted) -> dict[str, Any]:
        missing = [(kind, id_) for kind in KINDS for id_ in wanted.get(kind, {}) if id_ not in self.made.get(kind, {})]
        found = [{"kind": "not-true", "name": f"{kind} {id_}", "cause": "it is not wired"} for kind, id_ in missing]
        found += [{"kind": "not-wanted", "name": f"{kind} {id_}", "cause": "nobody wants it"}
                  for kind, made in self.made.items() for id_ in made if id_ not in wanted.get(kind, {})]  # fmt: skip
        found += [{"kind": kind, "name": name, "cause": "nobody wants it"} for name, kind in sorted(self.strays.items())]
        return {"found": found, "taps": [{"name": name, "port_id": id_} for name, id_ in sorted(self.stray_taps.items())],
                "others": [{"kind": kind, "name": name} for name, kind in sorted(self.others.items())]}  # fmt: skip

    def repair(self, wanted: Wanted, taps: Sequence[str]) -> None:
        self.strays.clear()
        for name in taps:
            self.stray_taps.pop(name, None)
        self.apply(wanted)

    def agents(self) -> Mapping[str, bool]:
        return dict(self.alive)

    def close(self) -> None:
        self.closed = True
