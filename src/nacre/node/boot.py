"""Guests after a boot of the host.

A boot is told from the last one by the kernel's boot id and the start of process 1: a sandboxed host has a process 1 of its own, and
when that dies its guests die too. After a boot a guest starts only if a document fetched since names this host for it and wants it
running; what was wanted before the boot may have been moved elsewhere meanwhile. A guest that is wanted here and off, has its disk here
and is not known to libvirt (its cloud was restored from a backup) is defined again. A start that fails (the wires or libvirtd are not
ready yet) is tried again for a minute, each time by the newest documents. The boot is marked as dealt with when every such guest was
started, is not wanted any more, or failed for good. Until then the agent does not tell which guests it sees: that they are off after a
boot is nobody's wish.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from nacre.node.calls import Calls
from nacre.node.deadline import Deadline
from nacre.node.fences import write_file
from nacre.node.hypervisor.driver import Hypervisor, SeenServer, ServerSpec, Wanted
from nacre.node.wires.driver import Document

log = logging.getLogger(__name__)
_LIMIT = 120.0
_PATIENCE = 60.0
_PAUSE = 1.0


def this_boot() -> str:
    """Differs for every start of this host."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    started = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
    return f"{kernel} {started}"


def to_start(host: str, documents: Mapping[str, Document], seen: Mapping[str, SeenServer]) -> dict[str, Wanted]:
    """Ids of the servers that should run on `host` and do not, or should be there, off, and are not."""
    found: dict[str, Wanted] = {}
    for server_id, document in documents.items():
        if document.body.get("host") != host:
            continue
        if document.body.get("power") == "running":
            if server_id not in seen or seen[server_id].power not in ("running", "paused"):
                found[server_id] = "running"
        elif server_id not in seen:
            found[server_id] = "shutdown"
    return found


class AfterBoot:
    """`mark` is the file that names the last boot that was dealt with; `rang()` is called when this one is."""

    def __init__(
        self, host: str, mark: Path, hypervisor: Hypervisor, calls: Calls, rang: Callable[[], None], boot: str | None = None
    ) -> None:
        self.host, self.mark, self.hypervisor, self.calls, self.rang = host, mark, hypervisor, calls, rang
        self.boot = boot or this_boot()
        self.over = mark.exists() and mark.read_text() == self.boot
        self._lock = threading.Lock()
        self._documents: Mapping[str, Document] = {}
        self._begun = False
        self._starting: set[str] = set()
        self._until = 0.0

    def fetched(self, documents: Mapping[str, Document]) -> None:
        """The `server` documents as the control plane has them now."""
        if self.over:
            return
        self._documents = documents
        if not self._begun:
            self._begun = True
            self._begin()

    def _begin(self) -> None:
        try:
            wanted = to_start(self.host, self._documents, self.hypervisor.servers())
        except Exception as error:
            log.warning("%s: guests cannot be started after the boot yet: %s", self.host, error)
            _later(self._begin)
            return
        self._until = time.monotonic() + _PATIENCE
        self._starting = set(wanted)
        if not wanted:
            self._done()
        for server_id in wanted:
            self._enqueue(server_id)

    def _enqueue(self, server_id: str) -> None:
        self.calls.enqueue(server_id, lambda: self._start(server_id))

    def _start(self, server_id: str) -> None:
        document = self._documents.get(server_id)
        power = to_start(self.host, {server_id: document}, {}).get(server_id) if document is not None else None
        if document is not None and power is not None:
            try:
                seen = self.hypervisor.start_again(msgspec.convert(document.body["spec"], ServerSpec), power, Deadline(_LIMIT))
                log.info("after the boot: server %s %s", server_id, "has no disk here" if seen is None else seen.power)
            except Exception as error:
                if time.monotonic() < self._until:
                    log.warning("after the boot: server %s does not start yet: %s", server_id, error)
                    _later(lambda: self._enqueue(server_id))
                    return
                log.exception("after the boot: server %s does not start", server_id)
        with self._lock:
            self._starting.discard(server_id)
            last = not self._starting
        if last:
            self._done()

    def _done(self) -> None:
        try:
            write_file(self.mark, self.boot.encode(), sync=True)
        except OSError as error:
            log.warning("that the boot is dealt with cannot be kept yet: %s", error)
            _later(self._done)
            return
        self.over = True
        self.rang()


def _later(work: Callable[[], None]) -> None:
    timer = threading.Timer(_PAUSE, work)
    timer.daemon = True
    timer.start()
