"""A guest's console, piped to the control plane.

The node dials: a websocket over its connection with the control plane, named by a one-time rendezvous; its other end is somebody's
browser. Bytes go both ways by two threads; when either end closes, the other is closed and both threads end. TLS bears one thread at a
time (`relayed`).

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
import ssl
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
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
    """The far end of a console, by the unix socket of the control plane. Raises NodeError if nobody waits there."""
    return _dialled(lambda: _connected(control_plane), rendezvous, {})


def dial_by_tls(connect: Callable[[], ssl.SSLSocket], rendezvous: str, headers: Mapping[str, str]) -> Far:
    """The far end of a console over the connection that `connect` gives. Raises NodeError if nobody waits there."""
    return _dialled(lambda: relayed(connect()), rendezvous, headers)


def _connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(str(path))
    except BaseException:
        made.close()
        raise
    return made


def _dialled(connected: Callable[[], socket.socket], rendezvous: str, headers: Mapping[str, str]) -> Far:
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    try:
        return connect(f"ws://node/node/v1/consoles/{quote(rendezvous, safe='')}", sock=connected(), additional_headers=headers, compression=None,
                       proxy=None, legacy=True, open_timeout=_DIAL, close_timeout=_CLOSE, ping_interval=None,
                       user_agent_header=None)  # fmt: skip
    except (OSError, WebSocketException) as error:
        raise NodeError("nobody waits for this console", str(error)) from error


def relayed(far: ssl.SSLSocket) -> socket.socket:
    """A plain socket for the bytes of `far`. A websocket is read by one thread and written by another, and OpenSSL bears one at a time:
    what is written while session tickets are read is lost without an error, and Python 3.11 takes no lock."""
    near, ours = socket.socketpair()
    threading.Thread(target=_relay, args=(far, ours), name="console-tls", daemon=True).start()
    return near


class _Way:
    """Bytes from one socket to another, neither of which blocks; at most one chunk is under way."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink, self.held = source, sink, b""
        self.writes_to_read = False

    def move(self) -> bool:
        """Whether it may move again at once. Raises EOFError when the source has ended, OSError."""
        self.writes_to_read = False
        try:
            if not self.held and not (chunk := self.source.recv(_CHUNK)):
                raise EOFError
            self.held = self.held or chunk
            self.held = self.held[self.sink.send(self.held) :]
        except ssl.SSLWantWriteError:
            self.writes_to_read = not self.held
            return False
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        return True


def _relay(far: ssl.SSLSocket, near: socket.socket) -> None:
    """Carries bytes both ways until either end closes."""
    inward, outward = _Way(far, near), _Way(near, far)
    poll = select.poll()
    with far, near, contextlib.suppress(OSError, EOFError):
        far.setblocking(False)
        near.setblocking(False)
        while True:
            while any([inward.move(), outward.move()]):
                pass
            poll.register(far, _awaited(inward, outward))
            poll.register(near, _awaited(outward, inward))
            poll.poll()


def _awaited(reading: _Way, writing: _Way) -> int:
    """What lets the way that reads a socket, or the one that writes to it, go on."""
    return (0 if reading.held else select.POLLIN) | (select.POLLOUT if writing.held or reading.writes_to_read else 0)


class Guest(Protocol):
    """The guest's end. `end` may come from another thread and makes `read` return; `close` comes last."""

    def read(self) -> bytes:
        """What came, at least a byte; none when it is over. Raises OSError."""

    def write(self, payload: bytes) -> None: ...

    def end(self) -> None: ...

    def close(self) -> None: ...


class Screen:
    """A guest's screen: its VNC server."""

    def __init__(self, at: Path | tuple[str, int]) -> None:
        self._socket = _connected(at) if isinstance(at, Path) else socket.create_connection(at, timeout=_DIAL)
        self._socket.settimeout(None)

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


def open_console(at: Path | tuple[str, int], written: Path | None = None) -> Guest:
    """The guest's end; `written` is the log of a terminal. Raises NodeError."""
    try:
        return SerialLine(at, written) if written is not None and isinstance(at, Path) else Screen(at)
    except (OSError, termios.error) as error:
        raise NodeError("the guest's console cannot be opened", f"{at}: {error}") from error


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
