"""The api's listeners, in a process of their own: clients that say nothing or half of something, refusals of a websocket, TLS."""

import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from nacre.core import tls

SERVER = """
import logging, os, socket, sys, time
from pathlib import Path
from starlette.responses import Response
from starlette.websockets import WebSocket
from nacre.core import connections, serve

logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
connections.PATIENCE = 1.0

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        return await WebSocket(scope, receive, send).send_denial_response(Response("no, because\\n", 403))
    if scope["path"] == "/block":
        time.sleep(2.5)
    if scope["path"] == "/slow":
        while (await receive()).get("more_body"):
            pass
    await Response("yes")(scope, receive, send)

folder = Path(sys.argv[1])
sockets = serve.Sockets([socket.socket(fileno=int(sys.argv[2]))], [socket.socket(fileno=int(sys.argv[3]))])
serve.serve(app, sockets, certificate=(folder / "server.crt", folder / "server.key"), hosts=serve.Hosts({}))
"""


@dataclass
class Listening:
    port: int
    plain: int
    trusted: ssl.SSLContext
    log: Path

    def tls(self) -> ssl.SSLSocket:
        return self.trusted.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout=10), server_hostname="127.0.0.1")


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    folder = tmp_path_factory.mktemp("serve")
    ca, server = (tls.Pair(folder / f"{name}.key", folder / f"{name}.crt") for name in ("ca", "server"))
    tls.ensure(ca, server, ["127.0.0.1"], (0, 0))
    with socket.create_server(("127.0.0.1", 0)) as ear, socket.create_server(("127.0.0.1", 0)) as plain, (folder / "log").open("wb") as log:
        given = (ear.fileno(), plain.fileno())
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), *map(str, given)], pass_fds=given, stderr=log,
                                   env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
        found = Listening(ear.getsockname()[1], plain.getsockname()[1], ssl.create_default_context(cafile=str(ca.certificate)), folder / "log")
        yield found
        process.terminate()
        assert process.wait(10) in (0, -signal.SIGTERM)


def closed_after(connection: socket.socket) -> float:
    begun = time.monotonic()
    connection.settimeout(10)
    assert connection.recv(100) == b""
    return time.monotonic() - begun


def get(connection: socket.socket, path: str = "/") -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    return answer(connection)


def answer(connection: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"yes"):
        chunk = connection.recv(1000)
        assert chunk, got
        got += chunk
    return got


def test_whoever_says_nothing_is_not_waited_for(listening: Listening) -> None:
    with listening.tls() as silent, listening.tls() as half, listening.tls() as second:
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        assert get(second)
        second.sendall(b"GET / HTTP/1.1\r\n")
        for connection in (silent, half, second):
            assert closed_after(connection) < 3


def test_a_request_that_began_and_a_connection_that_is_kept_have_their_time(listening: Listening) -> None:
    with listening.tls() as kept, listening.tls() as slow:
        assert get(kept)
        slow.sendall(b"POST /slow HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\na")
        time.sleep(2)
        slow.sendall(b"b")
        assert answer(slow)
        assert get(kept)


def test_a_refused_websocket_is_told_why_and_is_no_error(listening: Listening) -> None:
    before = listening.log.read_text()
    with pytest.raises(InvalidStatus) as refused:
        connect(f"wss://127.0.0.1:{listening.port}/x", ssl=listening.trusted, proxy=None, legacy=True)
    assert refused.value.response.status_code == 403 and refused.value.response.body == b"no, because\n"
    assert listening.log.read_text() == before


def test_clients_that_read_and_write_in_two_threads_lose_no_request(listening: Listening) -> None:
    """With session tickets about one in five hundred hung for ever on Python 3.11."""
    with listening.tls() as first:
        assert first.version() == "TLSv1.3" and get(first)
        assert first.session is not None and not first.session.has_ticket
    refused = []

    def many() -> None:
        for _ in range(75):
            with pytest.raises(InvalidStatus):
                connect(f"wss://127.0.0.1:{listening.port}/x", ssl=listening.trusted, proxy=None, legacy=True)
            refused.append(1)

    threads = [threading.Thread(target=many, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 300


def test_a_loop_that_stands_still_is_said_with_its_stack(listening: Listening) -> None:
    with listening.tls() as connection:
        assert get(connection, "/block")
    time.sleep(1)
    said = listening.log.read_text()
    assert "stands still in" in said and "in app" in said
    assert re.search(r"stood still for [2-9]", said)


def test_the_plain_listener_needs_no_certificate(listening: Listening) -> None:
    with socket.create_connection(("127.0.0.1", listening.plain), timeout=10) as connection:
        for _ in range(2):
            head = get(connection).partition(b"\r\n\r\n")[0].lower()
            assert head.startswith(b"http/1.1 200") and b"\r\ndate: " in head
