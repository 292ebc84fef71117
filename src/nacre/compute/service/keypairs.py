"""Key pairs of users: a public key under a name. A private key that we make is shown once and not kept."""

import base64
import hashlib
import re
from datetime import timedelta

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nacre.compute.service import quotas
from nacre.compute.tables import keypairs
from nacre.core import clock, db, journal, paging
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, NotFound

_OLD_NAME = re.compile(r"[\w .@-]+", re.ASCII)
X509 = "x509"
_PRINCIPAL = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")  # user principal name


def named(conn: db.Conn, user_id: str | None, name: str) -> db.Row | None:
    return conn.execute(sa.select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name)).first()


def fingerprint(public_key: str, kind: str) -> str:
    """MD5 of an ssh key, SHA1 of a certificate, as upstream shows them. Raises BadRequest."""
    try:
        if kind == X509:
            return x509.load_pem_x509_certificate(public_key.encode()).fingerprint(hashes.SHA1()).hex(":")
        serialization.load_ssh_public_key(_first_line(public_key).encode())
        return hashlib.md5(base64.b64decode(_first_line(public_key).split()[1]), usedforsecurity=False).digest().hex(":")
    except (ValueError, IndexError, UnsupportedAlgorithm) as error:
        raise BadRequest("Keypair data is invalid: failed to generate fingerprint") from error


def _first_line(public_key: str) -> str:
    lines = public_key.strip().splitlines()
    return lines[0] if lines else ""


def generate(user_id: str, kind: str) -> tuple[str, str]:
    """(private key as PEM, public key as an OpenSSH line, or a certificate by which Windows guests know its user)."""
    key = rsa.generate_private_key(65537, 2048)
    shape = serialization.PrivateFormat.PKCS8 if kind == X509 else serialization.PrivateFormat.TraditionalOpenSSL
    private = key.private_bytes(serialization.Encoding.PEM, shape, serialization.NoEncryption())
    if kind == X509:
        return private.decode(), _certificate(key, user_id)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} Generated-by-Nova\n"


def _certificate(key: rsa.RSAPrivateKey, user_id: str) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id)])
    now = clock.utcnow()
    principal = x509.OtherName(_PRINCIPAL, b"\x0c" + bytes([len(user_id) + 10]) + f"{user_id}@localhost".encode())
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now).not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([principal]), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode()


def create(caller: Caller, name: str, public_key: str | None, kind: str, user_id: str | None) -> tuple[db.Row, str | None]:
    """The new pair, and its private key if we made it. `user_id`: another user's, for administrators."""
    owner = user_id or caller.user_id
    caller.require({"user_id": owner})
    if not _OLD_NAME.fullmatch(name) or name != name.strip():
        raise BadRequest("Keypair data is invalid: Keypair name contains unsafe characters")
    private = None
    if public_key is None:
        private, public_key = generate(str(owner), kind)
    mark = fingerprint(public_key, kind)
    with caller.write() as tx:
        if named(tx, owner, name) is not None:
            raise Conflict(f"Key pair '{name}' already exists.")
        quotas.check_keypairs(tx, caller.project_id or "", str(owner))
        tx.insert(keypairs, user_id=owner, name=name, type=kind, public_key=public_key, fingerprint=mark, created_at=tx.now)
        journal.changed(tx, "keypair", name, "create", ("name", "public_key"))
        row = named(tx, owner, name)
        assert row is not None
    return row, private


def show(caller: Caller, name: str, user_id: str | None) -> db.Row:
    owner = user_id or caller.user_id
    caller.require({"user_id": owner})
    with caller.read() as conn:
        row = named(conn, owner, name)
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {owner}")
    return row


def delete(caller: Caller, name: str, user_id: str | None) -> None:
    owner = user_id or caller.user_id
    caller.require({"user_id": owner})
    with caller.write() as tx:
        if not tx.delete(keypairs, user_id=owner, name=name):
            raise NotFound(f"Keypair {name} not found for user {owner}")
        journal.changed(tx, "keypair", name, "delete")


def listed(caller: Caller, user_id: str | None, page: paging.Page) -> tuple[list[db.Row], bool]:
    owner = user_id or caller.user_id
    caller.require({"user_id": owner})
    mine = sa.select(keypairs).where(keypairs.c.user_id == owner)
    with caller.read() as conn:
        if page.marker is not None:  # names are unique only within a user
            marker = named(conn, owner, page.marker)
            if marker is None:
                raise BadRequest(f"marker [{page.marker}] not found")
            mine = mine.where(keypairs.c.name > marker.name)
        query = mine.order_by(keypairs.c.name)
        rows = list(conn.execute(query.limit(page.limit + 1) if page.limit is not None else query))
    more = page.limit is not None and len(rows) > page.limit
    return rows[: page.limit] if more else rows, more
