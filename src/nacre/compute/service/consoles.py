"""Consoles: a token that opens one guest's console once, within ten minutes. Only its digest is stored.

What the token opens is core/consoles: a page for the screen, and, as upstream, a websocket for the serial line.
"""

import hashlib
import secrets
from datetime import timedelta
from urllib.parse import urlsplit

import sqlalchemy as sa

from nacre.compute import states
from nacre.compute.service import servers
from nacre.compute.tables import console_tokens
from nacre.compute.tables import servers as table
from nacre.core import clock, db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict

LASTS = timedelta(minutes=10)
TYPES = {"vnc": "novnc", "serial": "serial"}  # protocols that this cloud has
ADDRESS = {"vnc": "https://{at}/console/vnc_lite.html?path=console%2F{token}", "serial": "wss://{at}/console/{token}"}


def grant(caller: Caller, server_id: str, protocol: str, kind: str) -> str:
    """The address that opens the console. Raises BadRequest for a kind that this cloud has not, Conflict when the guest is off."""
    with caller.write() as tx:
        row = servers.visible(tx, caller, server_id, lock=True)
        if protocol not in TYPES:
            raise BadRequest(f"Unavailable console type {kind}.", kind="ConsoleTypeUnavailable")
        if kind != TYPES[protocol]:
            raise BadRequest(f"Invalid console type {kind}", kind="ConsoleTypeInvalid")
        if row.host is None:
            raise Conflict(f"Instance {row.id} is not ready", kind="InstanceNotReady")
        states.check(row.id, "get_console", row.vm_state, row.task_state)
        token = secrets.token_urlsafe(32)
        tx.insert(console_tokens, digest=digest(token), server_id=row.id, kind=protocol, expires_at=tx.now + LASTS)
        journal.changed(tx, "server", row.id, "get_console", (), {"kind": protocol})
    return ADDRESS[protocol].format(at=urlsplit(caller.cloud.public_url).netloc, token=token)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def spend(tx: db.Tx, token: str) -> tuple[str, str, str] | None:
    """(server id, host, kind) of a token, which counts no more; None when it never did, is over, or the guest has no host."""
    row = tx.lock(sa.select(console_tokens).where(console_tokens.c.digest == digest(token)))
    if row is None:
        return None
    tx.delete(console_tokens, digest=row.digest)
    server = tx.first(sa.select(table.c.host).where(table.c.id == row.server_id, table.c.deleted_at.is_(None)))
    if row.expires_at < clock.utcnow() or server is None or server.host is None:
        return None
    return row.server_id, server.host, row.kind
