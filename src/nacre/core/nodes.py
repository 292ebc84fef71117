"""The controller's half of the node contract (docs/node-contract.md): hosts, their calls, and the documents they should hold.

A document is *derived*: its owner renders it from rows when a node asks, and only `(kind, id, version)` is kept here. A change calls
`bump` in its transaction; which hosts hold a document is an index touched only by `hold` and `release`. A node sends what it has, the
controller answers the difference, so nothing can be missed for good.

Races: what a transaction changes of documents is done at its end, all at once and in one order, so that two never wait for each other
in a circle; on PostgreSQL changes of one document queue there (an advisory lock, because the first hold has no row to lock), and whether a
host needs it is looked at only then, so of two that bind and unbind at once the last one sees both. A document rendered while it changes
again is rendered anew at the next feed, because its version moved. A call's fence is (cloud epoch, the call's number): calls made later
always win over calls made earlier.

Whether a host lives and how long a call may take is counted on the clock of leases: a wall clock that is set anew declares nobody dead
and nothing late. After a boot of the controller's machine a call has its whole time again.
"""

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, leases
from nacre.core.statements import Statement, given, given_list

PROTOCOL = 1
DEAD_AFTER = 45.0
_LONGEST_TIMING = 32768
LATE = 2
"""The rank (db.Tx.at_end) of documents whose need follows from who holds others."""
_LATE = ("address_set",)
_SPACE, _QUEUES, _AT_ONCE = 0x6E61, 512, 500
Needed = Callable[[db.Tx, str, Collection[str]], Collection[str]]
_big = sa.BigInteger().with_variant(sa.Integer, "sqlite")

hosts = sa.Table(
    "hosts", db.metadata,
    sa.Column("number", _big, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("address", sa.String(64)),                 # reports
    sa.Column("seen", db.Json, nullable=False),          # reports: the `resources` part
    sa.Column("agents", db.Json, nullable=False),        # reports
    sa.Column("trouble", db.Json),                       # reports: daemon -> what is wrong with it
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("last_seen", sa.DateTime),                 # heartbeats, batched: by the wall clock, to be shown
    sa.Column("reports", _big, nullable=False, server_default="0"),  # reports: how many, which is what the next one says
    sa.Column("heard", sa.Float),                        # heartbeats: the same on the clock of leases
    sa.Column("boot", sa.String(64)),                    # heartbeats: the boot that `heard` counts from
)  # fmt: skip
calls = sa.Table(
    "node_calls", db.metadata,
    sa.Column("number", _big, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("verb", sa.String(64), nullable=False),
    sa.Column("args", db.Json, nullable=False),
    sa.Column("request_id", sa.String(64), nullable=False, index=True),
    sa.Column("deadline", sa.DateTime),                  # by the wall clock, to be shown
    sa.Column("seconds", sa.Float),                      # how long it may take; None: for ever
    sa.Column("until", sa.Float),                        # the end of that on the clock of leases
    sa.Column("boot", sa.String(64)),                    # the boot that `until` counts from
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


_silence = sa.case((hosts.c.boot == given("boot_now"), sa.bindparam("instant", type_=sa.Float) - hosts.c.heard)).label("silence")
_hosts = sa.select(hosts, _silence).order_by(hosts.c.number)
_HOSTS, _NAMES = Statement(_hosts), Statement(sa.select(hosts.c.name))
_SOME = {"names": Statement(_hosts.where(hosts.c.name.in_(given_list("names")))), "ids": Statement(_hosts.where(hosts.c.id.in_(given_list("ids"))))}
_FACT = Statement(sa.select(facts.c.value).where(facts.c.name == given("name")))
_outcome = sa.select(calls.c.state, calls.c.value, calls.c.error, calls.c.detail).where(calls.c.id == given("id"))
_OUTCOME, _HELD_OUTCOME = Statement(_outcome), Statement(_outcome.with_for_update(read=True))
_OPEN_CALLS = Statement(sa.select(calls).where(calls.c.host == given("host"), calls.c.state == "open").order_by(calls.c.number))
_BUMP = Statement(documents.update().where(documents.c.kind == given("kind"), documents.c.id == given("document"))
                  .values(version=documents.c.version + 1))  # fmt: skip
_HOLDERS = Statement(sa.select(holders.c.host).where(holders.c.kind == given("kind"), holders.c.id == given("document")))
_THERE = Statement(
    sa.select(documents.c.kind, documents.c.id, holders.c.host)
    .select_from(documents.outerjoin(holders, sa.and_(holders.c.kind == documents.c.kind, holders.c.id == documents.c.id)))
    .where(documents.c.kind.in_(given_list("kinds")), documents.c.id.in_(given_list("ids"))))  # fmt: skip
_versions = holders.join(documents, sa.and_(holders.c.kind == documents.c.kind, holders.c.id == documents.c.id))
_held = sa.select(holders.c.kind, holders.c.id, documents.c.version).select_from(_versions).where(holders.c.host == given("host"))
_HELD = Statement(_held)
_TOLD = Statement(sa.select(holders.c.kind, holders.c.id, holders.c.applied).where(holders.c.host == given("host")))
_STANDS = Statement(
    sa.select(holders.c.kind, holders.c.id, documents.c.version, holders.c.applied).select_from(_versions)
    .where(holders.c.host == given("host"), holders.c.kind.in_(given_list("kinds")), holders.c.id.in_(given_list("ids"))))  # fmt: skip


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
    value = _FACT.scalar(conn, name=name)
    return int(value) if value is not None else None


def set_fact(tx: db.Tx, name: str, value: int) -> None:
    if not tx.update(facts, {"name": name}, value=value):
        tx.insert(facts, name=name, value=value)


def register(tx: db.Tx, name: str) -> None:
    """Makes the host known; harmless when it is. Its `host` document comes with it."""
    if host_named(tx, name) is None:
        tx.insert(hosts, name=name, id=ids.uuid(), seen={}, agents={}, created_at=tx.now)
        hold(tx, name, "host", name)


def count_report(tx: db.Tx, name: str, number: int | None, tells: bool) -> tuple[bool, int]:
    """Whether a report that says `number` is the one that follows the last which told something, and what the next one says. Reports of a
    host queue here."""
    row = tx.lock(sa.select(hosts.c.reports).where(hosts.c.name == name), "change")
    assert row is not None
    if number not in (None, row.reports):
        return False, row.reports
    if tells:
        tx.update(hosts, {"name": name}, reports=row.reports + 1)
    return True, row.reports + tells


def heard_of(tx: db.Tx, names: Collection[str], ago: float = 0.0) -> None:
    """These hosts gave a sign of life `ago` seconds before now."""
    boot, instant = leases.now(tx)
    values = {"last_seen": tx.now - timedelta(seconds=ago), "heard": instant - ago, "boot": boot}
    tx.execute(hosts.update().where(hosts.c.name.in_(names)).values(**values))


def alive(row: db.Row) -> bool:
    """Whether a host (of `all_hosts`, `host_named`) was heard of lately: four reports in a row have not been lost."""
    return row.silence is not None and abs(row.silence) < DEAD_AFTER


def troubled(row: db.Row, daemon: str) -> str:
    """What a host says is wrong with one of its daemons; empty when nothing is."""
    return str((row.trouble or {}).get(daemon, ""))


def all_hosts(conn: db.Conn) -> list[db.Row]:
    """Rows of `hosts` with `silence`: the seconds since each was heard of, None for those that were not since this boot."""
    return _read(conn, _HOSTS)


def hosts_with(conn: db.Conn, **where: Collection[str]) -> list[db.Row]:
    """The same of those with `names`, or `ids`."""
    (key, values), = where.items()
    return _read(conn, _SOME[key], **{key: list(values)})


def host_named(conn: db.Conn, name: str) -> db.Row | None:
    return next(iter(hosts_with(conn, names=[name])), None)


def host_names(conn: db.Conn) -> list[str]:
    return [row.name for row in _NAMES.rows(conn)]


def _read(conn: db.Conn, statement: Statement, **values: Any) -> list[db.Row]:
    boot, instant = leases.now(conn)
    return statement.rows(conn, boot_now=boot, instant=instant, **values)


def call(tx: db.Tx, host: str, new: NewCall) -> str:
    """Writes a call for `host`; its id. The outcome rings `call:<id>` and wakes the task parked on that topic."""
    call_id = ids.uuid()
    limit: dict[str, Any] = {}
    if new.seconds is not None:
        boot, instant = leases.now(tx)
        limit = {"deadline": tx.now + timedelta(seconds=new.seconds), "seconds": new.seconds, "until": instant + new.seconds, "boot": boot}
    tx.insert(calls, id=call_id, host=host, verb=new.verb, args=dict(new.args), request_id=tx.who.request_id, state="open",
              created_at=tx.now, **limit)  # fmt: skip
    tx.ring(f"node:{host}")
    return call_id


def outcome(conn: db.Conn, call_id: str, *, held: bool = False) -> tuple[str, Any, str | None, str | None]:
    """(state, value, error, detail) of a call; `held`: as it stays until the transaction ends."""
    row = (_HELD_OUTCOME if held else _OUTCOME).first(conn, id=call_id)
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
    return _OPEN_CALLS.rows(conn, host=host)


def bump(tx: db.Tx, kind: str, document_id: str) -> None:
    """The document changed: its version goes up and the hosts that hold it are woken."""
    _change(tx, _Change(kind, document_id, "bump"))


def hold(tx: db.Tx, host: str, kind: str, document_id: str) -> None:
    """`host` should have the document from now on; harmless when it has."""
    _change(tx, _Change(kind, document_id, "hold", host))


def release(tx: db.Tx, kind: str, document_id: str, host: str | None = None) -> None:
    """`host` (None: every host) should not have the document any more; the last one takes the document with it."""
    _change(tx, _Change(kind, document_id, "release", host))


def settle(tx: db.Tx, host: str, kind: str, ids: Iterable[str], needed: Needed) -> None:
    """`host` holds those of the documents that `needed(tx, host, ids)` names when the transaction ends."""
    for document_id in ids:
        _change(tx, _Change(kind, document_id, "settle", host, needed))


@dataclass(frozen=True)
class _Change:
    kind: str
    id: str
    what: str
    host: str | None = None
    needed: Needed | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.id


def _change(tx: db.Tx, change: _Change) -> None:
    tx.at_end(_apply, change, LATE if change.kind in _LATE else 0)


def _apply(tx: db.Tx, changes: list[_Change]) -> None:
    keys = sorted({change.key for change in changes})
    _queue(tx, keys)
    there = _there(tx, keys)
    now = {key: set(hosts_ or ()) for key, hosts_ in there.items()}
    needed = _needed(tx, changes)
    for change in changes:
        if change.what == "release" and change.host is None:
            now[change.key].clear()
        elif change.what == "hold" or (change.what == "settle" and change.id in needed[change.host, change.kind, change.needed]):
            now[change.key].add(str(change.host))
        elif change.what != "bump":
            now[change.key].discard(str(change.host))
    for key in keys:
        _write(tx, key, there[key], now[key])
    bumped = {change.key for change in changes if change.what == "bump" and there[change.key] is not None and now[change.key]}
    # Who holds it again may not have noticed that it did not, and would have nothing new to report.
    bumped |= {key for key in keys if (before := there[key]) and now[key] - before}
    for kind, document_id in sorted(bumped):
        _BUMP.change(tx, kind=kind, document=document_id)
    for key in keys:
        for host in (there[key] or set()) ^ now[key] | (now[key] if key in bumped else set()):
            tx.ring(f"node:{host}")


def _queue(tx: db.Tx, keys: Sequence[tuple[str, str]]) -> None:
    """Whoever changes one of these documents waits until this transaction ends, also where the document has no row yet."""
    if not tx.alone:
        numbers = sorted({zlib.crc32(f"{kind}/{id_}".encode()) % _QUEUES for kind, id_ in keys})
        tx.execute(sa.text("SELECT pg_advisory_xact_lock(:space, number) FROM unnest(CAST(:numbers AS int[])) AS number")
                   .bindparams(space=_SPACE, numbers=numbers))  # fmt: skip


def _there(tx: db.Tx, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], set[str] | None]:
    """Who holds each document; None when there is no such document."""
    found: dict[tuple[str, str], set[str] | None] = dict.fromkeys(keys)
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        for row in _THERE.rows(tx, kinds={kind for kind, _ in some}, ids={id_ for _, id_ in some}):
            if (row.kind, row.id) in found:
                held = found[row.kind, row.id] = found[row.kind, row.id] or set()
                held |= {row.host} - {None}
    return found


def _needed(tx: db.Tx, changes: Iterable[_Change]) -> dict[tuple[str | None, str, Needed | None], Collection[str]]:
    asked: dict[tuple[str | None, str, Needed | None], set[str]] = {}
    for change in changes:
        if change.what == "settle":
            asked.setdefault((change.host, change.kind, change.needed), set()).add(change.id)
    return {(host, kind, needed): needed(tx, str(host), sorted(ids_)) for (host, kind, needed), ids_ in asked.items() if needed is not None}


def _write(tx: db.Tx, key: tuple[str, str], there: set[str] | None, now: set[str]) -> None:
    kind, document_id = key
    if there is None and now:
        started = int(tx.now.timestamp() * 1000)  # never a version that a node may still have of a document released earlier
        tx.insert(documents, kind=kind, id=document_id, version=started)
    for host in sorted(now - (there or set())):
        tx.insert(holders, host=host, kind=kind, id=document_id, applied=0)
    for host in sorted((there or set()) - now):
        tx.delete(holders, host=host, kind=kind, id=document_id)
    if there is not None and not now:
        tx.delete(documents, kind=kind, id=document_id)


def holders_of(conn: db.Conn, kind: str, document_id: str) -> list[str]:
    return [row.host for row in _HOLDERS.rows(conn, kind=kind, document=document_id)]


def held_by(conn: db.Conn, host: str) -> dict[str, dict[str, int]]:
    """kind -> id -> version of everything `host` should have."""
    index: dict[str, dict[str, int]] = {}
    for row in _HELD.rows(conn, host=host):
        index.setdefault(row.kind, {})[row.id] = row.version
    return index


def topic(kind: str, document_id: str) -> str:
    """What wakes who waits for a document to be true on a host."""
    return f"applied:{kind}:{document_id}"


def missing(conn: db.Conn, host: str, wanted: Sequence[tuple[str, str]], since: Mapping[str, int] = {}) -> str | None:
    """The topic of one (kind, id) that is not reported true on `host`, in the version that `since` names by topic or a later one, else in the
    current one; what it does not hold is not true there, nor what it has of a document that was released (when the clock was ahead)."""
    rows = _STANDS.rows(conn, host=host, kinds={kind for kind, _ in wanted}, ids={id_ for _, id_ in wanted})
    true = {name for row in rows if min(row.version, since.get(name := topic(row.kind, row.id), row.version)) <= row.applied <= row.version}
    return next((name for name in (topic(*key) for key in wanted) if name not in true), None)


def versions(conn: db.Conn, host: str, wanted: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The current version of each that `host` holds, by topic."""
    rows = _STANDS.rows(conn, host=host, kinds={kind for kind, _ in wanted}, ids={id_ for _, id_ in wanted})
    return {topic(row.kind, row.id): row.version for row in rows if (row.kind, row.id) in wanted}


def mark_applied(tx: db.Tx, host: str, reported: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Stores what a report says is true; topics of what moved by it."""
    before = {(row.kind, row.id): row.applied for row in _TOLD.rows(tx, host=host)}
    moved = []
    for kind in sorted(reported, key=lambda kind: (kind in _LATE, kind)):  # in the order of `_apply`, that none waits for another in a circle
        for document_id, version in sorted(reported[kind].items()):
            known = before.get((kind, document_id))
            if known not in (None, version) and tx.update(holders, {"host": host, "kind": kind, "id": document_id}, applied=version):
                moved.append(topic(kind, document_id))
    return moved
