"""A machine joins: its token and signing request, then the listener that believes only certificates of the cloud's authority for nodes."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from nacre.node.deadline import NodeError
from nacre.node.feed_tls import IDENTITY, TlsSource
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

    def source(self, folder: Path, host: str, key: bytes, certificate: bytes | str, over: Callable[[], None] = lambda: None) -> TlsSource:
        folder.mkdir()
        identity = key + (certificate.encode() if isinstance(certificate, str) else certificate)
        for name, content in {IDENTITY: identity, "ca.pem": (self.cloud.home.path / "ca.pem").read_bytes(),
                              "controller": f"127.0.0.1:{self.port}".encode()}.items():  # fmt: skip
            (folder / name).write_bytes(content)
        return TlsSource(host, folder, over)

    def joined(self, folder: Path, host: str, over: Callable[[], None] = lambda: None) -> TlsSource:
        key, csr = tls.request(host)
        status, answer = self.ask(self.token(), host, csr)
        assert status == 200, answer
        return self.source(folder, host, key, answer["certificate"], over)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    cloud = make_cloud(tmp_path_factory.mktemp("join") / "home")
    home, keys = cloud.home.path, cloud.home.path / "keys"
    server = tls.Pair(keys / "server.key", keys / "server.crt")
    tls.ensure(tls.Pair(home / "ca.key", home / "ca.pem"), server, ["127.0.0.1"], OWN)
    tls.ensure_authority(tls.Pair(keys / "node-ca.key", keys / "node-ca.crt"), OWN, "node CA")
    beats, behind = node_api.Heartbeats(cloud), program.behind()
    app = joining.ByCertificate(cloud, lambda host, permit: node_api.NodeApp(cloud, host, behind, beats, permit), frozenset({"local"}), keys)
    listening, loop = socket.create_server(("127.0.0.1", 0)), asyncio.new_event_loop()
    joined = serve.Joined(app, tls.node_context((server.certificate, server.key), keys / "node-ca.crt"))
    loop.run_until_complete(serve._way_for(joined)(listening))
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
        nodes.heard_of(tx, ["there"])
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


def test_a_revoked_host_joins_anew_at_once(controller: Controller) -> None:
    """Though it was heard of a moment ago."""
    _, csr = tls.request("far-30")
    assert controller.ask(controller.token(), "far-30", csr)[0] == 200
    with controller.cloud.db.write(WHO) as tx:
        nodes.register(tx, "far-30")
        nodes.heard_of(tx, ["far-30"])
    assert controller.ask(controller.token(), "far-30", csr) == (403, {"error": "a host far-30 is there already"})
    with controller.cloud.db.write(WHO) as tx:
        joining.revoke(tx, "far-30")
    assert controller.ask(controller.token(), "far-30", csr)[0] == 200
    assert controller.ask(controller.token(), "far-30", csr)[0] == 403, "it is there again"


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
        controller.source(tmp_path / "foreign", "far-4", key, tls.sign_node(foreign, public, "far-4", "0" * 64)).report({})
    inside = tls.Pair(controller.keys / "node-ca.key", controller.keys / "node-ca.crt")
    with pytest.raises(ControlPlaneDown, match="host local does not come this way"):
        controller.source(tmp_path / "local", "local", key, tls.sign_node(inside, public, "local", "0" * 64)).report({})
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


def test_a_certificate_is_renewed_in_time_and_with_a_new_key(controller: Controller, tmp_path: Path) -> None:
    source = controller.joined(tmp_path / "far", "far-6")
    source.report({})
    first = (tmp_path / "far" / IDENTITY).read_bytes()
    held = x509.load_pem_x509_certificate(first)
    assert held.not_valid_after_utc - datetime.now(UTC) > timedelta(days=700), "a new certificate stays"
    key, csr = tls.request("far-6")
    admission = str(held.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)[0].value)
    public = x509.load_pem_x509_csr(csr).public_key()
    old = key + tls.sign_node(joining.authority(controller.keys), public, "far-6", admission, timedelta(minutes=25))
    (tmp_path / "part").write_bytes(old)
    (tmp_path / "part").rename(tmp_path / "far" / IDENTITY)  # an hour before now to 25 minutes from now: less than a third is left
    source.close()
    again = TlsSource("far-6", tmp_path / "far")
    again.report({})
    new = (tmp_path / "far" / IDENTITY).read_bytes()
    renewed = x509.load_pem_x509_certificate(new)
    assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=700) and renewed.public_key() != public
    assert (tmp_path / "far" / IDENTITY).stat().st_mode & 0o777 == 0o600
    again.close()
    TlsSource("far-6", tmp_path / "far").report({})
    assert (tmp_path / "far" / IDENTITY).read_bytes() == new


def test_a_renewal_gives_nobody_another_name(controller: Controller, tmp_path: Path) -> None:
    source = controller.joined(tmp_path / "far", "far-7")
    _, csr = tls.request("far-6")
    for body, reason in ({"csr": csr.decode()}, "names far-6, not far-7"), ({"csr": "none"}, "cannot be read"), ({}, "csr"):
        with pytest.raises(ControlPlaneDown, match=reason):
            source._post("/node/v1/renew", body, 10)


def test_a_revoked_certificate_counts_no_more(controller: Controller, tmp_path: Path) -> None:
    over = threading.Event()
    source = controller.joined(tmp_path / "far", "far-8", over.set)
    source.report({"epoch": 0, "seen": {"agents": {}}})
    renewed = json.loads(source._post("/node/v1/renew", {"csr": (request := tls.request("far-8"))[1].decode()}, 10))
    waiting: list[Exception] = []

    def wait() -> None:
        try:
            source.feed(have, epoch=1, calls=[], wait=20)
        except ControlPlaneDown as error:
            waiting.append(error)

    documents = source.feed({}, epoch=0, calls=[], wait=0).documents
    have = {kind: {document.id: document.version for document in documents if document.kind == kind} for kind in {one.kind for one in documents}}
    held = threading.Thread(target=wait)
    held.start()
    with controller.cloud.db.read() as conn:
        before = nodes.host_named(conn, "far-8")
    time.sleep(0.5)
    with controller.cloud.db.write(WHO) as tx:
        joining.revoke(tx, "far-8")
    held.join(5)
    assert waiting and "was revoked" in str(waiting[0]), "a feed that is held ends, too"
    assert over.wait(1) and json.loads((tmp_path / "far" / "refused").read_text())["code"] == "revoked"
    other = controller.source(tmp_path / "other", "far-8", request[0], renewed["certificate"])
    for ask in (
        lambda: other.report({"seen": {"agents": {"dhcp": True}}}),
        lambda: other.feed({}, epoch=0, calls=[], wait=0),
        lambda: other.metadata("network", "n", "10.0.0.1"),
        lambda: other._post("/node/v1/renew", {"csr": request[1].decode()}, 10),
    ):
        with pytest.raises(ControlPlaneDown, match="was revoked"):
            ask()
    with pytest.raises(NodeError):
        other.console("rendezvous")
    with controller.cloud.db.read() as conn:
        assert nodes.host_named(conn, "far-8") == before
    controller.joined(tmp_path / "again", "far-8").report({})
    with pytest.raises(ControlPlaneDown, match="was revoked"):
        other.report({})


def test_a_host_speaks_for_itself_only(controller: Controller, tmp_path: Path) -> None:
    source = controller.joined(tmp_path / "far", "far-12")
    with controller.cloud.db.write(WHO) as tx:
        nodes.register(tx, "other")
        own, foreign = (nodes.call(tx, host, nodes.NewCall("ensure_power", {})) for host in ("far-12", "other"))
    results = [{"id": call_id, "ok": True, "value": {}} for call_id in (own, foreign)]
    with pytest.raises(ControlPlaneDown, match=f"call {foreign} was made to host other, not to far-12"):
        source.report({"results": results, "seen": {"agents": {"dhcp": True}}})
    with controller.cloud.db.read() as conn:
        assert nodes.outcome(conn, foreign)[0] == nodes.outcome(conn, own)[0] == "open", "nothing has changed"
        assert nodes.host_named(conn, "far-12") is None
    source.report({"results": [results[0], {"id": "long gone", "ok": True}]})
    with controller.cloud.db.read() as conn:
        assert nodes.outcome(conn, foreign)[0] == "open" and nodes.outcome(conn, own)[0] == "done"


@pytest.mark.parametrize(("asked", "kind"), [("network", "dhcp"), ("router", "router")])
def test_metadata_is_told_to_the_host_that_serves(controller: Controller, asked: str, kind: str) -> None:
    behind = node_api.Behind(render={}, metadata=lambda cloud, conn, kind, scope, address: {"server_id": f"{kind} {scope} {address}"})
    with controller.cloud.db.write(WHO) as tx:
        nodes.hold(tx, "serving", kind, "one")
        nodes.hold(tx, "serving", "network", "two")
    path, found = "/node/v1/metadata", {}
    for host in ("serving", "other"):
        client = TestClient(node_api.NodeApp(controller.cloud, host, behind, node_api.Heartbeats(controller.cloud)))
        found[host] = [client.get(path, params={asked: scope, "address": "a"}) for scope in ("one", "two")]
    assert found["serving"][0].json() == {"server_id": f"{asked} one a"}
    assert [answer.status_code for answer in (*found["serving"], *found["other"])] == [200, 404, 404, 404]


def test_joining_anew_ends_the_certificate_before(controller: Controller, tmp_path: Path) -> None:
    first = controller.joined(tmp_path / "one", "far-9")
    first.report({})
    with controller.cloud.db.write(WHO) as tx:
        tx.update(nodes.hosts, {"name": "far-9"}, heard=None)
    controller.joined(tmp_path / "two", "far-9").report({})
    with pytest.raises(ControlPlaneDown, match="was revoked"):
        first.report({})


def test_a_certificate_that_the_database_does_not_know(controller: Controller, tmp_path: Path) -> None:
    key, csr = tls.request("far-10")
    made = tls.sign_node(joining.authority(controller.keys), x509.load_pem_x509_csr(csr).public_key(), "far-10", "1" * 64)
    with pytest.raises(ControlPlaneDown, match="is not known here"):
        controller.source(tmp_path / "far", "far-10", key, made).report({})


def test_a_new_authority_believes_what_the_old_one_signed(controller: Controller, tmp_path: Path) -> None:
    pair = tls.Pair(tmp_path / "ca.key", tmp_path / "ca.crt")
    old = tls.ensure_authority(pair, OWN, "node CA")
    key, csr = tls.request("far-11")
    identity = key + tls.sign_node(pair, x509.load_pem_x509_csr(csr).public_key(), "far-11", "2" * 64)
    new = tls._authority(datetime.now(UTC), "next node CA")
    pair.store(*new, OWN, also=[old[1]])
    assert tls.usable(identity, pair.certificate.read_bytes(), datetime.now(UTC))
    pair.store(*new, OWN)
    assert not tls.usable(identity, pair.certificate.read_bytes(), datetime.now(UTC))
    assert not tls.usable(key, pair.certificate.read_bytes(), datetime.now(UTC))
