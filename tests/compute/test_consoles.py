"""Consoles from the browser's websocket to the guest's screen and back, through a real agent; tokens that open one once; the pages."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

from fake_node import until
from nacre import placement, program
from nacre.compute import tables
from nacre.core import consoles, ids, node_api, nodes
from nacre.core.caller import System
from nacre.core.consoles import meetings
from nacre.core.http import App
from nacre.core.serve import WEBSOCKETS
from nacre.node.agent import Agent
from nacre.node.deadline import NodeError
from nacre.node.feed import SocketSource
from nacre.node.hypervisor.fake import FakeHypervisor
from nacre.node.wires.fake import FakeWires

WHO = System(ids.request_id())
GREETING = b"RFB 003.008\n"


class Host:
    """The public listener and a host's in one event loop, as in the api process; the host's agent; the one screen of its guests."""

    def __init__(self, running: Any, folder: Path) -> None:
        self.running, self.folder = running, folder
        (folder / "store/novnc-1/core").mkdir(parents=True)
        (folder / "store/novnc-1/core/rfb.js").write_text("export default 1;\n")
        (folder / "store/novnc-1/secret").write_text("no")
        (folder / "store/novnc-1/complete").touch()
        app = App(running.cloud, (*program.SERVICES, consoles.service(program.compute.spend_console, folder / "store")))
        public = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{public.getsockname()[1]}"
        options: dict[str, Any] = {"log_config": None, "lifespan": "off", **WEBSOCKETS}
        ears = {"far": folder / "far.sock", "other": folder / "other.sock"}
        inner = [node_api.NodeApp(running.cloud, host, program.behind(), node_api.Heartbeats(running.cloud)) for host in ears]
        self.servers = [uvicorn.Server(uvicorn.Config(app, **options)),
                        *(uvicorn.Server(uvicorn.Config(each, uds=str(ear), **options)) for each, ear in zip(inner, ears.values(), strict=True))]
        sockets = [[public], None, None]

        async def serve() -> None:
            beating = asyncio.create_task(inner[0].heartbeats.forever())
            await asyncio.gather(*(server.serve(sockets=held) for server, held in zip(self.servers, sockets, strict=True)))
            beating.cancel()

        self.thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self.thread.start()
        until(lambda: all(server.started for server in self.servers))
        self.hypervisor = FakeHypervisor("far")
        self.agent = Agent("far", folder / "node", SocketSource(ears["far"]), self.hypervisor, FakeWires(), address="192.0.2.7")
        self.agent.start()
        until(self._offers)
        self.screen = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.screen.bind(str(folder / "vnc.sock"))
        self.screen.listen()
        self.hypervisor.screen = folder / "vnc.sock"

    def _offers(self) -> bool:
        with self.running.cloud.db.read() as conn:
            row = nodes.host_named(conn, "far")
            offered = [c for c in placement.candidates(conn, {"VCPU": 1}) if row is not None and c.provider_id == row.id and not c.missing]
            return bool(offered) and nodes.alive(row)

    def guest(self) -> socket.socket:
        """The guest's end of the console that was opened last."""
        self.screen.settimeout(10)
        connection, _ = self.screen.accept()
        connection.settimeout(10)
        return connection

    def open(self, token: str, **options: Any) -> ClientConnection:
        options = {"subprotocols": ["binary"], "origin": self.running.url, "proxy": None, "legacy": True, **options}
        return connect(f"ws://{self.address}/console/{token}", **options)

    def refusal(self, token: str, **options: Any) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as refused:
            self.open(token, **options)
        return refused.value.response.status_code, (refused.value.response.body or b"").decode()

    @property
    def meetings(self) -> dict[str, Any]:
        return self.running.cloud.memory.get("consoles", {})

    def stop(self) -> None:
        self.agent.stop()
        for server in self.servers:
            server.should_exit = True
        self.thread.join(10)
        self.screen.close()


@pytest.fixture(scope="module")
def node(running: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(running, tmp_path_factory.mktemp("n"))
    yield host
    host.stop()


@pytest.fixture(scope="module")
def server(running: Any, admin: Any, image: Any, flavor: Any) -> Any:
    made = admin.compute.create_server(name="seen", image_id=image.id, flavor_id=flavor.id, networks="none")
    until(lambda: admin.compute.get_server(made.id).status == "ACTIVE")
    return made


def _url(running: Any, server: Any, protocol: str = "vnc", kind: str = "novnc") -> str:
    with running.http("admin", **{"openstack-api-version": "compute 2.6"}) as http:
        answer = http.post(f"/compute/v2.1/servers/{server.id}/remote-consoles", json={"remote_console": {"protocol": protocol, "type": kind}})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["remote_console"]["url"])


@pytest.fixture
def token(running: Any, server: Any) -> str:
    return httpx.URL(_url(running, server)).params["path"].removeprefix("console/")


def _kept(running: Any) -> int:
    with running.cloud.db.read() as conn:
        return len(list(conn.execute(tables.console_tokens.select())))


def test_bytes_go_both_ways_and_the_token_opens_nothing_more(node: Host, token: str) -> None:
    with node.open(token) as near:
        assert near.subprotocol == "binary"
        with node.guest() as guest:
            guest.sendall(GREETING)
            assert near.recv(timeout=10) == GREETING
            near.send(b"hello")
            assert guest.recv(100) == b"hello"
            status, why = node.refusal(token)
            assert status == 403 and "used already" in why
            near.close()
            assert guest.recv(1) == b"", "the guest's end is closed with the browser's"
    until(lambda: not node.meetings)


def test_a_screen_that_ends_closes_the_browsers_end(node: Host, token: str) -> None:
    with node.open(token, subprotocols=None, origin=None) as near:
        assert near.subprotocol is None
        node.guest().close()
        with pytest.raises(ConnectionClosed):
            near.recv(timeout=10)
    until(lambda: not node.meetings)


def test_a_browser_that_does_not_read_holds_the_guest_back_and_loses_nothing(node: Host, token: str) -> None:
    chunk, sent = bytes(range(256)) * 256, 0
    with node.open(token, max_queue=1) as near, node.guest() as guest:
        guest.settimeout(1)
        with pytest.raises(TimeoutError):
            while sent < 1 << 28:
                sent += guest.send(chunk)
        assert sent < 1 << 26, "somebody buffers what nobody reads"
        guest.shutdown(socket.SHUT_WR)
        got = bytearray()
        with pytest.raises(ConnectionClosed):
            while True:
                got += near.recv(timeout=10)  # type: ignore[arg-type]
        assert len(got) == sent and bytes(got) == (chunk * (sent // len(chunk) + 2))[:sent]


def test_a_forged_token_and_no_token(node: Host, running: Any, token: str) -> None:
    kept = _kept(running)
    assert node.refusal("x" * 43)[0] == 403
    assert node.refusal(token[:-1] + ("A" if token[-1] != "A" else "B"))[0] == 403
    assert node.refusal("")[0] in (403, 404)
    assert _kept(running) == kept
    until(lambda: not node.meetings)


def test_a_page_of_another_origin_is_refused_and_the_token_stays_good(node: Host, token: str) -> None:
    for origin in ("http://evil.example", "null", running_with_another_port(node), "http://127.0.0.1:bad"):
        assert node.refusal(token, origin=origin)[0] == 403
    node.open(token, origin=node.running.url.replace("127.0.0.1", "localhost")).close()
    node.guest().close()


def running_with_another_port(node: Host) -> str:
    return f"{node.running.url.rpartition(':')[0]}:1"


def test_a_token_that_is_over(node: Host, running: Any, token: str) -> None:
    with running.cloud.db.write(WHO) as tx:
        tx.execute(tables.console_tokens.update().values(expires_at=tx.now - timedelta(seconds=1)))
    kept = _kept(running)
    assert node.refusal(token)[0] == 403
    assert _kept(running) == kept


def test_a_host_that_cannot_open_it_is_quoted(node: Host, token: str) -> None:
    node.hypervisor.screen, held = None, node.hypervisor.screen
    status, why = node.refusal(token)
    node.hypervisor.screen = held
    assert status == 503 and "has no vnc console" in why
    until(lambda: not node.meetings)


def test_a_host_that_does_not_dial_in_time(node: Host, running: Any, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meetings, "PATIENCE", 0.5)
    with running.cloud.db.write(WHO) as tx:
        tx.update(tables.servers, {"name": "seen"}, host="nowhere")
    begun = time.monotonic()
    status, why = node.refusal(token)
    with running.cloud.db.write(WHO) as tx:
        tx.update(tables.servers, {"name": "seen"}, host="far")
    assert status == 503 and "did not answer in time" in why and time.monotonic() - begun < 5
    until(lambda: not node.meetings)


def test_only_the_host_that_was_asked_may_come(node: Host) -> None:
    with pytest.raises(NodeError, match="nobody waits"):
        SocketSource(node.folder / "far.sock").console("strange")
    meeting = meetings.Meeting(asyncio.new_event_loop().create_future(), "some server", "far")
    node.meetings["known"] = meeting
    with pytest.raises(NodeError, match="nobody waits"):
        SocketSource(node.folder / "other.sock").console("known")
    assert not meeting.dialled
    with pytest.raises(InvalidStatus):
        unix_connect(str(node.folder / "far.sock"), "ws://node/elsewhere/known", legacy=True)
    del node.meetings["known"]


def test_open_consoles_are_bounded_and_a_refusal_spends_nothing(node: Host, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meetings, "OPEN", 0)
    assert node.refusal(token)[0] == 503
    monkeypatch.setattr(meetings, "OPEN", 1)
    monkeypatch.setattr(meetings, "OPEN_OF_A_GUEST", 0)
    assert "of this server" in node.refusal(token)[1]
    monkeypatch.undo()
    node.open(token).close()
    node.guest().close()


def test_a_database_that_does_not_answer_is_not_waited_for_and_spends_nothing(
    node: Host, running: Any, token: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meetings, "PATIENCE", 0.5)
    with running.cloud.db.write(WHO) as tx:
        tx.lock(tables.console_tokens.select())
        begun = time.monotonic()
        status, why = node.refusal(token)
        assert status == 503 and "database did not answer" in why and time.monotonic() - begun < 3
    assert "the database did not answer a console within 0.5 s; 1 of 8 threads" in caplog.text
    monkeypatch.undo()
    time.sleep(0.3)  # the one that gave up has had its turn
    node.open(token).close()
    node.guest().close()


def test_a_crowd_is_answered_and_each_token_opens_once(node: Host, running: Any, server: Any) -> None:
    """Eight tokens, each used by four at once, between forged ones, clients that say half of something and one that does not read."""
    tokens = [httpx.URL(_url(running, server)).params["path"].removeprefix("console/") for _ in range(8)]
    host, _, port = node.address.partition(":")

    def attempt(used: str) -> tuple[str, int, float]:
        begun = time.monotonic()
        try:
            node.open(used).close()
            status = 101
        except InvalidStatus as refused:
            status = refused.response.status_code
        return used, status, time.monotonic() - begun

    halves = [socket.create_connection((host, int(port))) for _ in range(100)]
    for number, half in enumerate(halves):
        half.sendall(b"" if number % 2 else f"GET /console/{tokens[0]} HTTP/1.1\r\nUpgrade: websocket\r\n".encode())
    with ThreadPoolExecutor(48) as pool:
        found = list(pool.map(attempt, [token for at in range(50) for token in (*tokens[at % 8 : at % 8 + 1] * (at < 32), f"forged-{at}")]))
    for half in halves:
        half.close()
    assert max(seconds for _, _, seconds in found) < 9
    assert sorted(used for used, status, _ in found if status == 101) == sorted(tokens)
    assert {status for _, status, _ in found} == {101, 403}
    until(lambda: not node.meetings)
    for _ in tokens:
        node.guest().close()


def test_addresses(running: Any, server: Any) -> None:
    base = running.cloud.public_url
    assert _url(running, server).startswith(f"https://{base.removeprefix('http://')}/console/vnc_lite.html?path=console%2F")
    assert _url(running, server, "serial", "serial").startswith(f"wss://{base.removeprefix('http://')}/console/")


@pytest.mark.parametrize(
    ("protocol", "kind", "why"),
    [
        ("spice", "spice-html5", "Unavailable console type spice-html5."),
        ("rdp", "rdp-html5", "Unavailable console type rdp-html5."),
        ("mks", "webmks", "Unavailable console type webmks."),
        ("vnc", "xvpvnc", "Invalid console type xvpvnc"),
        ("vnc", "serial", "Invalid console type serial"),
        ("vnc", "tea", "Invalid input for field/attribute remote_console.type"),
        ("tea", "novnc", "Invalid input for field/attribute remote_console.protocol"),
    ],
)
def test_what_is_no_console_of_ours(running: Any, server: Any, protocol: str, kind: str, why: str) -> None:
    kept = _kept(running)
    with running.http("admin", **{"openstack-api-version": "compute 2.8"}) as http:
        answer = http.post(f"/compute/v2.1/servers/{server.id}/remote-consoles", json={"remote_console": {"protocol": protocol, "type": kind}})
    assert answer.status_code == 400 and why in answer.json()["badRequest"]["message"], answer.text
    assert _kept(running) == kept


def test_the_actions_before_2_6(running: Any, server: Any) -> None:
    with running.http("admin", **{"openstack-api-version": "compute 2.5"}) as http:
        for action, kind, status in (("VNC", "novnc", 200), ("Serial", "serial", 200), ("SPICE", "spice-html5", 400), ("VNC", "tea", 400)):
            answer = http.post(f"/compute/v2.1/servers/{server.id}/action", json={f"os-get{action}Console": {"type": kind}})
            assert answer.status_code == status, answer.text


def test_pages_run_nothing_but_our_scripts(node: Host) -> None:
    with httpx.Client(base_url=f"http://{node.address}") as http:
        for name in ("vnc_lite.html", "serial.html", "vnc.js", "serial.js", "console.css", "novnc/core/rfb.js"):
            answer = http.get(f"/console/{name}")
            kind = {"html": "text/html", "js": "text/javascript", "css": "text/css"}[name.rpartition(".")[2]]
            assert answer.status_code == 200 and answer.headers["content-type"].split(";")[0] == kind, (name, answer.headers)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "<script>" not in answer.text and " style=" not in answer.text and " onclick=" not in answer.text
            again = http.get(f"/console/{name}", headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304 and not again.content


def test_an_address_is_no_path(node: Host) -> None:
    with httpx.Client(base_url=f"http://{node.address}") as http:
        for name in ("novnc/secret", "novnc/complete", "novnc/../novnc-1/secret", "novnc/core/../../novnc-1/secret", "novnc/%2e%2e/novnc-1/secret",
                     "novnc/core%2F..%2Fsecret", "novnc//etc/passwd", "novnc/%2Fetc%2Fpasswd", "../console.css", "%2e%2e/__init__.py", "novnc/"):
            answer = http.send(httpx.Request("GET", f"http://{node.address}/console/" + name, extensions={"target": f"/console/{name}".encode()}))
            assert answer.status_code in (404, 405), (name, answer.status_code, answer.text)
        assert http.get("/console/some-token").status_code == 405


def test_a_guest_that_is_off_has_no_console(running: Any, server: Any, admin: Any, token: str, node: Host) -> None:
    admin.compute.stop_server(server.id)
    until(lambda: admin.compute.get_server(server.id).status == "SHUTOFF")
    with running.http("admin", **{"openstack-api-version": "compute 2.6"}) as http:
        answer = http.post(f"/compute/v2.1/servers/{server.id}/remote-consoles", json={"remote_console": {"protocol": "vnc", "type": "novnc"}})
        assert answer.status_code == 409
        spice = {"remote_console": {"protocol": "spice", "type": "spice-html5"}}
        assert http.post(f"/compute/v2.1/servers/{server.id}/remote-consoles", json=spice).status_code == 400
        admin.compute.delete_server(server.id)
        until(lambda: not [s for s in admin.compute.servers() if s.id == server.id])
        assert node.refusal(token)[0] == 403
        gone = http.post(f"/compute/v2.1/servers/{server.id}/remote-consoles", json={"remote_console": {"protocol": "vnc", "type": "novnc"}})
        assert gone.status_code == 404 and gone.json()["itemNotFound"]["message"] == f"Instance {server.id} could not be found."
