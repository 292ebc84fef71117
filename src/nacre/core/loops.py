"""What must stay true. A loop takes no input: it looks at the database, decides by a pure plan, and acts; it runs by the clock and may
be woken by a bell, never told what changed, or the path after a restart would rot. Each runs under a lease, so that of several workers
one runs it; running twice must be harmless all the same.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nacre.core import db, ids, leases, log
from nacre.core.caller import System
from nacre.core.cloud import Cloud

_log = logging.getLogger("nacre.loops")


@dataclass(frozen=True)
class Loop:
    """`run(cloud, who)` every `every` seconds, or at once when `topic` rings."""

    name: str
    every: float
    run: Callable[[Cloud, System], None]
    topic: str = ""


class Loops:
    """A worker's loops, on one thread."""

    def __init__(self, cloud: Cloud, loops: Iterable[Loop], owner: str) -> None:
        self.cloud, self.loops, self.owner = cloud, tuple(loops), owner
        self._woken = {loop.name for loop in self.loops}
        self._wake, self._stop = threading.Event(), threading.Event()
        for loop in self.loops:
            if loop.topic:
                cloud.bells.listen(loop.topic, lambda name=loop.name: self._ring(name))  # type: ignore[misc]
        self._thread = threading.Thread(target=self._forever, name="loops", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def _ring(self, name: str) -> None:
        self._woken.add(name)
        self._wake.set()

    def _forever(self) -> None:
        due = {loop.name: 0.0 for loop in self.loops}
        while not self._stop.is_set():
            self._wake.clear()
            for loop in self.loops:
                if self._stop.is_set():
                    return
                if time.monotonic() >= due[loop.name] or loop.name in self._woken:
                    self._woken.discard(loop.name)
                    self.run_once(loop)
                    due[loop.name] = time.monotonic() + loop.every
            if not self._woken and due:
                self._wake.wait(max(0.05, min(due.values()) - time.monotonic()))

    def run_once(self, loop: Loop) -> None:
        who = System(ids.request_id())
        log.request_id.set(who.request_id)
        try:
            if leases.take(self.cloud.db, who, f"loop:{loop.name}", self.owner, max(30.0, loop.every * 3)):
                loop.run(self.cloud, who)
        except db.Unreachable:
            pass  # said once, by the database's own log line
        except Exception:
            _log.exception("loop %s failed, it runs again in %s s", loop.name, loop.every)
