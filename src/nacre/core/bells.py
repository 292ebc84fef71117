"""Bells wake; they carry no work. A bell may be lost (full buffer, dead process, database away) or ring twice: who waits always looks
at the database first and has a time limit. Topics: `tasks`, `node:<host>`, `task:<id>`, `call:<id>`.

With SQLite every process of a cloud has a datagram socket in `<home>/run/bells/`; `ring` sends the topics to all of them. With
PostgreSQL one thread a process holds a connection that listens and notifies (`ListenNotify`), so bells reach other machines too.
NOTIFY is sent after the commit, not in it: inside, it would hold a lock that all committing transactions of the database share.
After a lost connection every ear is woken once, because nobody knows what rang meanwhile.
"""

import asyncio
import contextlib
import logging
import os
import select
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_log = logging.getLogger("nacre.bells")
_CHANNEL = "nacre_bells"
_PAYLOAD = 7900  # bytes; PostgreSQL takes less than 8000


class Bells:
    """One process' ear. `folder` None: within the process only (tests)."""

    def __init__(self, folder: Path | None, name: str = "") -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._ears: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)
        self._closed = False
        if folder is None:
            return
        self._path = folder / f"{name}-{os.getpid()}.sock"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(self._path))
        threading.Thread(target=self._listen, name="bells", daemon=True).start()

    def ring(self, topics: set[str]) -> None:
        self._hear(topics)
        if self._folder is None:
            return
        message = "\n".join(sorted(topics)).encode()
        with contextlib.suppress(OSError):  # the home is being wiped, no descriptors are left: what was committed is so without a bell, too
            for name in os.listdir(self._folder):
                if name.endswith(".sock") and name != self._path.name:
                    self._send(self._folder / name, message)

    def _send(self, path: Path, message: bytes) -> None:
        try:
            try:
                self._socket.sendto(message, socket.MSG_DONTWAIT, str(path))
            except BlockingIOError:  # what a process that stands still has not read fills our own socket, too, with which nobody else is reached
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as other:
                    other.sendto(message, socket.MSG_DONTWAIT, str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # its process is dead
        except OSError:
            pass

    def _listen(self) -> None:
        while not self._closed:
            try:
                self._hear(set(self._socket.recv(65536).decode().split("\n")))
            except OSError:
                return

    def _hear(self, topics: set[str]) -> None:
        with self._lock:
            ears = [ear for topic in topics for ear in self._ears.get(topic, ())]
        for ear in ears:
            ear()

    def listen(self, topic: str, ear: Callable[[], None]) -> None:
        with self._lock:
            self._ears[topic].add(ear)

    def forget(self, topic: str, ear: Callable[[], None]) -> None:
        with self._lock:
            self._ears[topic].discard(ear)
            if not self._ears[topic]:
                del self._ears[topic]

    @contextlib.contextmanager
    def waiter(self, *topics: str) -> Iterator[asyncio.Event]:
        """An `asyncio.Event` set by any of the topics while the block lasts."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def ear() -> None:
            loop.call_soon_threadsafe(event.set)

        for topic in topics:
            self.listen(topic, ear)
        try:
            yield event
        finally:
            for topic in topics:
                self.forget(topic, ear)

    def close(self) -> None:
        self._closed = True
        if self._folder is not None:
            self._path.unlink(missing_ok=True)
            self._socket.close()


class ListenNotify(Bells):
    """The ear of a process whose database is PostgreSQL. `dial()` gives a psycopg connection in autocommit."""

    def __init__(self, dial: Callable[[], Any]) -> None:
        super().__init__(None)
        self._dial = dial
        self._pending: set[str] = set()
        self._told, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._forever, name="bells", daemon=True)
        self._thread.start()

    def ring(self, topics: set[str]) -> None:
        self._hear(topics)
        with self._lock:
            self._pending |= topics
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: the thread is woken anyway
            os.write(self._wake, b".")

    def _forever(self) -> None:
        pause = 0.1
        while not self._closed:
            try:
                with contextlib.closing(self._dial()) as conn:
                    conn.execute(f"LISTEN {_CHANNEL}")
                    self._hear_everything()
                    pause = 0.1
                    self._serve(conn)
            except Exception as error:  # whatever it is: without bells everything comes seconds later, with this thread dead it always would
                if pause < 0.2:
                    _log.warning("bells are silent: %s", error)
                select.select([self._told], [], [], pause)
                self._drain()
                pause = min(pause * 2, 2.0)

    def _serve(self, conn: Any) -> None:
        me = conn.info.backend_pid
        while not self._closed:
            select.select([conn.fileno(), self._told], [], [])
            self._drain()
            with self._lock:
                pending, self._pending = self._pending, set()
            for payload in _payloads(pending):
                conn.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, payload))
            for notice in conn.notifies(timeout=0):
                if notice.pid != me:
                    self._hear(set(notice.payload.split("\n")))

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._told, 65536)

    def _hear_everything(self) -> None:
        with self._lock:
            topics = set(self._ears)
        self._hear(topics)

    def close(self) -> None:
        super().close()
        self._nudge()
        self._thread.join(timeout=10)


def _payloads(topics: set[str]) -> Iterator[str]:
    """The topics in as few notifications as they fit in."""
    payload = ""
    for topic in sorted(topics):
        if payload and len(payload.encode()) + len(topic.encode()) >= _PAYLOAD:
            yield payload
            payload = ""
        payload = f"{payload}\n{topic}" if payload else topic
    if payload:
        yield payload
