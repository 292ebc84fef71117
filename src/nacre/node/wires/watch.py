"""Notices what happens to wires behind our back, and rings.

One thread waits on the connection to vswitchd (its end: the switch restarted and lost its flows; its silence: it hangs), on the processes
that serve rooms (pidfds) and on a pipe by which the driver wakes it. While vswitchd is away it dials twice a second. The switch's
database rings by itself. Ringing does nothing but call `changed`; whoever applies looks for himself.
"""

import contextlib
import logging
import os
import selectors
import threading
from collections.abc import Callable, Iterable
from typing import Any

from nacre.node.wires.openflow import PROBE, SwitchSession

log = logging.getLogger(__name__)
_DIAL_PAUSE = 0.5


class Watch:
    def __init__(self, bridge: str) -> None:
        self._bridge = bridge
        self._changed: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._session: SwitchSession | None = None
        self._processes: dict[int, int] = {}
        self._closed = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="wires watch", daemon=True)

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._thread.start()

    def ring(self) -> None:
        self._changed()

    def session(self) -> SwitchSession | None:
        """The present life of vswitchd, None while it serves no bridge or hangs."""
        with self._lock:
            if self._session is None and not self._closed:
                with contextlib.suppress(OSError):
                    self._session = SwitchSession(self._bridge)
                    self._wake()
            return self._session if self._session and not self._session.hangs else None

    def attend(self, pids: Iterable[int]) -> None:
        """Ring when one of these processes ends; those named before are forgotten."""
        with self._lock:
            wanted = set(pids)
            for pid in set(self._processes) - wanted:
                os.close(self._processes.pop(pid))
            for pid in wanted - set(self._processes):
                with contextlib.suppress(OSError):
                    self._processes[pid] = os.pidfd_open(pid)
            self._wake()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._wake()
        if self._thread.is_alive():
            self._thread.join(2)
        self.attend(())
        if self._session:
            self._session.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    def _run(self) -> None:
        while not self._closed:
            ring = self._wait()
            if self._closed:
                return
            had = self._session is not None
            if not had and self.session():
                ring = True
            if ring:
                self._changed()

    def _wait(self) -> bool:
        """Until something happened or it is time to dial; whether to ring."""
        with self._lock, selectors.DefaultSelector() as selector:
            session, processes = self._session, dict(self._processes)
            selector.register(self._wake_read, selectors.EVENT_READ)
            if session:
                selector.register(session.socket, selectors.EVENT_READ)
            for descriptor in processes.values():
                selector.register(descriptor, selectors.EVENT_READ)
            self._lock.release()
            try:
                ready = {key.fileobj for key, _ in selector.select(PROBE if session else _DIAL_PAUSE)}
            finally:
                self._lock.acquire()
            if session:
                session.probe()
            return self._took(ready, session, processes)

    def _took(self, ready: set[Any], session: SwitchSession | None, processes: dict[int, int]) -> bool:
        ring = False
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        if session and session.socket in ready and session is self._session:
            ring = session.hangs
            if session.read():
                return self._ended(ready, processes) or ring
            log.warning("the switch restarted or lost bridge %s", self._bridge)
            session.close()
            self._session, ring = None, True
        return self._ended(ready, processes) or ring

    def _ended(self, ready: set[Any], processes: dict[int, int]) -> bool:
        ring = False
        for pid, descriptor in processes.items():
            if descriptor in ready and self._processes.get(pid) == descriptor:
                log.warning("process %d, which served a room, ended", pid)
                os.close(self._processes.pop(pid))
                ring = True
        return ring
