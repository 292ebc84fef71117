"""One SQL database: SQLite (WAL, synchronous=FULL) for one machine, PostgreSQL beyond.

Reads run on their own snapshot; every change goes through `Database.write()`, which on SQLite takes an in-process lock, then a
file lock, then `BEGIN IMMEDIATE` (busy-timeout polling alone gives a p99 near a second under load), and on PostgreSQL a READ
COMMITTED transaction. What a change must tell others (bells) is collected in the transaction and rung after the commit: a bell
only wakes, so one lost between commit and ring costs seconds, never work.

A SQLite connection is kept in what SQLAlchemy takes for one long transaction, below which SQLite's own begin and end (`_Kept`): a
connection and a transaction of SQLAlchemy's cost 80 us, SQLite's 8, and a request has several.

A database that does not answer is `Unreachable`, which a request answers as 503 and a task waits for: a PostgreSQL that is away, a
SQLite whose disk is full, fails or is held by somebody else. One that was lost during a commit may or may not have committed: nothing
was acknowledged, and who goes on (a task) looks at the rows first.

Small changes that may be at any time many (a line of the journal for each login) share transactions, and so their fsyncs: `write_shared()`.

Races: a unique or serialisation failure is a normal answer. `again()` runs the whole verb anew, at most 5 times, so a verb must keep
all its effects inside its one transaction. Nothing may sleep, hash, render or call out while a write transaction is open.
On PostgreSQL whoever decides on a row holds it (`Tx.lock`), and rows are held in one order (docs/architecture.md): a circle would be cured
by doing one's work anew, but only after a second. What every verb touches is done `at_end`, sorted.
Of those who share a transaction one leads: it takes whoever waits when its turn to write has come, and all return once that is committed. Who
comes later waits for the next, which the first of them leads. When a shared transaction fails everybody's part is done again in one of its own,
so that each meets only its own failure; but a database that does not answer is so for all who wait, and their parts are not tried twice.
"""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import exc

from nacre.core import clock
from nacre.core.errors import BadRequest, Conflict, Unavailable
from nacre.core.statements import Statement, given

T = TypeVar("T")
Row = sa.Row[Any]
Hold = Literal["share", "change", "delete"]
"""Against whom a row is held: who shares it only reads what it says, who changes it lets others refer to it, who deletes it nobody."""
metadata = sa.MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                       "fk": "fk_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"}
)  # fmt: skip
Json = sa.JSON(none_as_null=True)
_log = logging.getLogger("nacre.db")

# A server that is gone without a word is noticed within half a minute; what the URL says wins.
_PATIENCE = {
    "connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25000,
    "application_name": "nacre",
}  # fmt: skip
# SQLSTATEs of a server that is not there for us now: connection, authorisation, resources, operator's intervention, a standby.
_GONE = ("08", "28", "3D", "53", "57", "25006")
# The same of SQLite: what its disk, another process or the machine's memory cause, never what a statement does.
_BROKEN = frozenset((
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB,
))  # fmt: skip
# Seconds that a change of SQLite waits for the changes before it, and then for somebody who locks the file from outside.
_TURN, _OUTSIDER = 20.0, 3.0


class Unreachable(Unavailable):
    """The database does not answer. `reason` is for the operator."""

    kind = "ServiceUnavailable"

    def __init__(self, reason: str) -> None:
        super().__init__("The database of this cloud does not answer at the moment, try again later.")
        self.cause, self.reason = reason, f"the database does not answer: {reason}"


class Who(Protocol):
    """In whose name a change is made."""

    @property
    def request_id(self) -> str: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def project_id(self) -> str | None: ...


class Tx:
    """An open write transaction. `now` is one instant for all its rows."""

    def __init__(self, conn: sa.Connection, who: Who) -> None:
        self.conn, self.who = conn, who
        self.now: datetime = clock.utcnow()
        self.bells: set[str] = set()
        self._last: dict[tuple[int, Callable[[Tx, list[Any]], None]], list[Any]] = {}

    def execute(self, statement: sa.Executable, rows: Any = None) -> sa.CursorResult[Any]:
        result = self.conn.execute(statement, rows) if rows is not None else self.conn.execute(statement)
        assert isinstance(result, sa.CursorResult)
        return result

    def scalar(self, statement: sa.Executable) -> Any:
        return self.conn.execute(statement).scalar()

    def first(self, statement: sa.Executable) -> Row | None:
        return self.conn.execute(statement).first()

    def all(self, statement: sa.Executable) -> list[Row]:
        return list(self.conn.execute(statement))

    def insert(self, table: sa.Table, **values: Any) -> None:
        _insert(table, tuple(values)).change(self.conn, **values)

    def update(self, table: sa.Table, where: Mapping[str, Any], **values: Any) -> int:
        """Rows changed by `UPDATE table SET values WHERE col = ... AND ...`; zero is a normal answer (a generation moved on)."""
        if any(isinstance(value, sa.ClauseElement) for value in values.values()):
            statement = table.update().where(*(table.c[name] == value for name, value in where.items())).values(**values)
            return int(self.conn.execute(statement).rowcount)
        return _update(table, _key(where), tuple(values)).change(self.conn, **values, **_asked(where))

    def delete(self, table: sa.Table, **where: Any) -> int:
        return _delete(table, _key(where)).change(self.conn, **_asked(where))

    def ring(self, topic: str) -> None:
        self.bells.add(topic)

    def lock(self, statement: sa.Select[Any], how: Hold = "delete") -> Row | None:
        """The first row, all of them held until commit, each as it is by then (law 14 gives the order)."""
        return self.first(statement.with_for_update(read=how == "share", key_share=how == "change"))

    @property
    def alone(self) -> bool:
        """Whether nobody else writes anything meanwhile (SQLite)."""
        return self.conn.dialect.name == "sqlite"

    def at_end(self, do: "Callable[[Tx, list[Any]], None]", item: Any, rank: int = 0) -> None:
        """`do(tx, items)` once, before the commit, with every item given for it; lower ranks first."""
        self._last.setdefault((rank, do), []).append(item)

    def end(self) -> None:
        while self._last:
            first = min(self._last, key=lambda key: key[0])
            first[1](self, self._last.pop(first))

    @contextmanager
    def nested(self) -> Iterator[None]:
        """A part that an exception takes back, whole."""
        had = {key: len(items) for key, items in self._last.items()}
        try:
            with self.conn.begin_nested():
                yield
        except BaseException:
            self._last = {key: items[: had[key]] for key, items in self._last.items() if key in had}
            raise


Conn = sa.Connection | Tx


@dataclass(eq=False)
class _Part:
    """One's share of a transaction. `called`: it is done, or its owner is to lead."""

    who: Who
    do: Callable[[Tx], None]
    called: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    failure: BaseException | None = None

    def within(self, tx: Tx) -> None:
        part = Tx(tx.conn, self.who)
        self.do(part)
        part.end()
        tx.bells |= part.bells


class _Shared:
    """Who waits to be in the next transaction, and whether somebody leads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Part] = []
        self._led = False

    def join(self, part: _Part) -> None:
        """Returns when it is done, or when its owner leads."""
        with self._lock:
            self._waiting.append(part)
            leads, self._led = not self._led, True
        if not leads:
            part.called.wait()

    def take(self) -> list[_Part]:
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def dismiss(self, parts: list[_Part]) -> None:
        """The leader's end: these are done, and who waits first is to lead."""
        with self._lock:
            self._led = bool(self._waiting)
            following = self._waiting[:1]
        for part in parts:
            part.done = True
        for part in (*following, *parts):
            part.called.set()


@cache
def _insert(table: sa.Table, names: tuple[str, ...]) -> Statement:
    return Statement(table.insert().inline(), names)


Key = tuple[tuple[str, bool], ...]  # column, whether it is to be NULL


@cache
def _update(table: sa.Table, where: Key, names: tuple[str, ...]) -> Statement:
    return Statement(table.update().where(*_where(table, where)), names)


@cache
def _delete(table: sa.Table, where: Key) -> Statement:
    return Statement(table.delete().where(*_where(table, where)))


def _where(table: sa.Table, where: Key) -> Iterator[sa.ColumnElement[bool]]:
    return (table.c[name].is_(None) if null else table.c[name] == given(f"_{name}") for name, null in where)


def _key(where: Mapping[str, Any]) -> Key:
    return tuple((name, value is None) for name, value in where.items())


def _asked(where: Mapping[str, Any]) -> dict[str, Any]:
    return {f"_{name}": value for name, value in where.items() if value is not None}


class Database:
    """Open with a URL; `rung` is called with the topics of each committed transaction."""

    def __init__(self, url: str, rung: Callable[[set[str]], None] = lambda topics: None) -> None:
        self.url = sa.make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.rung = rung
        self._thread_lock = threading.Lock()
        self._file_lock = -1
        self._silent: set[str] = set()
        self._kept: list[_Kept] = []
        self._shared = _Shared()
        options: dict[str, Any] = {"pool_size": 12, "max_overflow": 20, "pool_use_lifo": True, "hide_parameters": True,
                                   "json_serializer": _to_json, "json_deserializer": msgspec.json.decode}  # fmt: skip
        if self.sqlite:
            options["connect_args"] = {"cached_statements": 512}
            self._file_lock = os.open(f"{Path(self.url.database or '')}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        else:
            self._patience = {name: value for name, value in _PATIENCE.items() if name not in self.url.query}
            options |= {"pool_size": 8, "max_overflow": 16, "pool_timeout": 10, "pool_pre_ping": True, "isolation_level": "READ COMMITTED",
                       "connect_args": self._patience}  # fmt: skip
            if self.url.drivername == "postgresql":
                self.url = self.url.set(drivername="postgresql+psycopg")
        self.engine = sa.create_engine(self.url, **options)
        if self.sqlite:
            sa.event.listen(self.engine, "connect", _sqlite_connect)
            sa.event.listen(self.engine, "begin", _sqlite_begin)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection on one snapshot; what it changes is rolled back."""
        with self.answering(), self._transaction("BEGIN", "ROLLBACK") if self.sqlite else self.engine.connect() as conn:
            yield conn

    @contextmanager
    def write(self, who: Who) -> Iterator[Tx]:
        """One transaction, committed at the end of the block, rolled back by an exception."""
        with self.answering("changes"), self._one_writer(), self._changing() as conn:
            tx = Tx(conn, who)
            yield tx
            tx.end()
        if tx.bells:
            self.rung(tx.bells)

    @contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        if self.sqlite:
            with self._transaction("BEGIN IMMEDIATE", "COMMIT") as conn:
                yield conn
                conn.dispatch.commit(conn)  # who listens is told as by SQLAlchemy
        else:
            with self.engine.connect() as conn, conn.begin():
                yield conn

    @contextmanager
    def _transaction(self, begin: str, end: str) -> Iterator[sa.Connection]:
        """On SQLite: of a connection that nobody uses, which is kept for the next one unless it is broken."""
        try:
            kept = self._kept.pop()
        except IndexError:
            kept = _Kept(self.engine)
        try:
            kept.driver.execute(begin).close()
            yield kept.conn
            kept.driver.execute(end).close()
        finally:
            if kept.ended():
                self._kept.append(kept)

    def write_shared(self, who: Who, do: Callable[[Tx], None]) -> None:
        """`do(tx)` in a transaction that it shares with others who wait at this moment, committed on return; it may be called twice. Raises what
        `write` and `do` raise."""
        mine = _Part(who, do)
        self._shared.join(mine)
        if not mine.done:
            self._lead(mine)
        if isinstance(mine.failure, Unreachable):
            raise mine.failure
        if mine.failure is not None:
            with self.write(who) as tx:
                do(tx)

    def _lead(self, leader: _Part) -> None:
        parts: list[_Part] = []
        failure: BaseException | None = None
        try:
            with self.write(leader.who) as tx:
                parts = self._shared.take()
                for part in parts:
                    part.within(tx)
        except BaseException as error:
            failure = error
            if not isinstance(error, Exception):
                raise
        finally:
            parts = parts or self._shared.take()
            for part in parts:
                part.failure = failure and (Unreachable(failure.cause) if isinstance(failure, Unreachable) else failure)
            self._shared.dismiss(parts)

    def dial(self) -> Any:
        """A psycopg connection of its own, in autocommit (PostgreSQL)."""
        arguments, options = self.engine.dialect.create_connect_args(self.url)
        return self.engine.dialect.connect(*arguments, **{**options, **self._patience, "autocommit": True})

    @contextmanager
    def answering(self, what: str = "reads") -> Iterator[None]:
        """Tells a database that is away, and values that it cannot hold, from everything else that may go wrong."""
        try:
            yield
        except exc.DataError as error:
            raise BadRequest("A value is too long, out of range, or holds a character that cannot be stored.") from error
        except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:  # the last from where a transaction begins
            reason = why_gone(error)
            if not reason:
                raise
            raise self._unreachable(what, reason) from error
        if what in self._silent:
            self._silent.discard(what)
            _log.warning("the database answers %s again", what)

    def _unreachable(self, what: str, reason: str) -> Unreachable:
        if what not in self._silent:
            self._silent.add(what)
            _log.warning("the database does not answer %s: %s", what, reason)
        return Unreachable(reason)

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        if not self.sqlite:
            yield
            return
        if not self._thread_lock.acquire(timeout=_TURN):
            raise self._unreachable("changes", "the changes before this one take too long")
        try:
            fcntl.flock(self._file_lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file_lock, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    def close(self) -> None:
        while self._kept:
            self._kept.pop().conn.close()
        self.engine.dispose()
        if self._file_lock >= 0:
            os.close(self._file_lock)
            self._file_lock = -1


class _Kept:
    """A SQLite connection outside of any transaction of SQLite's; SQLAlchemy thinks that it is in one."""

    def __init__(self, engine: sa.Engine) -> None:
        self.conn = engine.connect()
        self.conn.begin()
        driver = self.conn.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self.driver = driver
        driver.rollback()

    def ended(self) -> bool:
        """Whether it can be used again; a transaction in which something went wrong is rolled back."""
        try:
            if self.driver.in_transaction:
                self.driver.rollback()
            if self.conn.in_transaction() and not self.conn.in_nested_transaction():
                return True
        except sqlite3.Error:
            pass
        self.conn.invalidate()
        self.conn.close()
        return False


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_OUTSIDER * 1000:.0f}", "cache_size=-4000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(conn: sa.Connection) -> None:
    driver = conn.connection.driver_connection
    assert driver is not None
    driver.execute("BEGIN IMMEDIATE" if conn.get_execution_options().get("nacre_write") else "BEGIN").close()


def why_gone(error: Exception) -> str:
    """One line if the database is not there for us (now), else nothing."""
    if isinstance(error, exc.TimeoutError):
        return "all connections of this process are in use"
    origin = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(origin, sqlite3.Error):
        return str(origin) if getattr(origin, "sqlite_errorcode", 0) & 0xFF in _BROKEN else ""
    if not isinstance(error, exc.DBAPIError):
        return ""
    state = getattr(error.orig, "sqlstate", None)
    broken = error.connection_invalidated or (state is None and isinstance(error, exc.OperationalError))
    if not (broken or (state or "").startswith(_GONE)):
        return ""
    return "; ".join(line.strip() for line in str(error.orig).splitlines() if line.strip()) or "the connection was lost"


def again(verb: Callable[[], T], times: int = 5) -> T:
    """`verb()`, run anew when it lost a race in the database. Raises Conflict when it lost every time."""
    for attempt in range(times):
        try:
            return verb()
        except exc.IntegrityError as error:
            lost = error
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in ("40001", "40P01"):
                raise
            lost = error  # type: ignore[assignment]
        if attempt == times - 1:
            raise Conflict("The request met a concurrent change of the same resource, try it again.") from lost
    raise AssertionError("unreachable")
