import base64
import contextlib
import hashlib
import os
import pty
import socket
import ssl
import struct
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.core import tls
from nacre.node.console import dial_by_tls, open_console, pipe, relayed
from nacre.node.deadline import NodeError
from nacre.node.feed import SocketSource


class Browser:
    """The far end: takes one websocket on a unix socket, or over TLS, written from the RFC rather than from the code under test."""

    def __init__(self, at: Path | ssl.SSLContext, *, refuse: bool = False) -> None:
        if isinstance(at, Path):
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(str(at))
            self.listener.listen()
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
        self.tls = None if isinstance(at, Path) else at
        self.refuse, self.request = refuse, b""
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        plain, _ = self.listener.accept()
        self.connection = self.tls.wrap_socket(plain, server_side=True) if self.tls else plain
        self.connection.settimeout(5)
        while b"\r\n\r\n" not in self.request:
            self.request += self.connection.recv(4096)
        if self.refuse:
            self.connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        key = self.request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
        self.connection.sendall(head % accept)

    def send(self, payload: bytes, kind: int = 2, *, final: bool = True) -> None:
        size = struct.pack(">B", len(payload)) if len(payload) < 126 else struct.pack(">BH", 126, len(payload))
        if len(payload) > 65535:
            size = struct.pack(">BQ", 127, len(payload))
        self.connection.sendall(bytes([0x80 * final | kind]) + size + payload)

    def frame(self) -> tuple[int, bytes]:
        head = self._read(2)
        size = head[1] & 0x7F
        assert head[1] & 0x80, "a client masks"
        size = {126: lambda: struct.unpack(">H", self._read(2))[0], 127: lambda: struct.unpack(">Q", self._read(8))[0]}.get(size, lambda: size)()
        mask = self._read(4)
        return head[0] & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(self._read(size)))

    def data(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self.frame()[1]
        return found

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            chunk = self.connection.recv(size - len(found))
            assert chunk, "closed"
            found += chunk
        return found


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path / "api.sock")
    yield browser
    browser.listener.close()
    with contextlib.suppress(AttributeError):
        browser.connection.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def settles(true: object) -> bool:
    end = time.monotonic() + 5
    while not true():  # type: ignore[operator]
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def screen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_a_screen_is_piped_both_ways_and_both_ends_close(tmp_path: Path, far: Browser) -> None:
    with screen(tmp_path / "vnc.sock") as listener:
        pipe(open_console(tmp_path / "vnc.sock"), SocketSource(tmp_path / "api.sock").console("to/ken"))
        far.thread.join()
        assert far.request.startswith(b"GET /node/v1/consoles/to%2Fken HTTP/1.1\r\n")
        guest, _ = listener.accept()
        with guest:
            guest.settimeout(5)
            guest.sendall(b"RFB 003.008\n")
            assert far.data(12) == b"RFB 003.008\n"
            picture = os.urandom(200_000)
            guest.sendall(picture)
            assert far.data(len(picture)) == picture
            far.send(b"first ", final=False)
            far.send(b"ping", 9)
            far.send(b"x" * 300, 0)
            found = b""
            while len(found) < 306:
                found += guest.recv(1000)
            assert found == b"first " + b"x" * 300
            assert far.frame() == (10, b"ping")
            far.send(b"", 8)
            assert far.frame()[0] == 8
            far.connection.close()
            assert guest.recv(10) == b"", "the guest's end is closed with the browser's"


def test_a_screen_on_tcp(tmp_path: Path, far: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe(open_console(listener.getsockname()), SocketSource(tmp_path / "api.sock").console("t"))
        far.thread.join()
        guest, _ = listener.accept()
        guest.sendall(b"RFB 003.008\n")
        assert far.data(12) == b"RFB 003.008\n"
        guest.close()
        assert far.frame()[0] == 8
    with pytest.raises(NodeError, match="cannot be opened"):
        open_console(("127.0.0.1", 1))


def test_a_guest_that_ends_closes_the_browsers_end(tmp_path: Path, far: Browser) -> None:
    with screen(tmp_path / "vnc.sock") as listener:
        pipe(open_console(tmp_path / "vnc.sock"), SocketSource(tmp_path / "api.sock").console("t"))
        far.thread.join()
        listener.accept()[0].close()
        assert far.frame()[0] == 8


class Line:
    """A guest's serial line as QEMU makes it: a terminal, and a log of all that is written."""

    def __init__(self, folder: Path) -> None:
        self.machine, self.held = pty.openpty()
        tty.setraw(self.held)
        self.terminal, self.log = Path(os.ttyname(self.held)), folder / "console.log"
        self.log.touch()

    def say(self, text: bytes) -> None:
        os.write(self.machine, text)
        with self.log.open("ab") as log:
            log.write(text)

    def close(self) -> None:
        os.close(self.machine)
        os.close(self.held)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    with contextlib.suppress(OSError):
        made.close()


def test_a_terminal_is_piped_raw_and_let_go_when_the_browser_leaves(tmp_path: Path, far: Browser, line: Line) -> None:
    line.say(b"what was said before\n")
    before = descriptors()
    pipe(open_console(line.terminal, line.log), SocketSource(tmp_path / "api.sock").console("t"))
    far.thread.join()
    assert far.data(21) == b"what was said before\n"
    line.say(b"login: \n")
    assert far.data(8) == b"login: \n", "no carriage return is added"
    far.send(b"cirros\r")
    assert os.read(line.machine, 100) == b"cirros\r", "and none is taken away"
    far.connection.close()
    assert settles(lambda: descriptors() <= before), "nothing is held, though the guest says nothing more"


def test_another_reader_of_the_terminal_loses_nothing(tmp_path: Path, far: Browser, line: Line) -> None:
    pipe(open_console(line.terminal, line.log), SocketSource(tmp_path / "api.sock").console("t"))
    far.thread.join()
    line.say(b"login: ")
    assert far.data(7) == b"login: "
    time.sleep(0.2)
    assert os.read(line.held, 100) == b"login: "


def test_a_terminal_that_nobody_else_reads_never_fills(tmp_path: Path, far: Browser, line: Line) -> None:
    pipe(open_console(line.terminal, line.log), SocketSource(tmp_path / "api.sock").console("t"))
    far.thread.join()
    written = os.urandom(100_000)
    sender = threading.Thread(target=lambda: [line.say(written[at : at + 1000]) for at in range(0, len(written), 1000)], daemon=True)
    sender.start()
    assert far.data(len(written)) == written
    sender.join(5)
    assert not sender.is_alive()


def test_a_log_that_is_turned_is_followed(tmp_path: Path, far: Browser, line: Line) -> None:
    pipe(open_console(line.terminal, line.log), SocketSource(tmp_path / "api.sock").console("t"))
    far.thread.join()
    line.say(b"old")
    line.log.rename(tmp_path / "console.log.0")
    line.say(b"new")
    assert far.data(6) == b"oldnew"


def test_a_guest_that_is_switched_off_ends_its_serial_console(tmp_path: Path, far: Browser, line: Line) -> None:
    pipe(open_console(line.terminal, line.log), SocketSource(tmp_path / "api.sock").console("t"))
    far.thread.join()
    line.say(b"bye")
    line.close()
    assert far.data(3) == b"bye"
    assert far.frame()[0] == 8


def test_nobody_waits(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="nobody waits"):
        SocketSource(tmp_path / "none.sock").console("t")
    Browser(tmp_path / "api.sock", refuse=True)
    with pytest.raises(NodeError, match="nobody waits") as refused:
        SocketSource(tmp_path / "api.sock").console("t")
    assert "403" in refused.value.detail
    with pytest.raises(NodeError, match="cannot be opened"):
        open_console(tmp_path / "none")
    with pytest.raises(NodeError, match="cannot be opened"):
        open_console(tmp_path / "none", tmp_path / "console.log")


class Controller:
    """A control plane over TLS that greets with many session tickets and says back what it hears."""

    def __init__(self, folder: Path) -> None:
        ca, server = (tls.Pair(folder / f"{name}.key", folder / f"{name}.crt") for name in ("ca", "server"))
        tls.ensure(ca, server, ["127.0.0.1"], (os.getuid(), os.getgid()))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(server.certificate, server.key)
        self.context.num_tickets = 50
        self.trusted = ssl.create_default_context(cafile=str(ca.certificate))
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._echo, args=(self.listener.accept()[0],), daemon=True).start()

    def _echo(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), self.context.wrap_socket(plain, server_side=True) as connection:
            while chunk := connection.recv(65536):
                connection.sendall(chunk)
                if chunk.endswith(b"bye"):
                    return

    def connect(self, listener: socket.socket | None = None) -> ssl.SSLSocket:
        return self.trusted.wrap_socket(socket.create_connection((listener or self.listener).getsockname()), server_hostname="127.0.0.1")


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    made = Controller(tmp_path)
    yield made
    made.listener.close()


def test_nothing_is_lost_over_tls_by_a_thread_that_reads_and_one_that_writes(controller: Controller) -> None:
    """Without the relay the first words, written while the session tickets are read, are lost once in some ten connections."""
    for _ in range(60):
        with relayed(controller.connect()) as near:
            near.settimeout(10)
            got: list[bytes] = []
            reader = threading.Thread(target=lambda near=near, got=got: got.append(near.recv(100)), daemon=True)
            reader.start()
            near.sendall(b"hello")
            reader.join(15)
            assert got == [b"hello"]


def test_much_goes_both_ways_over_tls_and_the_end_of_either_side_is_seen(controller: Controller) -> None:
    before, much = descriptors(), os.urandom(3_000_000) + b"bye"
    near = relayed(controller.connect())
    near.settimeout(10)
    writer = threading.Thread(target=near.sendall, args=(much,), daemon=True)
    writer.start()
    got = b""
    while chunk := near.recv(1 << 20):
        got += chunk
        time.sleep(0.001)
    writer.join(10)
    assert got == much
    near.close()
    relayed(controller.connect()).close()
    assert settles(lambda: descriptors() <= before), "both ends are let go"


def test_a_console_over_tls(tmp_path: Path, controller: Controller) -> None:
    far = Browser(controller.context)
    with screen(tmp_path / "vnc.sock") as listener:
        pipe(open_console(tmp_path / "vnc.sock"), dial_by_tls(lambda: controller.connect(far.listener), "to/ken", {"X-Nacre-Host": "far"}))
        far.thread.join()
        assert far.request.startswith(b"GET /node/v1/consoles/to%2Fken HTTP/1.1\r\n") and b"X-Nacre-Host: far\r\n" in far.request
        guest, _ = listener.accept()
        with guest:
            guest.settimeout(5)
            picture = os.urandom(500_000)
            sender = threading.Thread(target=guest.sendall, args=(picture,), daemon=True)
            sender.start()
            far.send(b"typed meanwhile")
            assert guest.recv(100) == b"typed meanwhile"
            assert far.data(len(picture)) == picture
            far.connection.close()
            assert guest.recv(10) == b"", "the guest's end is closed with the browser's"
    refusing = Browser(controller.context, refuse=True)
    with pytest.raises(NodeError, match="nobody waits") as refused:
        dial_by_tls(lambda: controller.connect(refusing.listener), "t", {})
    assert "403" in refused.value.detail
