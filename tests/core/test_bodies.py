"""How much of a body is read, and for whom: on plain sockets, since clients send what they said they would."""

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from conftest import Running

NETWORKS, TOKENS = "/network/v2.0/networks", "/identity/v3/auth/tokens"


def answered(running: Running, path: str, length: str, sent: bytes = b"", token: str = "") -> str:
    """The status line for a POST of which only `sent` comes."""
    at = urlsplit(running.url)
    with socket.create_connection((at.hostname or "", at.port or 0), timeout=10) as line:
        line.sendall(f"POST {path} HTTP/1.1\r\nhost: {at.netloc}\r\n{token}{length}\r\ncontent-type: application/json\r\n\r\n".encode() + sent)
        return line.makefile("rb").readline().decode()


@pytest.mark.parametrize("length", ["content-length: 20000", "transfer-encoding: chunked"])
@pytest.mark.parametrize("token", ["", "x-auth-token: gAAAAAforged\r\n"])
def test_nothing_of_a_long_body_is_awaited_of_who_is_not_known(running: Running, length: str, token: str) -> None:
    assert " 401 " in answered(running, NETWORKS, length, token=token)


def test_a_long_body_of_a_known_caller_is_read_to_the_limit(running: Running) -> None:
    with running.http() as admin:
        long = admin.post(NETWORKS, json={"network": {"name": "n", "description": "d" * 300_000}})
        assert long.status_code == 400 and "description" in long.text
        assert admin.post(NETWORKS, content=b'{"network": {"description": "' + b"d" * (1 << 20)).status_code == 413


def test_a_login_has_a_limit_of_its_own(running: Running) -> None:
    assert " 413 " in answered(running, TOKENS, "content-length: 500000", b"x" * 115_000)
    assert httpx.post(f"{running.url}{TOKENS}", content=b'{"auth": {"x": "' + b"x" * 100_000).status_code == 400


@pytest.mark.parametrize("path", [NETWORKS, "/identity/v3/users", "/compute/v2.1/servers/x/action", "/compute/v2.1/servers", "/image/v2/images"])
def test_a_body_that_is_deeper_than_anybody_reads(running: Running, path: str) -> None:
    with running.http() as admin:
        for content in (b"[" * 100_000, b'{"server": {"name": ' + b'{"a":' * 100_000, b'{"user": {"name": "n", "options": ' + b'{"a":' * 100_000):
            answer = admin.post(path, content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 400, answer.text
