"""Fernet tokens: what they say, and the keys that sign them.

A token names user, scope, methods and times; what it is *worth* (roles, catalog) is read from the tables when it is used, so it never
goes stale. Keys live in the database, each wrapped by the master key file, so that several API processes share them; the key with the
highest number signs, all of them verify, which is what rotation needs (`service.keys`). So it is with the keys that seal credentials; what was
sealed before there was one is the master key's. Secrets of application credentials that are made here have 512 random bits, which nobody tries
out: SHA-256 keeps them; those that users think up are kept as passwords are.
"""

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from nacre.core import db
from nacre.core.cloud import Cloud
from nacre.core.config import Identity
from nacre.identity import hashing, tables


@dataclass(frozen=True)
class Token:
    """`scope`: "" (unscoped), project, domain, system, trust or application_credential. Times are naive UTC."""

    user_id: str
    scope: str
    scope_id: str
    methods: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    audit_ids: tuple[str, ...]


@dataclass(frozen=True)
class Stub:
    """What a receipt says: which methods a user has shown. Times are naive UTC."""

    user_id: str
    methods: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime


_Wire = tuple[int, str, str, str, tuple[str, ...], float, float, tuple[str, ...]]
_decoder = msgspec.msgpack.Decoder(_Wire)
_StubWire = tuple[int, str, tuple[str, ...], float, float]
_stub_decoder = msgspec.msgpack.Decoder(_StubWire)
LONGEST = 1024


def audit_id() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()


def encode(keys: MultiFernet, token: Token) -> str:
    times = _stamp(token.issued_at), _stamp(token.expires_at)
    return _signed(keys, (1, token.user_id, token.scope, token.scope_id, token.methods, *times, token.audit_ids))


def encode_stub(keys: MultiFernet, stub: Stub) -> str:
    return _signed(keys, (2, stub.user_id, stub.methods, _stamp(stub.issued_at), _stamp(stub.expires_at)))


def _signed(keys: MultiFernet, wire: tuple[Any, ...]) -> str:
    return keys.encrypt(msgspec.msgpack.encode(wire)).rstrip(b"=").decode()


def _stamp(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


def _moment(stamp: float) -> datetime:
    return datetime.fromtimestamp(stamp, UTC).replace(tzinfo=None)


def decode(keys: MultiFernet, text: str) -> Token | None:
    """The token, or None when it is not one of ours. Expiry is the caller's to look at."""
    try:
        wire = _decoder.decode(_opened(keys, text))
    except (InvalidToken, msgspec.DecodeError, ValueError):
        return None
    return Token(wire[1], wire[2], wire[3], wire[4], _moment(wire[5]), _moment(wire[6]), wire[7])


def decode_stub(keys: MultiFernet, text: str) -> Stub | None:
    """Likewise of a receipt."""
    try:
        wire = _stub_decoder.decode(_opened(keys, text))
    except (InvalidToken, msgspec.DecodeError, ValueError):
        return None
    return Stub(wire[1], wire[2], _moment(wire[3]), _moment(wire[4]))


def _opened(keys: MultiFernet, text: str) -> bytes:
    """Raises InvalidToken, ValueError."""
    if len(text) > LONGEST or not text.isascii():
        raise InvalidToken
    return keys.decrypt((text + "=" * (-len(text) % 4)).encode())


def master_key(cloud: Cloud) -> Fernet:
    """The key that wraps all others, made on first use (0600)."""
    path = cloud.home.reach / "keys" / "master.key"
    if not path.exists():
        made = path.with_suffix(".part")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(Fernet.generate_key())
            out.flush()
            os.fsync(out.fileno())
        made.rename(path)
    return Fernet(path.read_bytes())


def add_key(tx: db.Tx, cloud: Cloud, table: sa.Table = tables.fernet_keys) -> int:
    """A new key, which signs (or seals) from now on; its number."""
    number = int(tx.scalar(sa.select(sa.func.max(table.c.number))) or 0) + 1
    tx.insert(table, number=number, wrapped=master_key(cloud).encrypt(Fernet.generate_key()).decode(), created_at=tx.now)
    return number


def load_keys(cloud: Cloud, conn: db.Conn) -> MultiFernet:
    """All keys, the signing one first. Raises InvalidToken when the master key file is not this database's."""
    return MultiFernet(_unwrapped(cloud, conn, tables.fernet_keys))


def load_seals(cloud: Cloud, conn: db.Conn) -> MultiFernet:
    """What seals credentials: the newest of their keys, else the master key; all of them open."""
    return MultiFernet([*_unwrapped(cloud, conn, tables.credential_keys), master_key(cloud)])


def newest_seal(cloud: Cloud, conn: db.Conn) -> Fernet:
    return next(iter(_unwrapped(cloud, conn, tables.credential_keys)), master_key(cloud))


def _unwrapped(cloud: Cloud, conn: db.Conn, table: sa.Table) -> list[Fernet]:
    master = master_key(cloud)
    return [Fernet(master.decrypt(row.wrapped.encode())) for row in conn.execute(sa.select(table).order_by(table.c.number.desc()))]


def fits(cloud: Cloud, conn: db.Conn) -> bool:
    """Whether the master key file of this home opens the keys in this database; one without keys fits every file."""
    try:
        load_keys(cloud, conn)
    except InvalidToken:
        return False
    except ValueError:  # no keys
        return True
    return True


_MADE_HERE = "sha256:"


def new_secret() -> tuple[str, str]:
    """The secret of an application credential, and what is kept of it."""
    secret = secrets.token_urlsafe(64)
    return secret, _MADE_HERE + hashlib.sha256(secret.encode()).hexdigest()


def check_secret(how: Identity, stored: str | None, secret: str) -> bool:
    """Against either kind of hash; who is wrong waits as long as for a password."""
    if stored is not None and stored.startswith(_MADE_HERE):
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        if hmac.compare_digest(stored.removeprefix(_MADE_HERE), digest):
            return True
        stored = None
    return hashing.matches(how, stored, secret)
