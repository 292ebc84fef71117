"""A guest's console, piped to the control plane.

The node dials: a websocket over the control plane's unix socket, named by a one-time rendezvous; its other end is somebody's browser.
Bytes go both ways by two threads; when either end closes, the other is closed and both threads end.

A screen is a unix socket of its own for each who looks. A serial line is one terminal for all, and a byte read there is seen by one
reader only; so we take what the guest wrote from its log, which has everything, and leave the terminal's bytes to `virsh console`. Any
number of consoles and a `virsh console` see the same and may all type. Only when nobody else reads, so that the terminal's buffer fills
and the guest has to wait, are bytes taken from there and dropped.
"""

import array
import contextlib
import fcntl
import logging
import os
import select
import socket
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from nacre.node.deadline import NodeError

log = logging.getLogger(__name__)
_CHUNK = 64 * 1024
_BACKLOG = 4096
_LOOK_EVERY = 0.05
_STUCK = 4  # looks at a log that does not grow
_FULL = 2048
_DIAL, _CLOSE = 10.0, 5.0


class Far(Protocol):
    """The far end: messages as they come, until it closes. Raises websockets' ConnectionClosed."""

    def __iter__(self) -> Iterator[str | bytes]: ...

    def send(self, payload: bytes, /) -> None: ...

    def close(self) -> None: ...


def dial(control_plane: Path, rendezvous: str) -> Far:
    """The far end of a console. Raises NodeError if nobody waits there."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import unix_connect

    try:
        return unix_connect(str(control_plane), f"ws://node/node/v1/consoles/{quote(rendezvous, safe='')}", compression=None, proxy=None, legacy=True,
                            open_timeout=_DIAL, close_timeout=_CLOSE, ping_interval=None, user_agent_header=None)  # fmt: skip
    except (OSError, WebSocketException) as error:
        raise NodeError("nobody waits for this console", str(error)) from error


class Guest(Protocol):
    """The guest's end. `end` may come from another thread and makes `read` return; `close` comes last."""

    def read(self) -> bytes:
        """What came, at least a byte; none when it is over. Raises OSError."""

    def write(self, payload: bytes) -> None: ...

    def end(self) -> None: ...

    def close(self) -> None: ...


class Screen:
    """A guest's screen: the socket of its VNC server."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise

    def read(self) -> bytes:
        return self._socket.recv(_CHUNK)

    def write(self, payload: bytes) -> None:
        self._socket.sendall(payload)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


class SerialLine:
    """A guest's serial line: its terminal to type at, its log to read from, beginning with the end of what is there."""

    def __init__(self, terminal: Path, written: Path) -> None:
        self._path = written
        self._log = os.open(written, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._terminal = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            tty.setraw(self._terminal)
        except BaseException:
            os.close(self._log)
            raise
        os.lseek(self._log, max(0, os.fstat(self._log).st_size - _BACKLOG), os.SEEK_SET)
        self._ended, self._wake = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._terminal, 0)  # only whether the guest is gone
        self._poll.register(self._ended, select.POLLIN)

    def read(self) -> bytes:
        looks = 0
        while not (chunk := self._written()):
            if self._poll.poll(_LOOK_EVERY * 1000):
                return self._written()
            looks += 1
            if looks >= _STUCK:
                self._keep_empty()
        return chunk

    def write(self, payload: bytes) -> None:
        room = select.poll()
        room.register(self._terminal, select.POLLOUT)
        room.register(self._ended, select.POLLIN)
        rest = memoryview(payload)
        while rest:
            if any(descriptor == self._ended for descriptor, _ in room.poll()):
                return
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._terminal, rest) :]

    def end(self) -> None:
        os.write(self._wake, b"\0")

    def close(self) -> None:
        for descriptor in (self._log, self._terminal, self._ended, self._wake):
            os.close(descriptor)

    def _written(self) -> bytes:
        chunk = os.read(self._log, _CHUNK)
        if chunk or not self._turned():
            return chunk
        last = os.read(self._log, _CHUNK)  # what came between looking and turning
        if last:
            return last
        following = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(following, self._log, inheritable=False)
        os.close(following)
        return os.read(self._log, _CHUNK)

    def _turned(self) -> bool:
        """Whether the log goes on in a new file."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._log))
        except FileNotFoundError:
            return False

    def _keep_empty(self) -> None:
        waiting = array.array("i", [0])
        fcntl.ioctl(self._terminal, termios.FIONREAD, waiting)
        if waiting[0] >= _FULL:
            with contextlib.suppress(BlockingIOError):
                os.read(self._terminal, waiting[0])


def open_console(path: Path, written: Path | None = None) -> Guest:
    """The guest's end; `written` is the log of a terminal. Raises NodeError."""
    try:
        return Screen(path) if written is None else SerialLine(path, written)
    except (OSError, termios.error) as error:
        raise NodeError("the guest's console cannot be opened", f"{path}: {error}") from error


def pipe(guest: Guest, far: Far) -> None:
    """Begins to carry bytes both ways; both ends are closed when either is."""
    from websockets.exceptions import ConnectionClosed

    def from_guest() -> None:
        try:
            while chunk := guest.read():
                far.send(chunk)
        except (OSError, ConnectionClosed) as error:
            log.debug("console: %s", error)
        far.close()

    def to_guest() -> None:
        try:
            for payload in far:
                guest.write(payload if isinstance(payload, bytes) else payload.encode())
        except (OSError, ConnectionClosed) as error:
            log.debug("console: %s", error)

    def carry() -> None:
        outward = threading.Thread(target=from_guest, name="console-out", daemon=True)
        outward.start()
        to_guest()
        guest.end()
        outward.join()
        guest.close()

    threading.Thread(target=carry, name="console", daemon=True).start()
