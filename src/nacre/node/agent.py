"""The agent of one machine: `nacre node`.

Plain threads around one Source (node/feed.py); a process that plays many hosts has one pool for the calls of all:

* *feed*: a long poll that brings documents and calls. When the control plane is down it knocks again for ever, slower and slower;
  guests, wires and calls under way go on. Each port that is made somewhere changes what every host of its network knows of the others:
  after an answer that says only such things it takes a breath, so that many of them come at once.
* *calls* (node/calls.py): what was asked once, in the pool.
* *reconcile*: the wires are told the whole of what is wanted whenever documents changed or the driver saw something happen; what could
  not be made true is tried again. It takes no input beyond "look again", so any number of rings is one run.
* *look*: what the hypervisor has, every ten seconds or when a guest changed; apart from the reports, because libvirtd may hang.
* *report*: when there is a result, something new was seen, a daemon began or ceased to hang, or a document became true, and as a sign
  of life. Results are on disk and repeated until answered; `applied` tells what changed since the last answered report, and everything
  after a failure, a new epoch or a report that did not count because it was not the next one (a late one was taken instead, or this
  agent has just started).

Ending the agent, in whatever way, ends no guest and takes no wire away. After a boot of the host (node/boot.py) guests start again
only from documents fetched since, and until that is done it is not told which guests run.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nacre.node import care
from nacre.node.boot import AfterBoot
from nacre.node.calls import Calls, Pool
from nacre.node.documents import Documents
from nacre.node.feed import Source
from nacre.node.fences import Fences, Results
from nacre.node.hypervisor.driver import Hypervisor
from nacre.node.verbs import verbs
from nacre.node.wires.driver import KINDS, Applied, ControlPlaneDown, Wanted, Wires

log = logging.getLogger(__name__)
WAIT = 25.0
HEARTBEAT = 10.0
_EVERYTHING_AGAIN = 30
_RETRY = (1.0, 30.0)
_LOOK_AGAIN = 300.0
_TEND = 2400.0
_TROUBLE = 3.0
_OF_OTHERS, _BREATH = frozenset(("forwarding", "address_set")), 0.2
_CALLS = Pool(8)


class Bell:
    """Rings are counted as one until somebody listened."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self, *_: object) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """True if it rang; it is silent again."""
        rang = self._event.wait(max(0.0, seconds))
        self._event.clear()
        return rang


class Agent:
    """One node named `host`; `folder` keeps what it must not forget; `address` is where other hosts' tunnels reach it."""

    def __init__(
        self, host: str, folder: Path, source: Source, hypervisor: Hypervisor, wires: Wires, *, address: str | None = None
    ) -> None:
        self.address = address
        self.host, self.source, self.hypervisor, self.wires = host, source, hypervisor, wires
        self.documents = Documents(folder / "documents")
        self.fences = Fences(folder / "fences")
        self._to_tell, self._to_wire, self._to_look, self._ended = Bell(), Bell(), Bell(), threading.Event()
        results = Results(folder / "results")
        table = {**verbs(hypervisor, self.fences, source.console, source.put_image),
                 **care.verbs(hypervisor, wires, self.documents, self._to_wire.ring)}  # fmt: skip
        self.calls = Calls(table, self.fences, results, _CALLS, self._to_tell.ring)
        self.after_boot = AfterBoot(host, folder / "boot", hypervisor, self.calls, self._to_look.ring)
        self._applied: tuple[int, Applied] = (0, {})
        self._seen: dict[str, Any] = {}
        self._fetched = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Takes over what runs here and begins to work."""
        self.hypervisor.recover()
        try:
            self.wires.recover()
        except Exception:
            log.exception("%s: the wires cannot be taken over yet", self.host)
        self.hypervisor.watch(self._to_look.ring)
        self.wires.watch(self._to_wire.ring)
        if self.documents.epoch:
            self._to_wire.ring()
        for loop in (self._feed, self._reconcile, self._look, self._report, self._tend):
            name = f"{self.host}:{loop.__name__.strip('_')}"
            self._threads.append(threading.Thread(target=self._keep, args=(name, loop), name=name, daemon=True))
            self._threads[-1].start()

    def _keep(self, name: str, loop: Callable[[], None]) -> None:
        """An error that a loop knows nothing of ends its round, never the loop."""
        while not self._ended.is_set():
            try:
                loop()
            except Exception:
                log.exception("%s failed and begins anew", name)
                self._ended.wait(1.0)

    def stop(self) -> None:
        """Ends the loops; calls under way are left to come again."""
        self._ended.set()
        self.calls.close()
        for bell in (self._to_tell, self._to_wire, self._to_look):
            bell.ring()
        self.source.close()
        for thread in self._threads:
            thread.join(5)
        self.wires.close()
        self.hypervisor.close()

    def _feed(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            asked = self.documents.index()
            wait = WAIT if self._fetched else 0.0
            try:
                answer = self.source.feed(asked, epoch=self.documents.epoch, calls=self.calls.open(), wait=wait)
                if answer.epoch < self.documents.epoch:
                    raise ControlPlaneDown(f"it is of epoch {answer.epoch}, this node has followed epoch {self.documents.epoch}")
                before = self.documents.following()
                changed = self.documents.take(asked, answer)
                news = before != self.documents.following()
                self.after_boot.fetched(self.documents.wanted().get("server", {}))
                taken = self.calls.accept(answer.calls)
            except Exception as error:
                pause = self._knock_later(pause, error)
                continue
            if not self._fetched or news or changed & set(KINDS):
                self._to_wire.ring()
            if "server" in changed or not self._fetched:
                self._to_look.ring()
                self._to_tell.ring()
            self._fetched = True
            of_others = bool(changed) and changed <= _OF_OTHERS and not answer.calls
            pause = 1.0 if not taken else _BREATH if of_others else 0.0 if changed or answer.calls or news or not wait else 0.2

    def _knock_later(self, pause: float, error: Exception) -> float:
        if not self._ended.is_set() and pause <= 0.2:
            known = isinstance(error, ControlPlaneDown)
            log.warning("%s: the control plane does not answer: %s", self.host, error, exc_info=None if known else error)
        return min(5.0, max(0.2, pause) * 2) * random.uniform(0.7, 1.0)

    def _reconcile(self) -> None:
        pause = _LOOK_AGAIN
        while True:
            self._to_wire.wait(pause)
            if self._ended.is_set():
                return
            if not self.documents.epoch:
                continue
            epoch, wanted = self.documents.following(), self.documents.wanted()
            try:
                applied = self.wires.apply(wanted)
            except Exception:
                log.exception("%s: wiring failed", self.host)
                applied = {}
            else:
                told = whole(wanted, applied)
                if (epoch, told) != self._applied:
                    self._applied = (epoch, told)
                    self._to_tell.ring()
            missing = any(key not in applied.get(kind, {}) for kind in KINDS for key in wanted.get(kind, {}))
            pause = min(_RETRY[1], max(_RETRY[0], pause * 2 if pause < _LOOK_AGAIN else 0)) if missing else _LOOK_AGAIN

    def _look(self) -> None:
        while not self._ended.is_set():
            self._seen = self._see()
            self._to_tell.ring()
            self._to_look.wait(HEARTBEAT)

    def _tend(self) -> None:
        """What lies ready of images and is not needed goes; not before the documents are known that need it."""
        while not self._ended.wait(_TEND):
            if not (self._fetched and self.after_boot.over):
                continue
            specs = [document.body["spec"] for document in self.documents.wanted().get("server", {}).values()]
            images = {str(part["image_id"]) for spec in specs for part in (spec.get("image"), spec.get("rescue")) if part}
            try:
                self.hypervisor.prune(images)
            except Exception as error:
                log.warning("%s: the image cache cannot be tended: %s", self.host, error)

    def _report(self) -> None:
        told: Applied = {}
        told_seen: dict[str, Any] = {}
        told_trouble: dict[str, str] | None = None
        epoch, rounds, beat = 0, 0, 0.0
        while not self._ended.is_set():
            expires = self.calls.expire()
            if epoch != self.documents.following() or rounds >= _EVERYTHING_AGAIN:
                told, epoch, rounds = {}, self.documents.following(), 0
            applied, results, seen = self._all_applied(), self.calls.results.all(), self._seen
            report: dict[str, Any] = {"epoch": epoch, "results": results, "applied": difference(applied, told)}
            trouble = self._trouble()
            if seen is not told_seen:
                report["seen"] = {**seen, "trouble": trouble}
            elif trouble != told_trouble:  # what was seen of guests is old by now
                report["seen"] = {**{part: seen[part] for part in ("address", "resources") if part in seen}, "agents": dict(self.wires.agents()),
                                  "trouble": trouble}  # fmt: skip
            try:
                if "seen" in report or results or report["applied"] or time.monotonic() >= beat:
                    counted = self.source.report(report)
                    self.calls.acknowledge(result.id for result in results)
                    if not counted:
                        told, told_seen, told_trouble = {}, {}, None
                        self._ended.wait(random.uniform(0.05, 0.2))
                        continue
                    rounds += "seen" in report
                    told, told_seen, told_trouble, beat = applied, seen, trouble, time.monotonic() + 1.5 * HEARTBEAT
            except Exception as error:
                if not isinstance(error, ControlPlaneDown):
                    log.exception("%s: the report failed", self.host)
                told, told_seen, told_trouble = {}, {}, None
                self._ended.wait(random.uniform(0.5, 1.5))
                continue
            self._to_tell.wait(min(expires, beat - time.monotonic(), _TROUBLE))

    def _trouble(self) -> dict[str, str]:
        return {**self.hypervisor.trouble(), **self.wires.trouble()}

    def _all_applied(self) -> Applied:
        epoch, applied = self._applied
        if not epoch or epoch != self.documents.following():
            return {}
        servers = {key: document.version for key, document in self.documents.wanted().get("server", {}).items()}
        return {**applied, **({"server": servers} if servers else {})}

    def _see(self) -> dict[str, Any]:
        """What can be seen now; a part that cannot be seen is left out, it is not "nothing"."""
        seen: dict[str, Any] = {"agents": dict(self.wires.agents())}
        wanted = self.documents.wanted()
        if self.address is not None:
            seen["address"] = self.address
        try:
            seen["resources"] = self.hypervisor.resources()
            servers = self.hypervisor.servers()
        except Exception as error:
            log.warning("%s: the hypervisor cannot be seen: %s", self.host, error)
        else:
            if self.after_boot.over:
                seen["servers"] = servers
            if self._fetched:
                seen["unknown"] = {"servers": sorted(servers.keys() - wanted.get("server", {}).keys())}
        return seen


def whole(wanted: Wanted, applied: Applied) -> Applied:
    """What is true of every document that wires answer for: its version, or 0."""
    return {kind: {key: applied.get(kind, {}).get(key, 0) for key in wanted[kind]} for kind in KINDS if wanted.get(kind)}


def difference(applied: Mapping[str, Mapping[str, int]], told: Mapping[str, Mapping[str, int]]) -> Applied:
    """The part of `applied` that `told` does not say."""
    found = {
        kind: {key: version for key, version in versions.items() if told.get(kind, {}).get(key) != version}
        for kind, versions in applied.items()
    }
    return {kind: versions for kind, versions in found.items() if versions}
