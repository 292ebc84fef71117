"""The controller's half of the node contract (docs/node-contract.md): hosts, their calls, and the documents they should hold.

A document is *derived*: its owner renders it from rows when a node asks, and only `(kind, id, version)` is kept here. A change calls
`bump` in its transaction; which hosts hold a document is an index touched only by `hold` and `release`. A node sends what it has, the
controller answers the difference, so nothing can be missed for good.

Races: a version is one row, counted up in the change's transaction, so concurrent changes queue on it. A document rendered while it
changes again is rendered anew at the next feed, because its version moved. A call's fence is (cloud epoch, the call's number): calls
made later always win over calls made earlier.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from nacre.core import clock, db, ids

PROTOCOL = 1
DEAD_AFTER = 45.0
_LONGEST_TIMING = 32768
_big = sa.BigInteger().with_variant(sa.Integer, "sqlite")

hosts = sa.Table(
    "hosts", db.metadata,
    sa.Column("number", _big, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("address", sa.String(64)),                 # reports
    sa.Column("seen", db.Json, nullable=False),          # reports: the `resources` part
    sa.Column("agents", db.Json, nullable=False),        # reports
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("last_seen", sa.DateTime),                 # heartbeats, batched
)  # fmt: skip
calls = sa.Table(
    "node_calls", db.metadata,
    sa.Column("number", _big, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("verb", sa.String(64), nullable=False),
    sa.Column("args", db.Json, nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False, index=True),
    sa.Column("deadline", sa.DateTime),
    sa.Column("state", sa.String(16), nullable=False),   # open, done, failed
    sa.Column("value", db.Json),
    sa.Column("error", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("timing", db.Json),                        # reports: what the node did, and how long that took
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("finished_at", sa.DateTime),
    sa.Index("ix_node_calls_open", "host", sqlite_where=sa.text("state = 'open'"), postgresql_where=sa.text("state = 'open'")),
)  # fmt: skip
documents = sa.Table(
    "documents", db.metadata,
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("version", _big, nullable=False),
)  # fmt: skip
holders = sa.Table(
    "document_hosts", db.metadata,
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("applied", _big, nullable=False),          # reports: the version that is true on the host
    sa.Index("ix_document_hosts_document", "kind", "id"),
)  # fmt: skip
facts = sa.Table(
    "cloud_facts", db.metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", db.Json, nullable=False),
)  # fmt: skip


@dataclass(frozen=True)
class NewCall:
    """A call to be made. `seconds` None: kept until the node does it, however long it is away (tombstones)."""

    verb: str
    args: Mapping[str, Any]
    seconds: float | None = 120.0


def epoch(conn: db.Conn) -> int:
    """Raised by a restore from backup, so that nodes refuse what an older cloud asked for."""
    return fact(conn, "epoch") or 1


def fact(conn: db.Conn, name: str) -> int | None:
    value = conn.execute(sa.select(facts.c.value).where(facts.c.name == name)).scalar()
    return int(value) if value is not None else None


def set_fact(tx: db.Tx, name: str, value: int) -> None:
    if not tx.update(facts, {"name": name}, value=value):
        tx.insert(facts, name=name, value=value)


def register(tx: db.Tx, name: str) -> None:
    """Makes the host known; harmless when it is. Its `host` document comes with it."""
    if tx.first(sa.select(hosts.c.name).where(hosts.c.name == name)) is None:
        tx.insert(hosts, name=name, id=ids.uuid(), seen={}, agents={}, created_at=tx.now)
        hold(tx, name, "host", name)


def alive(row: db.Row) -> bool:
    """Whether a row of `hosts` was heard of lately: four reports in a row have not been lost."""
    return row.last_seen is not None and clock.utcnow() - row.last_seen < timedelta(seconds=DEAD_AFTER)


def all_hosts(conn: db.Conn) -> list[db.Row]:
    return list(conn.execute(sa.select(hosts).order_by(hosts.c.number)))


def host_named(conn: db.Conn, name: str) -> db.Row | None:
    return conn.execute(sa.select(hosts).where(hosts.c.name == name)).first()


def call(tx: db.Tx, host: str, new: NewCall) -> str:
    """Writes a call for `host`; its id. The outcome rings `call:<id>` and wakes the task parked on that topic."""
    call_id = ids.uuid()
    deadline = tx.now + timedelta(seconds=new.seconds) if new.seconds is not None else None
    tx.insert(calls, id=call_id, host=host, verb=new.verb, args=dict(new.args), request_id=tx.who.request_id, deadline=deadline,
              state="open", created_at=tx.now)  # fmt: skip
    tx.ring(f"node:{host}")
    return call_id


def outcome(conn: db.Conn, call_id: str) -> tuple[str, Any, str | None, str | None]:
    """(state, value, error, detail) of a call."""
    row = conn.execute(sa.select(calls.c.state, calls.c.value, calls.c.error, calls.c.detail).where(calls.c.id == call_id)).first()
    return ("failed", None, "the call is gone", "") if row is None else (row.state, row.value, row.error, row.detail)


def finish(tx: db.Tx, call_id: str, ok: bool, value: Any, error: str, detail: str) -> bool:
    """Stores a call's outcome once; later ones are ignored. The caller wakes `call:<id>`."""
    done = tx.update(calls, {"id": call_id, "state": "open"}, state="done" if ok else "failed", value=value,
                     error=error or None, detail=detail or None, finished_at=tx.now)  # fmt: skip
    tx.ring(f"call:{call_id}")
    return bool(done)


def timed(tx: db.Tx, call_id: str, timing: Any) -> None:
    """What a node did for a call that is about to be finished; what is no timing, or too much of one, is left out."""
    if isinstance(timing, dict) and len(json.dumps(timing)) <= _LONGEST_TIMING:
        tx.update(calls, {"id": call_id, "state": "open"}, timing=timing)


def open_calls(conn: db.Conn, host: str) -> list[db.Row]:
    return list(conn.execute(sa.select(calls).where(calls.c.host == host, calls.c.state == "open").order_by(calls.c.number)))


def bump(tx: db.Tx, kind: str, document_id: str) -> None:
    """The document changed: its version goes up and the hosts that hold it are woken."""
    changed = tx.execute(documents.update().where(documents.c.kind == kind, documents.c.id == document_id)
                         .values(version=documents.c.version + 1)).rowcount  # fmt: skip
    if changed:
        for (host,) in tx.all(sa.select(holders.c.host).where(holders.c.kind == kind, holders.c.id == document_id)):
            tx.ring(f"node:{host}")


def hold(tx: db.Tx, host: str, kind: str, document_id: str) -> None:
    """`host` should have the document from now on; harmless when it has."""
    if tx.first(sa.select(documents.c.id).where(documents.c.kind == kind, documents.c.id == document_id)) is None:
        started = int(tx.now.timestamp() * 1000)  # never a version that a node may still have of a document released earlier
        tx.insert(documents, kind=kind, id=document_id, version=started)
    there = sa.and_(holders.c.host == host, holders.c.kind == kind, holders.c.id == document_id)
    if tx.first(sa.select(holders.c.id).where(there)) is None:
        tx.insert(holders, host=host, kind=kind, id=document_id, applied=0)
        tx.ring(f"node:{host}")


def release(tx: db.Tx, kind: str, document_id: str, host: str | None = None) -> None:
    """`host` (None: every host) should not have the document any more; the last one takes the document with it."""
    where = [holders.c.kind == kind, holders.c.id == document_id] + ([holders.c.host == host] if host else [])
    for (name,) in tx.all(sa.select(holders.c.host).where(*where)):
        tx.ring(f"node:{name}")
    tx.execute(holders.delete().where(*where))
    if not holders_of(tx, kind, document_id):
        tx.delete(documents, kind=kind, id=document_id)


def holders_of(conn: db.Conn, kind: str, document_id: str) -> list[str]:
    return [row.host for row in conn.execute(sa.select(holders.c.host).where(holders.c.kind == kind, holders.c.id == document_id))]


def held_by(conn: db.Conn, host: str) -> dict[str, dict[str, int]]:
    """kind -> id -> version of everything `host` should have."""
    join = holders.join(documents, sa.and_(holders.c.kind == documents.c.kind, holders.c.id == documents.c.id))
    query = sa.select(holders.c.kind, holders.c.id, documents.c.version).select_from(join).where(holders.c.host == host)
    index: dict[str, dict[str, int]] = {}
    for row in conn.execute(query):
        index.setdefault(row.kind, {})[row.id] = row.version
    return index


def applied(conn: db.Conn, host: str, wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether the current version of every (kind, id) is reported true on `host`; what it does not hold counts as not true."""
    join = holders.join(documents, sa.and_(holders.c.kind == documents.c.kind, holders.c.id == documents.c.id))
    query = sa.select(holders.c.kind, holders.c.id).select_from(join).where(
        holders.c.host == host, holders.c.applied == documents.c.version, sa.tuple_(holders.c.kind, holders.c.id).in_(list(wanted)))  # fmt: skip
    return {tuple(row) for row in conn.execute(query)} >= set(wanted)


def mark_applied(tx: db.Tx, host: str, reported: Mapping[str, Mapping[str, int]]) -> bool:
    """Stores what a report says is true; whether anything moved."""
    moved = False
    for kind, versions in reported.items():
        for document_id, version in versions.items():
            moved |= bool(tx.update(holders, {"host": host, "kind": kind, "id": document_id}, applied=version))
    return moved
