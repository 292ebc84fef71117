"""Second factors: one-time passcodes, which methods a user must have shown together, and the receipt for those shown so far.

A user's option `multi_factor_auth_rules` is a list of sets of methods, one of which must be whole before there is a token. Until then the
answer is a receipt: signed like a token but of another shape, so that neither is ever taken for the other, and good for minutes.
Methods that do not exist are no part of a rule, and rules of nothing else do not count: no typing mistake locks a user out.
A passcode is good for its half minute and `included_previous_windows` before it, as often as it is shown, as upstream.
Races: a receipt from before the user's password was changed, or the user disabled, is none.
"""

import base64
import binascii
import hmac
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import MultiFernet

from nacre.core import clock, db
from nacre.core.cloud import Cloud
from nacre.core.errors import Unauthorized
from nacre.identity import tables, tokens
from nacre.identity.service import credentials
from nacre.identity.tokens import Stub, Token

PERIOD, DIGITS = 30, 6


@dataclass(frozen=True)
class Receipt:
    """What a user has shown, and what is asked for still: sets of methods, each one of which would do."""

    text: str
    stub: Stub
    user: db.Row
    domain: db.Row
    required: Sequence[Sequence[str]]


def code_fits(cloud: Cloud, conn: db.Conn, user_id: str, passcode: str) -> bool:
    """Whether one of the user's TOTP credentials gives this passcode now."""
    table = tables.credentials
    rows = conn.execute(sa.select(table.c.sealed).where(table.c.user_id == user_id, table.c.type == "totp"))
    step = int(clock.utcnow().replace(tzinfo=UTC).timestamp()) // PERIOD
    steps = range(step - max(cloud.config.totp.included_previous_windows, 0), step + 1)
    good = [hmac.compare_digest(code.encode(), passcode.encode("utf-8", "replace"))
            for row in rows for code in _codes(credentials.unsealed(cloud, row.sealed), steps)]  # fmt: skip
    return any(good)


def _codes(secret: str, steps: Sequence[int]) -> list[str]:
    """RFC 6238 with SHA-1; none of what is no secret in base 32."""
    try:
        key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    except (binascii.Error, ValueError):
        return []
    found = []
    for step in steps:
        digest = hmac.new(key, struct.pack(">Q", step), "sha1").digest()
        part = int.from_bytes(digest[(at := digest[-1] & 15) : at + 4], "big") & 0x7FFFFFFF
        found.append(f"{part % 10**DIGITS:0{DIGITS}d}")
    return found


def missing(options: Mapping[str, Any] | None, shown: Collection[str], methods: Collection[str]) -> list[list[str]] | None:
    """None when what was shown is enough, else the sets of `methods` that would be and have something of it."""
    said = options or {}
    rules = [[name for name in rule if name in methods] for rule in said.get("multi_factor_auth_rules") or []]
    rules = [rule for rule in rules if rule]
    if not rules or said.get("multi_factor_auth_enabled") is False or any(set(rule) <= set(shown) for rule in rules):
        return None
    return [rule for rule in rules if set(rule) & set(shown)]


def receipt(cloud: Cloud, keys: MultiFernet, whose: tuple[db.Row, db.Row], token: Token, required: Sequence[Sequence[str]]) -> Receipt:
    """In the place of the token that there is not yet."""
    user, domain = whose
    stub = Stub(user.id, token.methods, token.issued_at, token.issued_at + timedelta(seconds=cloud.config.receipt.expiration))
    return Receipt(tokens.encode_stub(keys, stub), stub, user, domain, required)


def shown_before(keys: MultiFernet, text: str, user: db.Row) -> tuple[str, ...]:
    """The methods of the user's receipt. Raises Unauthorized for one that is none, is over, or is somebody else's."""
    stub = tokens.decode_stub(keys, text)
    late = stub is not None and user.login_since is not None and user.login_since > stub.issued_at
    if stub is None or late or stub.user_id != user.id or stub.expires_at <= clock.utcnow():
        raise Unauthorized("Could not find auth receipt: it is none of this user's, or it is over.")
    return stub.methods
