"""What a PostgreSQL database must be to hold a cloud, and what is in it. Asked before anything is written to it."""

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from nacre.core import nodes, schema
from nacre.core.db import Database

_OLDEST = 13  # the first with pg_current_xact_id
_COPY = "unused_copy"


class Unsuitable(Exception):
    """This database is not to be used; the message says why, in one sentence without a full stop."""


@dataclass(frozen=True)
class History:
    """What the home knows of its cloud's state. `used`: there is some, somewhere; `copy`: the mark of the copy that the configuration was
    switched to; `moving`: it is about to be copied."""

    used: bool = False
    copy: str = ""
    moving: bool = False


def refuse(database: Database, history: History, fits: Callable[[sa.Connection], bool]) -> None:
    """Raises Unsuitable, or db.Unreachable, when this cloud cannot have its state in this database. `fits` tells whether the home's
    keys open what is in it."""
    with database.read() as conn:
        check(conn)
        found = relations(conn)
        mark = unused_copy(conn)
        if not found:
            if history.used and not history.moving:
                raise Unsuitable("the database is empty, and this cloud has its state elsewhere")
            return
        if "alembic_version" not in found or nodes.facts.name not in found:
            raise Unsuitable(f"the database is not empty: it has {min(found)}")
        if schema.current(database) > schema.head():
            raise Unsuitable(f"the database is at step {schema.current(database)} of its schema, and this program is at {schema.head()}")
        if not fits(conn):
            raise Unsuitable("the database holds another cloud, which the keys of this one do not open")
        if history.moving and not mark:
            raise Unsuitable("the database is not empty: it holds a cloud that was used")
        if mark and not history.moving and mark != history.copy:
            raise Unsuitable("the database holds a copy that an interrupted move left, and the cloud went on without it")


def name(database: Database) -> str:
    """What people call it; never with the password."""
    url = database.url
    return f"{url.database} on {url.host or url.query.get('host') or 'this machine'}"


def check(conn: sa.Connection) -> None:
    """Raises Unsuitable when this server or this user of it will not do."""
    version, encoding, standby, schema = conn.execute(sa.text(
        "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'), pg_is_in_recovery(), current_schema()")).one()
    if version < _OLDEST:
        raise Unsuitable(f"the server is PostgreSQL {version}, and {_OLDEST} is the oldest that will do")
    if encoding != "UTF8":
        raise Unsuitable(f"the database has encoding {encoding}, not UTF8")
    if standby:
        raise Unsuitable("the server is a standby, which takes no changes")
    if schema is None:
        raise Unsuitable("the user's search_path names no schema that exists")
    if not conn.execute(sa.text("SELECT has_schema_privilege(current_schema(), 'CREATE')")).scalar():
        raise Unsuitable(f"the user may not make tables in schema {schema}: make it the owner of the database")


def relations(conn: sa.Connection) -> frozenset[str]:
    """Tables, views and sequences in the schema that would be used."""
    query = ("SELECT relname FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
             " AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')")  # fmt: skip
    return frozenset(row.relname for row in conn.execute(sa.text(query)))


def unused_copy(conn: sa.Connection) -> str:
    """The mark of a copy (transfer.py) that no cloud has used yet, else nothing."""
    if nodes.facts.name not in relations(conn):
        return ""
    return str(conn.execute(sa.select(nodes.facts.c.value).where(nodes.facts.c.name == _COPY)).scalar() or "")


def mark_copy(conn: sa.Connection, mark: str) -> None:
    conn.execute(nodes.facts.insert().values(name=_COPY, value=mark))


def use_copy(conn: sa.Connection) -> None:
    conn.execute(nodes.facts.delete().where(nodes.facts.c.name == _COPY))
