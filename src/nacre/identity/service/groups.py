"""Groups: users who are given roles together."""

from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import NotFound
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import GROUPS, USERS, Record, Wanted


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound (domain)."""
    home = wanted.get("domain_id") or caller.domain_id or caller.project_domain_id or directory.DEFAULT_DOMAIN
    caller.require(GROUPS.target({**wanted, "domain_id": home}))
    with caller.write() as tx:
        return directory.insert(tx, GROUPS, {"description": "", **wanted, "domain_id": directory.domain_of(tx, caller, wanted)})


def update(caller: Caller, group_id: str, wanted: Wanted) -> Record:
    """Raises Conflict, BadRequest."""
    with caller.write() as tx:
        return directory.update(tx, GROUPS, directory.load(tx, caller, GROUPS, group_id), wanted)


def delete(caller: Caller, group_id: str) -> None:
    with caller.write() as tx:
        directory.load(tx, caller, GROUPS, group_id)
        remove(tx, group_id)


def remove(tx: db.Tx, group_id: str) -> None:
    """Its members and roles go with the row."""
    directory.delete(tx, GROUPS, group_id)


def users_of(caller: Caller, group_id: str) -> list[Record]:
    """Raises NotFound."""
    with caller.read() as conn:
        directory.load(conn, caller, GROUPS, group_id)
        inside = sa.select(tables.members.c.user_id).where(tables.members.c.group_id == group_id)
        return [directory.record(row) for row in conn.execute(sa.select(tables.users).where(tables.users.c.id.in_(inside)).order_by("name"))]


def of_user(caller: Caller, user_id: str) -> list[Record]:
    """Raises NotFound."""
    with caller.read() as conn:
        directory.load(conn, caller, USERS, user_id)
        inside = sa.select(tables.members.c.group_id).where(tables.members.c.user_id == user_id)
        rows = conn.execute(sa.select(tables.groups).where(tables.groups.c.id.in_(inside)).order_by("name"))
        return [{**directory.record(row), "membership_expires_at": None} for row in rows]


def add_user(caller: Caller, group_id: str, user_id: str) -> None:
    """Harmless when repeated. Raises NotFound."""
    with caller.write() as tx:
        key = _both(tx, caller, group_id, user_id)
        if not _inside(tx, key):
            tx.insert(tables.members, **key)
            _changed(tx, group_id, "add_user")


def remove_user(caller: Caller, group_id: str, user_id: str) -> None:
    """Raises NotFound when the user is not in it."""
    with caller.write() as tx:
        key = _both(tx, caller, group_id, user_id)
        if not tx.delete(tables.members, **key):
            raise _outside(group_id, user_id)
        _changed(tx, group_id, "remove_user")


def has_user(caller: Caller, group_id: str, user_id: str) -> None:
    """Raises NotFound when the user is not in it."""
    with caller.read() as conn:
        if not _inside(conn, _both(conn, caller, group_id, user_id)):
            raise _outside(group_id, user_id)


def _both(conn: db.Conn, caller: Caller, group_id: str, user_id: str) -> dict[str, Any]:
    """The rule looks at group and user. Raises Forbidden, NotFound."""
    group, user = tables.by_id(conn, tables.groups, group_id), tables.by_id(conn, tables.users, user_id)
    caller.require({**GROUPS.target(directory.record(group) if group is not None else {}),
                    **USERS.target(directory.record(user) if user is not None else {})})  # fmt: skip
    if group is None:
        raise directory.missing(GROUPS, group_id)
    if user is None:
        raise directory.missing(USERS, user_id)
    return {"group_id": group_id, "user_id": user_id}


def _inside(conn: db.Conn, key: dict[str, Any]) -> bool:
    query = sa.select(tables.members).where(*(tables.members.c[name] == value for name, value in key.items()))
    return conn.execute(query).first() is not None


def _outside(group_id: str, user_id: str) -> NotFound:
    return NotFound(f"Could not find user '{user_id}' in group '{group_id}'.")


def _changed(tx: db.Tx, group_id: str, action: str) -> None:
    journal.changed(tx, "group", group_id, action)
    tables.bump_epoch(tx)
