"""Listening sockets handed to a running server by root, who alone can make them in the network namespaces of hosts.

The server has an *ear*, a datagram socket that only root may write to; a message is `[role, host]` with one descriptor. Whoever starts
a host sends its sockets there. A server that starts opens its ear first and then looks which hosts run, so a host that comes meanwhile is
not missed: its sockets are made by one of the two, and the other finds the address taken. A message to a server that ends is lost with it.
"""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

_LARGEST = 512


def ear(path: Path) -> socket.socket:
    """In place of the one before."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(f"/proc/self/fd/{folder}/{path.name}")  # a home's path may be longer than an address
        made.setblocking(False)
        return made
    finally:
        os.umask(mask)
        os.close(folder)


def send(path: Path, role: str, host: str, listener: socket.socket) -> bool:
    """Whether a server listened at `path`."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.settimeout(10)
            way.connect(f"/proc/self/fd/{folder}/{path.name}")
            socket.send_fds(way, [json.dumps([role, host]).encode()], [listener.fileno()])
        return True
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    finally:
        os.close(folder)


def receive(ear: socket.socket) -> tuple[str, str, socket.socket] | None:
    """What came, as (role, host, listener); None when nothing more did."""
    while True:
        try:
            content, descriptors, _, _ = socket.recv_fds(ear, _LARGEST, 4)
        except BlockingIOError:
            return None
        with suppress(ValueError):
            role, host = json.loads(content)
            if len(descriptors) == 1:
                return str(role), str(host), socket.socket(fileno=descriptors[0])
        for descriptor in descriptors:
            os.close(descriptor)
