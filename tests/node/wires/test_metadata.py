import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from nacre import guest
from nacre.node.metadata import Metadata, send_frame
from nacre.node.metadata_child import length_of, main, page, target_of
from nacre.node.wires.driver import ControlPlaneDown

CURL = Path(guest.__file__).with_name("files") / "root/usr/bin/curl"
FILES = {
    "openstack/latest/meta_data.json": "{}",
    "openstack/2018-08-27/meta_data.json": "{}",
    "latest/meta-data/instance-id": "i-1",
    "latest/meta-data/public-keys/": "0=key",
    "latest/meta-data/public-keys/0/openssh-key": "ssh-ed25519 A",
    "latest/user-data": "hello",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "latest"),
        ("/openstack", "2018-08-27\nlatest"),
        ("/openstack/latest/", "meta_data.json"),
        ("/latest", "meta-data/\nuser-data"),
        ("/latest/meta-data/", "instance-id\npublic-keys/"),
        ("/latest/meta-data/public-keys", "0=key"),
        ("/latest/meta-data/public-keys/0/openssh-key", "ssh-ed25519 A"),
        ("//latest//user-data", "hello"),
        ("/latest/meta", None),
        ("/../etc/passwd", None),
    ],
)
def test_pages(path: str, expected: str | None) -> None:
    assert page(FILES, path) == expected


def test_requests() -> None:
    assert target_of(b"GET /a%20b?x=1 HTTP/1.1\r\nHost: h") == ("GET", "/a b", True)
    assert target_of(b"GET http://169.254.169.254/a HTTP/1.1\r\nConnection: Close") == ("GET", "/a", False)
    assert target_of(b"GET / HTTP/1.0") == ("GET", "/", False)
    assert target_of(b"POST / HTTP/1.1\r\nContent-Length: 5")[2] is False, "a body is not read as the next request"
    for bad in (b"", b"GET /", b"GET x HTTP/1.1", b"GET / FTP/1.1", b"GET / / HTTP/1.1"):
        with pytest.raises(ValueError):
            target_of(bad)


class Control:
    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = {"files": FILES}
        self.down = False
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, kind: str, id_: str, address: str) -> dict[str, Any] | None:
        self.asked.append((kind, id_, address))
        if self.down:
            raise ControlPlaneDown("down")
        return self.answer

    def keep(self, kind: str, id_: str, address: str, password: str) -> int:
        self.asked.append((kind, id_, address))
        if self.down:
            raise ControlPlaneDown("down")
        self.answer = {"files": {"openstack/latest/password": password}}
        return 200


def test_what_a_guest_leaves_is_what_it_reads_next(tmp_path: Path) -> None:
    control = Control()
    service = Metadata(tmp_path / "m", control, control.keep, lambda: None)
    assert service._look_up("network", "n", "10.0.0.5") == (200, FILES)
    assert service._left("network", "n", "10.0.0.5", "secret") == 200
    assert service._look_up("network", "n", "10.0.0.5")[1] == {"openstack/latest/password": "secret"}
    control.down = True
    assert service._left("network", "n", "10.0.0.5", "other") == 503


class Guests(threading.Thread):
    """The child over loopback, its questions answered here; `told` are the questions."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.parent, self.theirs = socket.socketpair()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.told: list[dict[str, Any]] = []

    def run(self) -> None:
        threading.Thread(target=lambda: asyncio.run(main(self.theirs.detach())), daemon=True).start()
        send_frame(self.parent, {"listen": ("network", "n")}, [self.listener.fileno()])
        with self.parent.makefile("rb") as stream:
            while len(head := stream.read(4)) == 4:
                message = json.loads(stream.read(struct.unpack("!I", head)[0]))
                self.told.append(message)
                known = [one["password"] for one in self.told if "password" in one]
                status = 409 if "password" in message and len(known) > 1 else 200
                send_frame(self.parent, {"answer": message["number"], "status": status, "files": {"openstack/latest/password": "".join(known[:1])}})


def test_a_guest_posts_a_password_with_its_curl() -> None:
    guests = Guests()
    guests.start()
    at = f"http://127.0.0.1:{guests.port}/openstack/latest"

    def curl(*words: str) -> subprocess.CompletedProcess[str]:
        wget = "#!/bin/sh\nexec busybox wget \"$@\"\n"
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "wget").write_text(wget)
            Path(folder, "wget").chmod(0o755)
            return subprocess.run(["sh", str(CURL), *words], env={"PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True, text=True,
                                  timeout=30, check=False)  # fmt: skip

    assert curl("-X", "POST", "-d", "s3cret&=", f"{at}/password").returncode == 0
    assert curl("-sS", f"{at}/password").stdout == "s3cret&="
    for wrong in (("-d", "again", f"{at}/password"), ("-d", "x", f"{at}/meta_data.json"), ("-d", "x" * 1021, f"{at}/password"), ("-X", "PUT", at)):
        assert curl(*wrong).returncode != 0
    assert [one["password"] for one in guests.told if "password" in one] == ["s3cret&=", "again"]
    guests.parent.close()


def test_lengths() -> None:
    assert length_of(b"POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n") == 12
    for bad in (b"POST / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n", b"X\r\nContent-Length: 1\r\nContent-Length: 2\r\n"):
        with pytest.raises(ValueError):
            length_of(bad)


def test_answers_are_kept_for_when_nobody_answers_and_forgotten_with_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    service = Metadata(tmp_path / "m", control, control.keep, lambda: None)
    look = service._look_up
    control.down = True
    assert look("network", "n", "10.0.0.5") == (503, {})
    control.down = False
    assert look("network", "n", "10.0.0.5") == (200, FILES)
    assert look("network", "n", "10.0.0.5") == (200, FILES) and len(control.asked) == 2, "a boot asks many times in a moment"
    fresh = Metadata(tmp_path / "m", control, control.keep, lambda: None)
    control.down = True
    assert fresh._look_up("network", "n", "10.0.0.5") == (200, FILES)
    assert fresh._look_up("network", "other", "10.0.0.5") == (503, {})
    control.down, control.answer = False, None
    assert fresh._look_up("network", "n", "10.0.0.5") == (404, {})
    control.down = True
    assert fresh._look_up("network", "n", "10.0.0.5") == (503, {})
    with pytest.raises(ValueError):
        fresh._look_up("network", "n", "../../x")


def test_nobody_but_root_reads_what_is_kept(tmp_path: Path) -> None:
    service = Metadata(tmp_path / "m", Control(), Control().keep, lambda: None)
    service._look_up("router", "r", "10.0.0.6")
    (kept,) = (tmp_path / "m").rglob("*.json")
    assert kept.stat().st_mode & 0o077 == 0 and json.loads(kept.read_text())["files"] == FILES
    service._forget(("router", "r"))
    assert not list((tmp_path / "m").rglob("*"))
    with contextlib.suppress(OSError):
        service.close()
