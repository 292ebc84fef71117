"""Consoles of a real guest: its screen and its serial line by websocket, `virsh console` beside it, and (long) in a real browser."""

import base64
import os
import pty
import re
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from machine.browser import Page, chromium
from machine.course import Course, fresh, until

pytestmark = [pytest.mark.machine, pytest.mark.long]
LOGIN = "cirros login: "


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        made.openstack("admin", "flavor", "create", "--vcpus", "1", "--ram", "64", "--disk", "1", "m1.nano")
        made.openstack("demo", "server", "create", "--flavor", "m1.nano", "--image", "nacre-guest", "--nic", "none", "--wait", "seen")
        until(lambda: "boot completed" in made.openstack("demo", "console", "log", "show", "seen"), 120, every=2)
        yield made


def url(course: Course, *kind: str) -> str:
    return course.value("demo", "url", "console", "url", "show", *kind, "seen")


def websocket(course: Course, address: str) -> ClientConnection:
    """The websocket that the page at `address` would open, or the address itself."""
    trusted = ssl.create_default_context(cafile=str(course.home / "ca.pem"))
    address = re.sub(r"^https://(.*)/console/\w+\.html\?path=console%2F", r"wss://\1/console/", address)
    return connect(address, ssl=trusted, proxy=None, legacy=True)


def refused(course: Course, address: str) -> int:
    with pytest.raises(InvalidStatus) as refusal:
        websocket(course, address)
    return int(refusal.value.response.status_code)


class Line:
    """A terminal of the guest's, on whichever way: what came, and what is typed."""

    def __init__(self) -> None:
        self.got = b""

    def type(self, text: str) -> None:
        raise NotImplementedError

    def says(self, text: str, seconds: float = 15) -> str:
        """Everything up to `text`, which is taken."""
        until(lambda: text.encode() in self.got, seconds, every=0.05)
        found, _, self.got = self.got.partition(text.encode())
        return found.decode(errors="replace").replace("\r", "")


class Serial(Line):
    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self.socket = socket
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for chunk in self.socket:
            assert isinstance(chunk, bytes)
            self.got += chunk

    def type(self, text: str) -> None:
        self.socket.send(text.encode())


class Virsh(Line):
    def __init__(self, terminal: int) -> None:
        super().__init__()
        self.terminal = terminal
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self.terminal, 1 << 16):
                self.got += chunk
        except OSError:
            pass

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())


@contextmanager
def virsh_console(course: Course) -> Iterator[Virsh]:
    """`nacre exec -- virsh console`, on a terminal as a person has it."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "-c", str(course.clone / "nacre"), "exec", "--home", str(course.home), "--", "virsh", "console", "instance-00000001"],
        stdin=its, stdout=its, stderr=its,
    )  # fmt: skip
    os.close(its)
    line = Virsh(ours)
    try:
        line.says("Escape character is")
        yield line
        line.type("\x1d")
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        os.close(ours)


def logged_in(line: Line) -> None:
    line.type("\r")
    until(lambda: re.search(rb"(login: |\$ \S*)$", line.got), 20)
    if line.got.endswith(LOGIN.encode()):
        line.type("cirros\r")
        line.says("Password: ")
        line.type("gocubsgo\r")
        line.says("$ ")
    line.got = b""


def command(line: Line, text: str) -> str:
    """What a command prints, at the guest's shell."""
    line.type(f"echo BEG''IN; {text}; echo E''ND\r")
    return printed(line)


def printed(line: Line) -> str:
    """What the next command prints, whoever typed it."""
    line.says("BEGIN\r\n")
    return line.says("END\r\n")


def test_the_screen_answers_as_vnc_and_its_address_works_once(course: Course) -> None:
    address = url(course)
    with websocket(course, address) as screen:
        assert screen.recv(timeout=10) == b"RFB 003.008\n"
        screen.send(b"RFB 003.008\n")
        assert screen.recv(timeout=10) == b"\x01\x01", "one kind of security: none, the token was it"
        screen.send(b"\x01")
        assert screen.recv(timeout=10) == b"\0\0\0\0"
        screen.send(b"\x01")
        hello = screen.recv(timeout=10)
        assert isinstance(hello, bytes) and int.from_bytes(hello[:2], "big") >= 640 and b"instance-00000001" in hello
        assert refused(course, address) == 403
    assert refused(course, address) == 403
    assert refused(course, address[:-1] + ("A" if address[-1] != "A" else "B")) == 403


def test_an_address_is_over_after_its_time(course: Course) -> None:
    address = url(course)
    with sqlite3.connect(course.home / "db/nacre.db", timeout=10) as database:
        database.execute("update console_tokens set expires_at = datetime('now', '-1 second') || '.000000'")
    database.close()
    assert refused(course, address) == 403


def test_nothing_lingers(course: Course) -> None:
    def threads() -> int:
        counted = course.nacre("status", "--json").stdout
        pids = [int(pid) for pid in re.findall(r'"role": "node[^}]*?"pid": (\d+)', counted)]
        assert pids, counted
        return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)

    before = threads()
    sockets = [websocket(course, url(course)) for _ in range(3)]
    assert threads() >= before + 3
    for socket in sockets:
        socket.close()
    until(lambda: threads() <= before + 1, 10)


def test_the_serial_line_and_virsh_console_beside_it(course: Course) -> None:
    with websocket(course, url(course, "--serial")) as socket, websocket(course, url(course, "--serial")) as second:
        line, watcher = Serial(socket), Serial(second)
        line.says("boot completed")
        logged_in(line)
        assert command(line, "echo $((6 * 7))").strip() == "42"
        assert len(command(line, "seq 1 5000").split()) == 5000, "nobody reads the terminal, and the guest is not held up"
        with virsh_console(course) as virsh:
            assert command(virsh, "echo by-virsh").strip() == "by-virsh"
            assert printed(line).strip() == "by-virsh"
            watcher.got = virsh.got = b""
            numbers = [str(number) for number in range(1, 3001)]
            assert command(line, "seq 1 3000").split() == numbers
            assert printed(watcher).split() == numbers, "two serial consoles see the same"
            assert printed(virsh).split() == numbers, "and virsh console loses nothing to them"
        assert command(line, "echo still here").strip() == "still here"
        line.type("exit\r")


def test_the_log_goes_on_when_virtlogd_was_killed(course: Course) -> None:
    with websocket(course, url(course, "--serial")) as socket:
        line = Serial(socket)
        logged_in(line)
        course.exec("bash", "-c", "kill -9 $(cat /run/virtlogd.pid)")
        line.type("while sleep 1; do date +said-at-%s; done\r")
        line.says("said-at-1", 20)
        line.type("\x03")
        assert command(line, "echo $((6 * 7))").strip() == "42"
        line.type("exit\r")
    until(lambda: "said-at-1" in course.openstack("demo", "console", "log", "show", "seen"), 10)
    assert "the console log of server" in course.nacre("logs", "node").stdout


def test_a_screen_on_tcp_as_the_configuration_says(course: Course) -> None:
    """`[vnc] server_listen`: a viewer on the host reaches the guest's screen at port 5900, and so does its page's websocket."""
    options = course.home / "nacre.toml"
    options.write_text(options.read_text().replace("# server_listen", "server_listen"))
    course.nacre("up", timeout=300)
    with websocket(course, url(course)) as screen:
        assert screen.recv(timeout=10) == b"RFB 003.008\n", "until its next start the guest's screen is where it was"
    course.openstack("demo", "server", "reboot", "--hard", "--wait", "seen")
    viewer = "exec 3<>/dev/tcp/localhost/5900; head -c 12 <&3; printf 'RFB 003.008\\n' >&3; head -c 2 <&3 | od -An -tx1"
    assert course.exec("bash", "-c", viewer).stdout == "RFB 003.008\n 01 01\n"
    assert course.exec("virsh", "domdisplay", "instance-00000001").stdout.strip() == "vnc://127.0.0.1:0"
    with websocket(course, url(course)) as screen:
        assert screen.recv(timeout=10) == b"RFB 003.008\n"
    options.write_text(options.read_text().replace('server_listen = "127.0.0.1"', 'server_listen = "everywhere"'))
    refusal = course.nacre("up", check=False)
    assert refusal.returncode == 1 and "server_listen 'everywhere' is not an IP address" in refusal.stderr + refusal.stdout


_DIFFERENCE = """(async () => {
        const shown = document.querySelector("#screen canvas"), image = new Image();
        image.src = "data:image/png;base64,PICTURE";
        await image.decode();
        if (image.width !== shown.width || image.height !== shown.height) return 1;
        const pixels = (source) => {
            const canvas = document.createElement("canvas");
            canvas.width = image.width; canvas.height = image.height;
            canvas.getContext("2d").drawImage(source, 0, 0);
            return new Uint32Array(canvas.getContext("2d").getImageData(0, 0, image.width, image.height).data.buffer);
        };
        const [a, b] = [pixels(shown), pixels(image)];
        const drawn = a.filter((pixel) => pixel !== a[a.length - 1]).length;
        if (drawn < 1000) return 1;
        return a.filter((pixel, at) => pixel !== b[at]).length / a.length;
    })()"""


def difference(course: Course, page: Page, folder: Path) -> float:
    """The share of pixels in which the page differs from what the hypervisor says is on the screen."""
    file = folder / "screen.png"
    course.exec("virsh", "screenshot", "instance-00000001", str(file))
    picture = base64.b64encode(file.read_bytes()).decode()
    found = page.value(_DIFFERENCE.replace("PICTURE", picture))
    assert isinstance(found, int | float)
    return float(found)


@pytest.mark.long
def test_a_browser_shows_the_login_prompt_and_types(course: Course, tmp_path: Path) -> None:
    with chromium(tmp_path, course.home / "ca.pem") as page, websocket(course, url(course, "--serial")) as socket:
        status = 'document.getElementById("status")?.textContent'
        line = Serial(socket)
        logged_in(line)
        address = url(course)
        page.open(address)
        until(lambda: str(page.value(status)).startswith("Connected to"), 20)
        until(lambda: difference(course, page, tmp_path) < 0.002, 10)  # a cursor may blink
        assert LOGIN in command(line, "sudo cat /dev/vcs1")
        page.picture(tmp_path / "login.png")
        page.type("cirros\r")
        until(lambda: "Password:" in command(line, "sudo cat /dev/vcs1"), 10, every=1)
        until(lambda: difference(course, page, tmp_path) < 0.002, 10)
        page.open("about:blank")
        page.open(address)
        until(lambda: "did not open" in str(page.value(status)), 20)
        page.open(url(course, "--serial").replace("wss://", "https://").replace("/console/", "/console/serial.html?path=console%2F"))
        until(lambda: str(page.value(status)).startswith("Connected"), 20)
        page.type("echo $((6 * 7))\r")
        until(lambda: "\n42\n" in str(page.value('document.getElementById("terminal")?.textContent')), 20)
        line.type("exit\r")
        time.sleep(0.2)
