"""How a further machine becomes a node, and how it ceases to be one: a token, a request for a certificate, the certificate, its end.

An administrator has a token made; it is good once and for a while, and only its hash is kept. The machine makes a key, sends token and
signing request to the public API (`POST /node/v1/join`) and gets a certificate of the cloud's authority for nodes, which signs nothing
else and which nobody but the node listener trusts. From then on the host name in the certificate is who it is.

The row of the spent token is the host's *admission*, which its certificate names, and so does every certificate with which it replaces
that one in time (`POST /node/v1/renew`, with the certificate itself). Revoking the admission ends them all, those too that a backup of
the database does not know; it happens when the host's compute service is deleted and when the host joins anew. Hosts that `up` makes on
the controller's own machine are admitted without a token (`admit`), else they are like all others.

Races: a token is spent in one conditional write, so of two machines with the same token one is refused. A host that is heard of keeps its
name until it is revoked. What is refused changes nothing; an answer that is lost costs the token. A node's request looks at the admission
in the transaction that does what it asks, and a report locks it there, so nothing of a revoked host is written after the revocation.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import sqlalchemy as sa
from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from nacre.core import db, ids, nodes, tls
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.node_api import NodeApp, Permit, Refused

PATH, RENEWAL = "/node/v1/join", "/node/v1/renew"
LARGEST = 64 * 1024
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")

tokens = sa.Table(
    "node_tokens", db.metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("expires_at", sa.DateTime, nullable=False),
    sa.Column("used_at", sa.DateTime),
    sa.Column("used_by", sa.String(255)),
    sa.Column("revoked_at", sa.DateTime),
)  # fmt: skip


class Asked(msgspec.Struct):
    token: str
    host: str
    csr: str


class Renewal(msgspec.Struct):
    csr: str


def make(tx: db.Tx, seconds: int) -> str:
    """A new token's secret."""
    secret = secrets.token_urlsafe(32)
    tx.insert(tokens, digest=_digest(secret), expires_at=tx.now + timedelta(seconds=seconds))
    return secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def spend(tx: db.Tx, secret: str, host: str) -> str:
    """The admission. Raises Refused."""
    digest = _digest(secret)
    row = tx.first(sa.select(tokens).where(tokens.c.digest == digest))
    if row is None:
        raise Refused("this token is not of this cloud")
    if row.used_at is not None:
        raise Refused(f"this token was used already, by {row.used_by}")
    if row.expires_at <= tx.now:
        raise Refused("this token has expired")
    known = nodes.host_named(tx, host)
    if known is not None and nodes.alive(known) and not _revoked(tx, host):
        raise Refused(f"a host {host} is there already")
    revoke(tx, host)
    if not tx.update(tokens, {"digest": digest, "used_at": None}, used_at=tx.now, used_by=host):
        raise Refused("this token was used already")
    return digest


def admit(tx: db.Tx, host: str) -> str:
    """The admission of a host that the controller vouches for itself."""
    revoke(tx, host)
    digest = _digest(secrets.token_urlsafe(32))
    tx.insert(tokens, digest=digest, expires_at=tx.now, used_at=tx.now, used_by=host)
    return digest


def revoke(tx: db.Tx, host: str) -> None:
    """No certificate that `host` has counts any more."""
    if tx.update(tokens, {"used_by": host, "revoked_at": None}, revoked_at=tx.now):
        tx.ring(f"node:{host}")


def _revoked(tx: db.Tx, host: str) -> bool:
    """Whether it came with a certificate and none counts any more: then nothing more is heard of it, though it was a moment ago."""
    ends = [row.revoked_at for row in tx.all(sa.select(tokens.c.revoked_at).where(tokens.c.used_by == host))]
    return bool(ends) and None not in ends


def permit(host: str, admission: str) -> Permit:
    """Raises Refused when the admission, which a certificate of `host` names, does not count; a transaction that goes on holds it."""
    query = sa.select(tokens.c.revoked_at).where(tokens.c.digest == admission, tokens.c.used_by == host)

    def look(conn: db.Conn) -> None:
        row = conn.lock(query) if isinstance(conn, db.Tx) else conn.execute(query).first()
        if row is None:
            raise Refused(f"this certificate of {host} is not known here: it has to join anew", "unknown")
        if row.revoked_at is not None:
            raise Refused(f"the certificate of {host} was revoked on {row.revoked_at:%Y-%m-%d}: to come back it has to join anew", "revoked")

    return look


def request_of(host: str, csr: str) -> x509.CertificateSigningRequest:
    """The signing request, when it is one for the host that asks. Raises Refused."""
    if len(host) > 63 or not _NAME.fullmatch(host):
        raise Refused(f"{host[:80]!r} is no name for a host")
    try:
        found = x509.load_pem_x509_csr(csr.encode())
        names = [str(name.value) for name in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        good = found.is_signature_valid
    except (ValueError, TypeError):
        raise Refused("the signing request cannot be read") from None
    if not good:
        raise Refused("the signing request is not signed by its own key")
    if names != [host]:
        raise Refused(f"the signing request names {', '.join(names) or 'nobody'}, not {host}")
    return found


def authority(keys: Path) -> tls.Pair:
    """The authority for nodes."""
    return tls.Pair(keys / "node-ca.key", keys / "node-ca.crt")


class Join:
    """The public API with the one address more that a machine without a certificate may ask. `local`: hosts that need none."""

    def __init__(self, app: ASGIApp, cloud: Cloud, local: frozenset[str], keys: Path) -> None:
        self.app, self.cloud, self.local = app, cloud, local
        self.authority = authority(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            return await self.app(scope, receive, send)
        status, answer = 403, {"error": "this address is for POST"}
        request = Request(scope, receive, send)
        try:
            if request.method == "POST":
                asked = msgspec.json.decode(await _body(request), type=Asked)
                answer = await anyio.to_thread.run_sync(lambda: db.again(lambda: self.admit(asked)))
                status = 200
        except Refused as error:
            answer = error.answer
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            status, answer = 400, {"error": str(error)}
        await _answer(answer, status)(scope, receive, send)

    def admit(self, asked: Asked) -> dict[str, Any]:
        """Raises Refused."""
        request = request_of(asked.host, asked.csr)
        if asked.host in self.local:
            raise Refused(f"host {asked.host} is one of the controller's own")
        with self.cloud.db.write(System(ids.request_id())) as tx:
            admission = spend(tx, asked.token, asked.host)
            certificate = tls.sign_node(self.authority, request.public_key(), asked.host, admission)
        return {**_signed(self.cloud, certificate), "port": self.cloud.config.nacre.node_port}


def _signed(cloud: Cloud, certificate: bytes) -> dict[str, Any]:
    return {"certificate": certificate.decode(), "ca": (cloud.home.reach / "ca.pem").read_text()}


class ByCertificate:
    """The node API for hosts that come with a certificate; the listener has put the host and the admission that it names into the scope. A
    node says its own name too, so that one with somebody else's certificate is told instead of taken for that host."""

    def __init__(self, cloud: Cloud, make: Callable[[str, Permit], NodeApp], local: frozenset[str], keys: Path) -> None:
        self.cloud, self.make, self.local = cloud, make, local
        self.authority = authority(keys)
        self.apps: dict[tuple[str, str], NodeApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host, admission = (str(scope.get("state", {}).get(name) or "") for name in ("host", "admission"))
        said = next((value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"x-nacre-host"), host)
        if not host or host in self.local or said != host:
            reason = f"this certificate is of host {host}, not of {said}" if said != host else f"host {host or 'nobody'} does not come this way"
            if scope["type"] == "http":
                await _answer({"error": reason}, 403)(scope, receive, send)
            elif scope["type"] == "websocket":
                await WebSocket(scope, receive, send).close(1008, reason)
            return
        if scope["type"] == "http" and scope["path"] == RENEWAL:
            response = await self._renewed(host, admission, Request(scope, receive, send))
            return await response(scope, receive, send)
        app = self.apps.get((host, admission))
        if app is None:
            app = self.apps[host, admission] = self.make(host, permit(host, admission))
        await app(scope, receive, send)

    async def _renewed(self, host: str, admission: str, request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await _body(request), type=Renewal)
            return _answer(await anyio.to_thread.run_sync(lambda: db.again(lambda: self.renew(host, admission, asked))), 200)
        except Refused as error:
            return _answer(error.answer, 403)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            return _answer({"error": str(error)}, 400)

    def renew(self, host: str, admission: str, asked: Renewal) -> dict[str, Any]:
        """A certificate for a new key. Raises Refused."""
        request = request_of(host, asked.csr)
        with self.cloud.db.write(System(ids.request_id())) as tx:
            permit(host, admission)(tx)
            return _signed(self.cloud, tls.sign_node(self.authority, request.public_key(), host, admission))


def _answer(value: Any, status: int) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _body(request: Request) -> bytes:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST:
            raise Refused("that is too much")
    return content
