"""Addresses that users name: which are judged how, whatever they are wrapped in, and where the connection goes in the end."""

import socket

import pytest

from image.conftest import Web
from nacre.core.config import ImportFiltering
from nacre.core.errors import BadRequest
from nacre.image import fetching

OPEN = ImportFiltering(allowed_ports=())


@pytest.mark.parametrize(("address", "public"), [
    ("8.8.8.8", True), ("2001:4860:4860::8888", True), ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False),
    ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("240.0.0.1", False),
    ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False), ("ff02::1", False), ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True),
    ("2002:0a00:0001::1", False), ("64:ff9b::7f00:1", False), ("64:ff9b::808:808", True), ("192.0.2.1", False), ("2001:db8::1", False), ("::", False),
])  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert fetching.public(address) is public


@pytest.mark.parametrize(("rules", "url", "passes"), [
    (ImportFiltering(), "https://example.org/x", True), (ImportFiltering(), "http://example.org:8080/x", False),
    (ImportFiltering(), "HTTPS://EXAMPLE.org./x", True), (ImportFiltering(), "gopher://example.org/x", False), (ImportFiltering(), "http://", False),
    (ImportFiltering(disallowed_hosts=("example.org",)), "http://EXAMPLE.ORG./x", False),
    (ImportFiltering(allowed_hosts=("good.org",)), "http://example.org/x", False),
    (ImportFiltering(allowed_hosts=("good.org",), disallowed_hosts=("good.org",)), "http://good.org/x", True),
    (ImportFiltering(allowed_schemes=(), disallowed_schemes=("http",)), "http://example.org/", False),
    (ImportFiltering(allowed_ports=(), disallowed_ports=(22,)), "http://example.org:22/", False), (OPEN, "http://a:b@example.org/", False),
    (OPEN, "http://example.org:99999/", False), (OPEN, "//example.org/", False),
])  # fmt: skip
def test_lists(rules: ImportFiltering, url: str, passes: bool) -> None:
    if passes:
        fetching.check(url, rules)
    else:
        with pytest.raises(BadRequest, match="filtering"):
            fetching.check(url, rules)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_ways_of_writing_this_machine(web: Web, host: str) -> None:
    asked = len(web.asked)
    with pytest.raises((BadRequest, fetching.FetchFailed)):
        fetching.open_url(web.url("/secret", host), OPEN, {})
    assert len(web.asked) == asked


def test_a_name_that_changes_its_mind(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question is answered with a public address, every later one with ours: the connection goes where was judged."""
    answers, dialled = iter(["8.8.8.8", "127.0.0.1", "127.0.0.1"]), []

    def resolve(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), web.port))]

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        dialled.append(address[0])
        raise OSError("no network in a test")

    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetching.socket, "create_connection", connect)
    with pytest.raises(fetching.FetchFailed):
        fetching.open_url(f"http://rebinding.example:{web.port}/", OPEN, {})
    assert dialled == ["8.8.8.8"]
    with pytest.raises(BadRequest, match="not on the open network"):
        fetching.open_url(f"http://rebinding.example:{web.port}/", OPEN, {})
    assert dialled == ["8.8.8.8"]


def test_one_private_address_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(BadRequest, match="not on the open network"):
        fetching.open_url("http://two.example/", OPEN, {})


def test_a_token_goes_no_further_than_its_service(web: Web) -> None:
    rules = ImportFiltering(allowed_hosts=("127.0.0.1", "localhost"), allowed_ports=())
    web.pages |= {"/away": (302, {"Location": web.url("/there", "localhost")}), "/there": b"x" * 10}
    answer = fetching.open_url(web.url("/away"), rules, {"x-auth-token": "secret"})
    assert answer.read(100) == b"x" * 10
    answer.close()
    heads = dict(web.asked)
    assert (heads["/away"].get("x-auth-token"), heads["/there"].get("x-auth-token")) == ("secret", None)


def test_a_server_without_ranges(web: Web) -> None:
    rules = ImportFiltering(allowed_hosts=("127.0.0.1",), allowed_ports=())
    web.pages["/whole"] = bytes(range(100))
    answer = fetching.open_url(web.url("/whole"), rules, {"range": "bytes=40-"})
    assert answer.read(5) == bytes(range(40, 45))
    answer.close()
