"""The metadata service: who a guest is comes from where it asks, what it is told comes from the control plane.

The parent (root) opens listening sockets inside rooms and hands them to one unprivileged child (`metadata_child`), which alone reads
what guests send. The child knows a guest by the socket's network or router and the source address, which the switch does not let a
guest forge; no header counts. It asks the parent over a socketpair, the parent asks `lookup`.

Frames on the socketpair are a 4-byte length and JSON; descriptors of sockets travel with their `listen` frame.
Answers are kept on disk, one file a guest, and used only while the control plane is down, so that guests boot meanwhile. A guest that
the control plane does not know any more loses its file; so do all guests of a room that goes.
"""

import contextlib
import ipaddress
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.node.wires import netns
from nacre.node.wires.driver import ControlPlaneDown, Keep, Lookup

log = logging.getLogger(__name__)
_FRESH = 2.0
_PAUSE = 2.0
Room = tuple[str, str]
"""("network" | "router", its id)."""


@dataclass(frozen=True)
class Spot:
    """Where to listen."""

    namespace: str
    address: str
    port: int


def send_frame(channel: socket.socket, message: Mapping[str, Any], descriptors: list[int] | None = None) -> None:
    body = json.dumps(message).encode()
    data = struct.pack("!I", len(body)) + body
    sent = socket.send_fds(channel, [data], descriptors) if descriptors else 0
    channel.sendall(data[sent:])


class Metadata:
    """`folder` keeps the answers. Start with `serve`, which may be called again at any time with what is wanted then."""

    def __init__(self, folder: Path, lookup: Lookup, keep: Keep, died: Callable[[], None]) -> None:
        self._folder, self._lookup, self._keep_password, self._died = folder, lookup, keep, died
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._sending = threading.Lock()
        self._started = float("-inf")
        self._listening: dict[Room, tuple[Spot, int]] = {}
        self._recent: dict[tuple[str, str, str], tuple[float, dict[str, Any] | None]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def serve(self, wanted: Mapping[Room, Spot]) -> dict[Room, Exception]:
        """Listen at these spots and no others. Returns what could not be done."""
        if wanted and not self.alive():
            if time.monotonic() - self._started < _PAUSE:
                return {room: OSError("the metadata child ended as soon as it was started") for room in wanted}
            self._start()
        failed: dict[Room, Exception] = {}
        for room in [room for room in self._listening if room not in wanted]:
            self._send({"stop": room})
            del self._listening[room]
            self._forget(room)
        for room, spot in wanted.items():
            try:
                identity = (netns.FOLDER / spot.namespace).stat().st_ino
                if self._listening.get(room) == (spot, identity):
                    continue
                if room in self._listening:
                    self._send({"stop": room})
                    del self._listening[room]
                with netns.inside(spot.namespace, lambda spot=spot: _listen(spot)) as listener:  # type: ignore[misc]
                    self._send({"listen": room}, [listener.fileno()])
                self._listening[room] = (spot, identity)
            except OSError as error:
                failed[room] = error
        return failed

    def close(self) -> None:
        child, channel, self._child, self._channel = self._child, self._channel, None, None
        if channel:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)
        if child:
            try:
                child.wait(2)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _start(self) -> None:
        self.close()
        self._listening.clear()
        self._started = time.monotonic()
        ours, theirs = socket.socketpair()
        package = str(Path(__file__).parent.parent.parent)
        with theirs:
            argv = [sys.executable, "-m", "nacre.node.metadata_child", str(theirs.fileno())]
            environment = {"PYTHONPATH": package, "PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"}
            self._child = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=environment, cwd="/", stdin=subprocess.DEVNULL)
        self._channel = ours
        self._pool = ThreadPoolExecutor(4, "metadata")
        threading.Thread(target=self._answer, args=(ours, self._child), name="metadata", daemon=True).start()

    def _send(self, message: Mapping[str, Any], descriptors: list[int] | None = None) -> None:
        with self._sending:
            if self._channel is None:
                raise OSError("the metadata child is not there")
            send_frame(self._channel, message, descriptors)

    def _answer(self, channel: socket.socket, child: subprocess.Popen[bytes]) -> None:
        """Take the child's questions until it ends."""
        with contextlib.suppress(OSError, ValueError), channel.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                message = json.loads(stream.read(struct.unpack("!I", head)[0]))
                if self._pool:
                    self._pool.submit(self._reply, message)
        channel.close()
        if self._child is child:
            log.error("the metadata child ended with status %s", child.wait())
            self._died()

    def _reply(self, message: Mapping[str, Any]) -> None:
        try:
            guest = (str(message["kind"]), str(message["id"]), str(message["address"]))
            status, files = (self._left(*guest, message["password"]), {}) if "password" in message else self._look_up(*guest)
        except Exception:
            log.exception("metadata of %s", message.get("address"))
            status, files = 500, {}
        with contextlib.suppress(OSError):
            self._send({"answer": message["number"], "status": status, "files": files})

    def _left(self, kind: str, id_: str, text: str, password: str) -> int:
        """The guest leaves a password for its user; what it reads next has it."""
        address = str(ipaddress.ip_address(text))
        try:
            status = self._keep_password(kind, id_, address, password)
        except ControlPlaneDown:
            return 503
        self._recent.pop((kind, id_, address), None)
        return status

    def _look_up(self, kind: str, id_: str, text: str) -> tuple[int, dict[str, str]]:
        address = str(ipaddress.ip_address(text))
        key, path = (kind, id_, address), self._folder / f"{kind}-{id_}" / f"{address}.json"
        when, known = self._recent.get(key, (0.0, None))
        if time.monotonic() - when < _FRESH and known is not None:
            return 200, known["files"]
        try:
            found = self._lookup(kind, id_, address)
        except ControlPlaneDown:
            with contextlib.suppress(OSError, ValueError):
                return 200, json.loads(path.read_text())["files"]
            return 503, {}
        if found is None:
            self._recent.pop(key, None)
            path.unlink(missing_ok=True)
            return 404, {}
        if len(self._recent) > 4096:
            self._recent.clear()
        self._recent[key] = (time.monotonic(), found)
        self._keep(path, found)
        return 200, found["files"]

    def _keep(self, path: Path, found: Mapping[str, Any]) -> None:
        text = json.dumps(found)
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_suffix(f".{threading.get_ident()}")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        new.replace(path)

    def _forget(self, room: Room) -> None:
        folder = self._folder / f"{room[0]}-{room[1]}"
        with contextlib.suppress(FileNotFoundError):
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
            folder.rmdir()


def _listen(spot: Spot) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((spot.address, spot.port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
