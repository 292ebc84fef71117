"""Copies a cloud's database: from SQLite into an empty PostgreSQL (`copy`), and from either into a SQLite file of its own (`snapshot`).

`copy` is all or nothing, in one transaction of the target. The source is held by its write lock from the first row to the commit, so
nothing changes meanwhile. Tables are made by the steps of the schema, filled in the order of their references, read back and compared by
count and checksum; sequences continue where the source was.
An interrupted copy leaves nothing behind, because PostgreSQL rolls it back. A complete one carries a mark until a cloud starts on it:
if the switch to it never happened the source went on, so the copy is old, and the next one replaces it.

`snapshot` disturbs nobody: of SQLite it is SQLite's own backup, of PostgreSQL the rows that one transaction sees, by the same routine.
Journal lines of PostgreSQL are put in the order of their ids there, and readers of the journal go back to the first that they have not read.

Times of leases are translated: SQLite counts from the machine's boot, PostgreSQL in its own time. Who held a lease has ended, so leases
are left out and running tasks are free at once; what waits goes on waiting for as long as it had left.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from nacre.core import clock, journal, leases, nodes, postgresql, schema
from nacre.core.db import Database, Who, metadata
from nacre.core.postgresql import Unsuitable

_BATCH = 1000
_ONE_AT_A_TIME = 0x6E61637265  # key of the advisory lock
Rows = Iterator[dict[str, Any]]


@dataclass
class Sum:
    """Count and checksum of a table's rows, in any order."""

    rows: int = 0
    digest: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        told = repr(tuple(sorted(row.items()))).encode("utf-8", "surrogatepass")
        self.digest = (self.digest + int.from_bytes(hashlib.sha256(told).digest(), "big")) % 2**256


def copy(source: Database, target: Database, who: Who, mark: str) -> dict[str, int]:
    """Rows by table. The target was found suitable, and empty or an unused copy. Raises Unsuitable; then nothing has changed."""
    if schema.current(source) != schema.head():
        raise Unsuitable(f"the cloud's database is at step {schema.current(source) or 'none'} of its schema, and this program is at {schema.head()}")
    with source.write(who) as tx, target.answering(), target.engine.connect() as conn, conn.begin():
        conn.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
        if not conn.execute(sa.text(f"SELECT pg_try_advisory_xact_lock({_ONE_AT_A_TIME})")).scalar():
            raise Unsuitable("another copy into this database is under way")
        _clear(conn)
        schema.upgrade_within(conn)
        shift = leases.now(conn)[1] - clock.boottime()
        counts = _fill(tx.conn, conn, lambda table, rows: _translated(table, rows, shift))
        for table in metadata.sorted_tables:
            _continue_sequence(conn, table)
        postgresql.mark_copy(conn, mark)
    return counts


def snapshot(source: Database, path: Path) -> None:
    """The whole database as it is at one moment, in a new SQLite file. Raises Unsuitable."""
    path.unlink(missing_ok=True)
    if source.sqlite:
        with closing(sqlite3.connect(f"file:{source.url.database}?mode=ro", uri=True)) as read, closing(sqlite3.connect(path)) as file:
            read.backup(file)
        return _in_one_file(path)
    if schema.current(source) != schema.head():
        raise Unsuitable(f"the cloud's database is at step {schema.current(source) or 'none'} of its schema, and this program is at {schema.head()}")
    target = Database(f"sqlite:///{path}")
    try:
        schema.upgrade(target)
        one_view = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with source.answering(), source.engine.connect().execution_options(**one_view) as conn, target.engine.connect() as plain:
            made = plain.execution_options(nacre_write=True)
            with conn.begin(), made.begin():
                _fill(conn, made, _by_ids)
                _go_back(made, list(conn.execute(sa.select(journal.cursors))), conn)
    finally:
        target.close()
        Path(f"{path}.lock").unlink(missing_ok=True)
    _in_one_file(path)


def _in_one_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode=DELETE").close()


def _fill(source: sa.Connection, target: sa.Connection, translated: Callable[[sa.Table, Rows], Rows]) -> dict[str, int]:
    """Every row of `source` into the empty tables of `target`, read back and compared; rows by table."""
    counts = {}
    for table in metadata.sorted_tables:
        poured = _pour(table, translated(table, _rows(source, table)), target)
        if _summed(_rows(target, table)) != poured:
            raise Unsuitable(f"what was written to table {table.name} is not what is read back")
        counts[table.name] = poured.rows
    return counts


def _by_ids(table: sa.Table, rows: Rows) -> Rows:
    for row in rows:
        yield {**row, "xid": 0} if table in (journal.lines, journal.cursors) else row


def _go_back(target: sa.Connection, cursors: list[Any], source: sa.Connection) -> None:
    lines = journal.lines.c
    for cursor in cursors:
        unread = sa.select(sa.func.min(lines.id)).where(sa.tuple_(lines.xid, lines.id) > (cursor.xid, cursor.id))
        first = source.execute(unread).scalar()
        if first is not None and first <= cursor.id:
            target.execute(journal.cursors.update().where(journal.cursors.c.reader == cursor.reader).values(id=first - 1))


def _clear(conn: sa.Connection) -> None:
    """Takes an unused copy away; refuses everything else that is there."""
    found = postgresql.relations(conn)
    if found and not postgresql.unused_copy(conn):
        raise Unsuitable("the database is not empty")
    if found:
        metadata.drop_all(conn)
        conn.execute(sa.text("DROP TABLE alembic_version"))
    left = sorted(postgresql.relations(conn))
    if left:
        raise Unsuitable(f"the database is not empty: it has {left[0]}")


def _rows(conn: sa.Connection, table: sa.Table) -> Rows:
    with conn.execute(sa.select(table).execution_options(yield_per=_BATCH)) as found:
        for row in found.mappings():
            yield dict(row)


def _translated(table: sa.Table, rows: Rows, shift: float) -> Rows:
    timed = "boot" in table.c and "until" in table.c
    for row in rows:
        if table is leases.table:
            continue
        if timed and row.get("state") == "running":
            row["boot"], row["until"] = None, 0.0
        elif timed and row["boot"] == clock.boot_id() and row["until"] is not None:
            row["boot"], row["until"] = "", row["until"] + shift
        yield row


def _pour(table: sa.Table, rows: Rows, conn: sa.Connection) -> Sum:
    total, batch = Sum(), []
    try:
        for row in rows:
            total.add(row)
            batch.append(row)
            if len(batch) == _BATCH:
                conn.execute(table.insert(), batch)
                batch = []
        if batch:
            conn.execute(table.insert(), batch)
    except (exc.DataError, exc.IntegrityError) as error:
        raise Unsuitable(f"a row of table {table.name} does not fit: {str(error.orig).splitlines()[0]}") from error
    return total


def _summed(rows: Rows) -> Sum:
    total = Sum()
    for row in rows:
        total.add(row)
    return total


def _continue_sequence(conn: sa.Connection, table: sa.Table) -> None:
    column = table.autoincrement_column
    if column is None:
        return
    highest = conn.execute(sa.select(sa.func.max(column))).scalar()
    floor = nodes.fact(conn, f"numbers:{table.name}")
    highest = max(highest or 0, floor - 1) if floor is not None else highest
    sequence = conn.execute(sa.text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": f'"{table.name}"', "column": column.name}).scalar()
    if highest is not None and sequence is not None:
        conn.execute(sa.text("SELECT setval(CAST(:sequence AS regclass), :highest)"), {"sequence": sequence, "highest": highest})
