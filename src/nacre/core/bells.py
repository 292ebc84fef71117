"""Bells wake; they carry no work. Every process of a cloud has a datagram socket in `<home>/run/bells/`; `ring` sends the topic to
all of them. A bell may be lost (full buffer, dead process) or ring twice: who waits always looks at the database first and has a
time limit. Topics: `tasks`, `node:<host>`, `task:<id>`, `call:<id>`.

With PostgreSQL the same face will be LISTEN/NOTIFY.
"""

import asyncio
import contextlib
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path


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
        for path in self._folder.glob("*.sock"):
            if path != self._path:
                self._send(path, message)

    def _send(self, path: Path, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            try:
                out.sendto(message, str(path))
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
