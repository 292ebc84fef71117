"""Reads what guests send to the metadata address. Unprivileged: nobody, in an empty network namespace, with the sockets it was given.

`python -m nacre.node.metadata_child FD`: FD is the socketpair to the parent (see metadata.py); its end ends this process.
One event loop; a guest has 10 seconds to send a request of at most 8 KiB, and 32 connections at once; a connection serves several
requests. All is read only but `openstack/<version>/password`, to which a guest posts, once, what its user is to know.
"""

import asyncio
import base64
import contextlib
import ctypes
import itertools
import json
import os
import pwd
import re
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

_PATIENCE = 10.0
_LIMIT = 8192
_CONNECTIONS = 32
_PASSWORD = re.compile(r"/+openstack/+[^/]+/+password/*")
_PASSWORD_LIMIT = 1020
_NEWNET = 0x40000000
_NO_NEW_PRIVILEGES = 38


File = str | Mapping[str, str]
"""A text, or {"base64": ...} of what is none."""


def page(files: Mapping[str, File], path: str) -> str | bytes | None:
    """What stands at `path`: a file, or the names in a folder one a line (in the EC2 tree with a slash after folders), else None.
    At the top EC2's versions alone are listed, as upstream does."""
    wanted = "/".join(part for part in path.split("/") if part)
    for name in (wanted, f"{wanted}/"):
        if wanted and name in files:
            found = files[name]
            return found if isinstance(found, str) else base64.b64decode(found["base64"])
    prefix = f"{wanted}/" if wanted else ""
    below = [name[len(prefix) :] for name in files if name.startswith(prefix) and name != prefix and (wanted or not name.startswith("openstack/"))]
    if not below:
        return None
    folders = {name.split("/", 1)[0] for name in below if "/" in name}
    names = folders | {name for name in below if "/" not in name}
    slash = "" if not wanted or wanted.split("/", 1)[0] == "openstack" else "/"
    return "\n".join(name + (slash if name in folders else "") for name in sorted(names))


def target_of(head: bytes) -> tuple[str, str, bool]:
    """Method, path and whether the connection stays open. Raises ValueError for what is no request."""
    lines = head.decode("latin-1").split("\r\n")
    method, target, version = lines[0].split(" ")
    if not version.startswith("HTTP/1.") or not target.startswith(("/", "http://")):
        raise ValueError(lines[0])
    if target.startswith("http://"):
        target = "/" + target[7:].partition("/")[2]
    headers = {name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        return method, target, False
    stays = headers.get("connection") != "close" if version == "HTTP/1.1" else headers.get("connection") == "keep-alive"
    return method, unquote(target.partition("?")[0]), stays


def length_of(head: bytes) -> int:
    """How long the body after these headers says that it is. Raises ValueError."""
    found = re.findall(rb"^content-length:\s*(\d{1,9})\s*$", head, re.IGNORECASE | re.MULTILINE)
    if len(found) != 1:
        raise ValueError("no length")
    return int(found[0])


class Child:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._servers: dict[tuple[str, str], asyncio.Server] = {}
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._open: Counter[tuple[str, str, str]] = Counter()
        self._data = b""
        self._descriptors: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = asyncio.Lock()
        self.ended = asyncio.Event()

    def read(self) -> None:
        """Called when the parent wrote."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, 1 << 20, 16)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.ended.set()
            return
        self._data += data
        self._descriptors += descriptors
        while len(self._data) >= 4:
            (length,) = struct.unpack_from("!I", self._data)
            if len(self._data) < 4 + length:
                return
            message, self._data = json.loads(self._data[4 : 4 + length]), self._data[4 + length :]
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if "answer" in message:
            future = self._waiting.pop(message["answer"], None)
            if future and not future.done():
                future.set_result(message)
        elif "listen" in message:
            listener = socket.socket(fileno=self._descriptors.pop(0))
            listener.setblocking(False)
            task = asyncio.ensure_future(self._listen((message["listen"][0], message["listen"][1]), listener))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif "stop" in message:
            server = self._servers.pop((message["stop"][0], message["stop"][1]), None)
            if server:
                server.close()

    async def _listen(self, room: tuple[str, str], listener: socket.socket) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            guest = (*room, str(writer.get_extra_info("peername")[0]))
            self._open[guest] += 1
            try:
                if self._open[guest] <= _CONNECTIONS:
                    await self._talk(guest, reader, writer)
            except (TimeoutError, ValueError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass
            finally:
                self._open[guest] -= 1
                if not self._open[guest]:
                    del self._open[guest]
                writer.close()

        self._servers[room] = await asyncio.start_server(serve, sock=listener, limit=_LIMIT)

    async def _talk(self, guest: tuple[str, str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stays = True
        while stays:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
            try:
                method, path, stays = target_of(head[:-4])
                status, body = await (self._left(guest, path, head, reader) if method == "POST" else self._page(guest, method, path))
            except ValueError:
                method, stays, status, body = "GET", False, 400, "Bad Request"
            data = body if isinstance(body, bytes) else body.encode()
            kind = "application/octet-stream"
            if isinstance(body, str):
                kind = "application/json" if status == 200 and body.startswith(("{", "[")) else "text/plain; charset=UTF-8"
            lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
            lines += ["Connection: keep-alive" if stays else "Connection: close", "", ""]
            writer.write("\r\n".join(lines).encode() + (b"" if method == "HEAD" else data))
            await asyncio.wait_for(writer.drain(), _PATIENCE)

    async def _page(self, guest: tuple[str, str, str], method: str, path: str) -> tuple[int, str | bytes]:
        if method not in ("GET", "HEAD"):
            return 405, "Method Not Allowed"
        answer = await self._ask(guest, {})
        if answer["status"] != 200:
            return answer["status"], HTTPStatus(answer["status"]).phrase
        found = page(answer["files"], path)
        return (404, "Not Found") if found is None else (200, found)

    async def _left(self, guest: tuple[str, str, str], path: str, head: bytes, reader: asyncio.StreamReader) -> tuple[int, str]:
        """A guest posts a password for its user."""
        if not _PASSWORD.fullmatch(path):
            return 405, "Method Not Allowed"
        length = length_of(head)
        if length > _PASSWORD_LIMIT:
            return 400, "Request is too large."
        text = (await asyncio.wait_for(reader.readexactly(length), _PATIENCE)).decode("ascii")
        status = (await self._ask(guest, {"password": text}))["status"]
        return status, "" if status == 200 else HTTPStatus(status).phrase

    async def _ask(self, guest: tuple[str, str, str], also: Mapping[str, str]) -> dict[str, Any]:
        """The parent's answer about the guest."""
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        body = json.dumps({"number": number, "kind": guest[0], "id": guest[1], "address": guest[2], **also}).encode()
        async with self._asking:
            await asyncio.get_running_loop().sock_sendall(self._channel, struct.pack("!I", len(body)) + body)
        try:
            return await asyncio.wait_for(future, 30)
        except TimeoutError:
            return {"status": 503}
        finally:
            self._waiting.pop(number, None)


def give_up_privileges() -> None:
    """Become nobody, for good. Raises OSError, KeyError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


async def main(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as channel:
        channel.setblocking(False)
        child = Child(channel)
        asyncio.get_running_loop().add_reader(channel, child.read)
        await child.ended.wait()


if __name__ == "__main__":
    give_up_privileges()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1])))
