"""The journal: one line for each change of a resource, written in the transaction of the change (design law 10).

A line holds when, by which request and whom, what, and the *names* of the fields that changed; values only where the caller passes
them as `values`, never a secret. Readers (notifications, metering, live pages, `nacre history`) keep cursors of their own.

Races: on PostgreSQL numbers are given before transactions commit, so a lower id may become visible after a higher one, and a reader that
went by ids would miss it for ever. Each line therefore carries its transaction's id (`xid`), and `after` gives only lines of transactions
older than every one still open, in the order (xid, id). On SQLite writers queue, ids are in the order of commits, and xid is 0 (so is
that of lines copied from there: they come first).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core import db

lines = sa.Table(
    "journal", db.metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("request_id", sa.String(64), nullable=False, index=True),
    sa.Column("user_id", sa.String(64)),
    sa.Column("project_id", sa.String(64)),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("resource_id", sa.String(255), nullable=False, index=True),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("fields", db.Json, nullable=False),
    sa.Column("values", db.Json, nullable=False),
    sa.Column("xid", sa.BigInteger, nullable=False, server_default=sa.FetchedValue()),   # the database
    sa.Index("ix_journal_xid", "xid", "id"),
)  # fmt: skip
cursors = sa.Table(
    "journal_cursors", db.metadata,
    sa.Column("reader", sa.String(64), primary_key=True),
    sa.Column("xid", sa.BigInteger, nullable=False),
    sa.Column("id", sa.BigInteger, nullable=False),
)  # fmt: skip
_SETTLED = sa.text("xid < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")
Cursor = tuple[int, int]
START: Cursor = (0, 0)


def changed(tx: db.Tx, kind: str, resource_id: str, action: str, fields: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> None:
    """Write a line. `action`: create, update, delete or the verb's upstream name."""
    tx.insert(lines, at=tx.now, request_id=tx.who.request_id, user_id=tx.who.user_id, project_id=tx.who.project_id, kind=kind,
              resource_id=resource_id, action=action, fields=sorted(fields), values=dict(values or {}))  # fmt: skip


def after(conn: db.Conn, cursor: Cursor, limit: int) -> list[db.Row]:
    """The next lines; none that comes later belongs before them. A line is given once the transactions begun before it have ended."""
    plain = conn.conn if isinstance(conn, db.Tx) else conn
    query = sa.select(lines).where(sa.tuple_(lines.c.xid, lines.c.id) > cursor).order_by(lines.c.xid, lines.c.id).limit(limit)
    return list(plain.execute(query if plain.dialect.name == "sqlite" else query.where(_SETTLED)))


def cursor_of(conn: db.Conn, reader: str) -> Cursor:
    row = conn.execute(sa.select(cursors).where(cursors.c.reader == reader)).first()
    return (row.xid, row.id) if row is not None else START


def advance(tx: db.Tx, reader: str, line: db.Row) -> None:
    """`reader` has done with everything up to `line`; in the transaction of what it did with it, so that nothing is done twice."""
    if not tx.update(cursors, {"reader": reader}, xid=line.xid, id=line.id):
        tx.insert(cursors, reader=reader, xid=line.xid, id=line.id)
