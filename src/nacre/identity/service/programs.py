"""What logins by application credentials and access keys ask about a program: what its tokens are worth, and what one must know to get one.

A process remembers under the identity epoch what the tables say of a credential, never a secret: its hash is compared at every login.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import MultiFernet

from nacre.core import clock
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import Unauthorized
from nacre.identity import tables, tokens
from nacre.identity.service.auth import REMEMBERED, caller_of, memory_of
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.tokens import Token


@dataclass(frozen=True)
class Program:
    """What there is to know of an application credential: what its tokens are worth, what signs them, its user's options, the hash of its
    secret."""

    caller: Caller
    keys: MultiFernet
    options: Mapping[str, Any]
    secret_hash: str
    expires_at: datetime | None


def find(cloud: Cloud, conn: sa.Connection, key: tuple[str, ...]) -> Program | None:
    """By the credential's id, or its user's id and its name; None when there is none, or it is worth nothing."""
    memory = memory_of(cloud, conn)
    known: Program | None = memory.programs.get(key)
    if known is None and (known := _read(cloud, conn, key, memory.keys)) is not None:
        if len(memory.programs) >= REMEMBERED:
            memory.programs.clear()
        memory.programs[key] = known
    return known


def _read(cloud: Cloud, conn: sa.Connection, key: tuple[str, ...], keys: MultiFernet) -> Program | None:
    table = tables.app_credentials
    which = table.c.id == key[0] if len(key) == 1 else sa.and_(table.c.user_id == key[0], table.c.name == key[1])
    row = conn.execute(sa.select(table).where(which)).first()
    if row is None:
        return None
    now = clock.utcnow()
    whose = tables.by_id(conn, tables.users, row.user_id)
    try:
        caller = caller_of(cloud, conn, Token(row.user_id, APPLICATION, row.id, (APPLICATION,), now, now, ()), "")
    except Unauthorized:
        return None
    return Program(caller, keys, (whose.options if whose is not None else None) or {}, row.secret_hash, row.expires_at)


def holder(program: Program, request_id: str, token: Token) -> Caller:
    """Who holds the token, which is for where the program may be, signed."""
    ends = min(token.expires_at, program.expires_at or token.expires_at)
    token = replace(token, scope=APPLICATION, scope_id=program.caller.extra[APPLICATION]["id"], expires_at=ends)
    return replace(program.caller, request_id=request_id, methods=token.methods, audit_ids=token.audit_ids, issued_at=token.issued_at,
                   expires_at=token.expires_at, token=tokens.encode(program.keys, token), asked=set())  # fmt: skip
