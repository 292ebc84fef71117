"""A machine joins: its token and signing request, then the listener that believes only certificates of the cloud's authority for nodes."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from conftest import make_cloud
from nacre import program
from nacre.core import clock, joining, node_api, nodes, serve, tls
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.node.feed_tls import TlsSource
from nacre.node.wires.driver import ControlPlaneDown

WHO = System("req-join")
OWN = (os.geteuid(), os.getegid())


@dataclass
class Controller:
    cloud: Cloud
    keys: Path
    port: int

    def token(self, seconds: int = 60) -> str:
        with self.cloud.db.write(WHO) as tx:
            return joining.make(tx, seconds)

    def ask(self, token: str, host: str, csr: bytes | str) -> tuple[int, dict[str, Any]]:
        app = joining.Join(PlainTextResponse("the API"), self.cloud, frozenset({"local"}), self.keys)
        csr = csr.decode() if isinstance(csr, bytes) else csr
        client = TestClient(app)
        assert client.get("/identity/v3").text == "the API"
        answer = client.post(joining.PATH, json={"token": token, "host": host, "csr": csr})
        return answer.status_code, answer.json()

    def unused(self) -> int:
        with self.cloud.db.read() as conn:
            return int(conn.execute(sa.select(sa.func.count()).select_from(joining.tokens).where(joining.tokens.c.used_at.is_(None))).scalar() or 0)

    def source(self, folder: Path, host: str, key: bytes, certificate: bytes | str) -> TlsSource:
        folder.mkdir()
        for name, content in {"key.pem": key, "certificate.pem": certificate, "ca.pem": (self.cloud.home.path / "ca.pem").read_bytes(),
                              "controller": f"127.0.0.1:{self.port}"}.items():  # fmt: skip
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return TlsSource(host, folder)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    cloud = make_cloud(tmp_path_factory.mktemp("join") / "home")
    home, keys = cloud.home.path, cloud.home.path / "keys"
    server = tls.Pair(keys / "server.key", keys / "server.crt")
    tls.ensure(tls.Pair(home / "ca.key", home / "ca.pem"), server, ["127.0.0.1"], OWN)
    tls.ensure_authority(tls.Pair(keys / "node-ca.key", keys / "node-ca.crt"), OWN, "node CA")
    beats, behind = node_api.Heartbeats(cloud), program.behind()
    app = joining.ByCertificate(lambda host: node_api.NodeApp(cloud, host, behind, beats), frozenset({"local"}))
    listening, loop = socket.create_server(("127.0.0.1", 0)), asyncio.new_event_loop()
    joined = serve.Joined(app, [listening], tls.node_context((server.certificate, server.key), keys / "node-ca.crt"))
    loop.run_until_complete(serve._listen_for(joined))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield Controller(cloud, keys, listening.getsockname()[1])
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_a_machine_joins_and_is_who_its_certificate_says(controller: Controller, tmp_path: Path) -> None:
    key, csr = tls.request("far-1")
    status, answer = controller.ask(controller.token(), "far-1", csr)
    assert status == 200 and set(answer) == {"certificate", "ca", "port"}
    source = controller.source(tmp_path / "far", "far-1", key, answer["certificate"])
    source.report({"epoch": 0, "seen": {"agents": {"dhcp": True}}})
    assert [document.id for document in source.feed({}, epoch=0, calls=[], wait=0).documents if document.kind == "host"] == ["far-1"]
    with controller.cloud.db.read() as conn:
        assert nodes.host_named(conn, "far-1") is not None
    source.close()


def test_what_is_refused_and_why(controller: Controller) -> None:
    _, csr = tls.request("far-2")
    used, good, short = controller.token(), controller.token(), controller.token(1)
    assert controller.ask(used, "far-2", csr)[0] == 200
    left = controller.unused()
    with controller.cloud.db.write(WHO) as tx:
        nodes.register(tx, "there")
        tx.update(nodes.hosts, {"name": "there"}, last_seen=tx.now)
    refusals = [
        (used, "far-2", csr, "this token was used already, by far-2"),
        ("of-another-cloud", "far-2", csr, "this token is not of this cloud"),
        (good, "far-3", csr, "the signing request names far-2, not far-3"),
        (good, "far-2", "no request", "the signing request cannot be read"),
        (good, "../far", tls.request("../far")[1], "'../far' is no name for a host"),
        (good, "local", tls.request("local")[1], "host local is one of the controller's own"),
        (good, "there", tls.request("there")[1], "a host there is there already"),
        (good, "far-2", "x" * joining.LARGEST, "that is too much"),
    ]
    for token, host, request, reason in refusals:
        assert controller.ask(token, host, request) == (403, {"error": reason})
    with controller.cloud.db.write(WHO) as tx:
        tx.update(joining.tokens, {"digest": joining._digest(short)}, expires_at=clock.utcnow() - timedelta(seconds=1))
    assert controller.ask(short, "far-2", csr) == (403, {"error": "this token has expired"})
    assert controller.unused() == left, "a refusal spends nothing"
    assert controller.ask(good, "far-2", csr)[0] == 200


def test_a_secret_is_not_kept(controller: Controller) -> None:
    secret = controller.token()
    for file in (controller.cloud.home.path / "db").iterdir():
        assert secret.encode() not in file.read_bytes()


def test_the_listener_believes_nobody_else(controller: Controller, tmp_path: Path) -> None:
    key, csr = tls.request("far-4")
    certificate = controller.ask(controller.token(), "far-4", csr)[1]["certificate"]
    thief = controller.source(tmp_path / "thief", "far-5", key, certificate)
    with pytest.raises(ControlPlaneDown, match="this certificate is of host far-4, not of far-5"):
        thief.report({})
    foreign = tls.Pair(tmp_path / "foreign.key", tmp_path / "foreign.crt")
    tls.ensure_authority(foreign, OWN, "another cloud")
    public = x509.load_pem_x509_csr(csr).public_key()
    with pytest.raises(ControlPlaneDown):
        controller.source(tmp_path / "foreign", "far-4", key, tls.sign_node(foreign, public, "far-4")).report({})
    inside = tls.Pair(controller.keys / "node-ca.key", controller.keys / "node-ca.crt")
    with pytest.raises(ControlPlaneDown, match="host local does not come this way"):
        controller.source(tmp_path / "local", "local", key, tls.sign_node(inside, public, "local")).report({})
    bare = ssl.create_default_context(cafile=str(controller.cloud.home.path / "ca.pem"))
    said = b""
    plain = socket.create_connection(("127.0.0.1", controller.port), 10)
    with contextlib.suppress(OSError), bare.wrap_socket(plain, server_hostname="127.0.0.1") as channel:
        channel.sendall(b"GET /node/v1/feed HTTP/1.1\r\nHost: x\r\n\r\n")
        said = channel.recv(100)
    assert said == b"", "without a certificate nothing is answered"
    with controller.cloud.db.read() as conn:
        assert nodes.host_named(conn, "far-5") is None and nodes.host_named(conn, "local") is None


def test_server_certificates_are_not_for_nodes(controller: Controller, tmp_path: Path) -> None:
    server = tls.Pair(controller.keys / "server.key", controller.keys / "server.crt").load()
    assert server is not None and isinstance(server[0], ec.EllipticCurvePrivateKey)
    source = controller.source(tmp_path / "server", "127.0.0.1", (controller.keys / "server.key").read_bytes(),
                               (controller.keys / "server.crt").read_bytes())  # fmt: skip
    with pytest.raises(ControlPlaneDown):
        source.report({})
