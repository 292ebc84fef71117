"""Where a node gets its work from: the control plane over a unix socket, or a file.

Both have the same face, `Source`. A Source raises ControlPlaneDown for everything that a later attempt may cure; whoever called backs
off and repeats, which is harmless because `feed` sends the whole index of what is held and `report` is answered or sent again.
"""

import contextlib
import http.client
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from nacre.node import console
from nacre.node.calls import Call
from nacre.node.deadline import NodeError, Unreachable
from nacre.node.wires.driver import ControlPlaneDown, Document

PROTOCOL = 1
Index = dict[str, dict[str, int]]


class Feed(msgspec.Struct):
    """What differs from what the node holds: documents, (kind, id) that went, calls not among those named."""

    epoch: int
    documents: list[Document] = []
    gone: list[tuple[str, str]] = []
    calls: list[Call] = []


class Bytes(Protocol):
    def read(self, amount: int, /) -> bytes: ...


class Source(Protocol):
    def feed(self, have: Index, *, epoch: int, calls: list[str], wait: float) -> Feed:
        """Held until something differs or `wait` seconds are over."""

    def report(self, report: dict[str, Any]) -> bool:
        """Results, applied and seen of docs/node-contract.md. False: another report was taken for the one that follows the last, so all of
        `applied` and `seen` is to be told again."""

    def image(self, image_id: str) -> AbstractContextManager[Bytes]:
        """The bytes of an image. NodeError if the control plane does not give it, Unreachable if it is lost on the way."""

    def put_image(self, image_id: str, file: IO[bytes]) -> None:
        """Gives the control plane the bytes of an image that it asked for. NodeError if it does not take them, Unreachable if it is lost."""

    def metadata(self, kind: str, owner: str, address: str) -> dict[str, Any] | None:
        """What the guest with `address` on the network or router `owner` may know about itself."""

    def keep_password(self, kind: str, owner: str, address: str, password: str) -> int:
        """What that guest leaves for its user: 200, or why it is not kept (404, 409)."""

    def config_drive(self, server_id: str) -> dict[str, Any]:
        """What is on the config drive of a server of this host: path -> text or {"base64": ...}. NodeError if there is none."""

    def console(self, rendezvous: str) -> console.Far:
        """The far end of a console. NodeError if nobody waits there."""

    def close(self) -> None:
        """Ends whatever is being waited for; it raises ControlPlaneDown."""


class HttpSource:
    """The control plane by HTTP, however it is reached: `link` gives a connection, not yet connected. One kept connection a thread; images
    and metadata get their own."""

    headers: Mapping[str, str] = {}

    def __init__(self) -> None:
        self._kept = threading.local()
        self._lock = threading.Lock()
        self._open: set[http.client.HTTPConnection] = set()
        self._closed = False
        self._number = 0

    def link(self, timeout: float) -> http.client.HTTPConnection:
        raise NotImplementedError

    def console(self, rendezvous: str) -> console.Far:
        raise NotImplementedError

    def refused(self, status: int, content: bytes) -> None:
        """Told of every answer that is none."""

    def feed(self, have: Index, *, epoch: int, calls: list[str], wait: float) -> Feed:
        body = {"protocol": PROTOCOL, "epoch": epoch, "have": have, "calls": calls, "wait": wait}
        return msgspec.json.decode(self._post("/node/v1/feed", body, wait + 20), type=Feed, strict=False)

    def report(self, report: dict[str, Any]) -> bool:
        answer = msgspec.json.decode(self._post("/node/v1/report", {"protocol": PROTOCOL, "number": self._number, **report}, 30))
        self._number = answer.get("number", self._number)
        return bool(answer.get("counted", True))

    @contextlib.contextmanager
    def image(self, image_id: str) -> Iterator[Bytes]:
        lost = f"image {image_id} could not be fetched"
        try:
            with self._get(f"/node/v1/images/{quote(image_id, safe='')}", 60) as answer:
                if answer.status != 200:
                    raise _refusal(answer.status, f"image {image_id} is not available to this host", answer.read(2000))
                yield _Whole(answer, lost)
        except ControlPlaneDown as error:
            raise Unreachable(lost, str(error)) from error

    def put_image(self, image_id: str, file: IO[bytes]) -> None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            connection = self._connect(600)
            try:
                connection.request("PUT", f"/node/v1/images/{quote(image_id, safe='')}", file, {"Content-Length": str(size), **self.headers})
                answer = connection.getresponse()
                told = answer.read(2000)
            finally:
                self._drop(connection)
        except (OSError, http.client.HTTPException, ControlPlaneDown) as error:
            raise Unreachable(f"image {image_id} could not be sent", f"{type(error).__name__}: {error}") from error
        if answer.status != 200:
            raise _refusal(answer.status, f"image {image_id} is not accepted", told)

    def metadata(self, kind: str, owner: str, address: str) -> dict[str, Any] | None:
        with self._get("/node/v1/metadata?" + urlencode({kind: owner, "address": address}), 10) as answer:
            body = answer.read()
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise ControlPlaneDown(f"metadata: {answer.status} {body[:200]!r}")
            found: dict[str, Any] = msgspec.json.decode(body)
            return found

    def keep_password(self, kind: str, owner: str, address: str, password: str) -> int:
        connection, path = self._connect(10), "/node/v1/metadata?" + urlencode({kind: owner, "address": address})
        try:
            connection.request("POST", path, msgspec.json.encode({"password": password}), {"Content-Type": "application/json", **self.headers})
            answer = connection.getresponse()
            told = answer.read(2000)
        except (OSError, http.client.HTTPException) as error:
            raise ControlPlaneDown(f"{path}: {error or type(error).__name__}") from error
        finally:
            self._drop(connection)
        if answer.status not in (200, 404, 409):
            raise ControlPlaneDown(f"metadata: {answer.status} {told[:200]!r}")
        return answer.status

    def config_drive(self, server_id: str) -> dict[str, Any]:
        try:
            with self._get(f"/node/v1/config_drives/{quote(server_id, safe='')}", 30) as answer:
                body = answer.read()
        except (ControlPlaneDown, OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the config drive of server {server_id} could not be fetched", str(error)) from error
        if answer.status != 200:
            raise _refusal(answer.status, f"there is no config drive for server {server_id}", body)
        found: dict[str, Any] = msgspec.json.decode(body)["files"]
        return found

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections = list(self._open)
        for connection in connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        connection = self.link(timeout)
        with self._lock:
            if self._closed:
                raise ControlPlaneDown("closed")
            self._open.add(connection)
        return connection

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        with self._lock:
            self._open.discard(connection)

    def _post(self, path: str, body: dict[str, Any], timeout: float) -> bytes:
        connection: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if connection is None or connection.sock is None:
            connection = self._kept.connection = self._connect(timeout)
        elif connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request("POST", path, msgspec.json.encode(body), {"Content-Type": "application/json", **self.headers})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._drop(connection)
            self._kept.connection = None
            raise ControlPlaneDown(f"{path}: {error or type(error).__name__}") from error
        if answer.will_close:
            self._drop(connection)
            self._kept.connection = None
        if answer.status != 200:
            self.refused(answer.status, content)
            raise ControlPlaneDown(f"{path}: {answer.status} {content[:300].decode(errors='replace')}")
        return content

    @contextlib.contextmanager
    def _get(self, path: str, timeout: float) -> Iterator[http.client.HTTPResponse]:
        connection = self._connect(timeout)
        try:
            try:
                connection.request("GET", path, headers=dict(self.headers))
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise ControlPlaneDown(f"{path}: {error or type(error).__name__}") from error
            yield answer
        finally:
            self._drop(connection)


class _Whole:
    """A body that ends where it was said to; a connection that ends before is `lost`."""

    def __init__(self, answer: http.client.HTTPResponse, lost: str) -> None:
        self.answer, self.lost = answer, lost

    def read(self, amount: int, /) -> bytes:
        try:
            content = self.answer.read(amount)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self.lost, f"{type(error).__name__}: {error}") from error
        if amount and not content and self.answer.length:
            raise Unreachable(self.lost, f"the connection ended {self.answer.length} bytes too soon")
        return content


def _refusal(status: int, why: str, told: bytes) -> NodeError:
    """What an answer that is none means: in trouble of its own the control plane may say something else a moment later."""
    return (Unreachable if status >= 500 else NodeError)(why, f"{status} {told[:2000].decode(errors='replace')}")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the unix socket `path`."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("node", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class SocketSource(HttpSource):
    """The control plane at the unix socket `path`, by which it knows the host."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def link(self, timeout: float) -> http.client.HTTPConnection:
        return UnixConnection(self.path, timeout)

    def console(self, rendezvous: str) -> console.Far:
        return console.dial(self.path, rendezvous)
