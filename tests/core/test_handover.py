"""Sockets that are handed to a running server are served by it, in place of the ones before; nobody else can hand it one."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.core import handover


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    with handover.ear(tmp_path / "ear.sock") as made:
        yield made


def test_a_listener_arrives_as_it_is(ear: socket.socket, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert handover.send(tmp_path / "ear.sock", "api", "nacre-2", listener)
        address = listener.getsockname()
    came = handover.receive(ear)
    assert came is not None and came[:2] == ("api", "nacre-2")
    with came[2] as taken, socket.create_connection(address, 5) as near:
        far, _ = taken.accept()
        near.sendall(b"x")
        assert far.recv(1) == b"x"
        far.close()
    assert handover.receive(ear) is None


def test_only_root_may_send(ear: socket.socket, tmp_path: Path) -> None:
    assert (tmp_path / "ear.sock").stat().st_mode & 0o777 == 0o600


def test_what_is_no_message_is_dropped(ear: socket.socket, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.connect(str(tmp_path / "ear.sock"))
        way.send(b"nonsense")
        way.send(b'["api", "h"]')
        read, write = os.pipe()
        socket.send_fds(way, [b'["api"]'], [read])
        os.close(read)
        os.close(write)
    assert handover.receive(ear) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not handover.send(tmp_path / "none" / "ear.sock", "api", "h", listener)
        assert not handover.send(tmp_path / "ear.sock", "api", "h", listener)
        handover.ear(tmp_path / "ear.sock").close()
        assert not handover.send(tmp_path / "ear.sock", "api", "h", listener)
