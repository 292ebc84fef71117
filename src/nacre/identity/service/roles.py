"""Roles, and who has which where. A grant is (user or group, role, scope); a scope is a project, a domain or the system."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import NotFound
from nacre.identity import tables
from nacre.identity.service import app_credentials, directory
from nacre.identity.service.directory import DOMAINS, GROUPS, PROJECTS, ROLES, USERS, Kind, Record, Wanted

_TABLES = {"user": tables.assignments, "group": tables.group_assignments}
_ACTORS: Mapping[str, Kind] = {"user": USERS, "group": GROUPS}
_SCOPES: Mapping[str, Kind] = {"project": PROJECTS, "domain": DOMAINS}


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict."""
    caller.require(ROLES.target(wanted))
    with caller.write() as tx:
        return directory.insert(tx, ROLES, {**wanted, "description": wanted.get("description") or ""})


def update(caller: Caller, role_id: str, wanted: Wanted) -> Record:
    """Raises Conflict."""
    with caller.write() as tx:
        before = directory.load(tx, caller, ROLES, role_id)
        said = {**wanted, "description": wanted["description"] or ""} if "description" in wanted else wanted
        return directory.update(tx, ROLES, before, said)


def delete(caller: Caller, role_id: str) -> None:
    """Nobody has it any more."""
    with caller.write() as tx:
        directory.load(tx, caller, ROLES, role_id)
        directory.delete(tx, ROLES, role_id)


@dataclass(frozen=True)
class Grants:
    """All grants to an actor ("user", "group") on a scope ("project", "domain", "system")."""

    actor: str
    actor_id: str
    scope: str
    scope_id: str

    @property
    def table(self) -> sa.Table:
        return _TABLES[self.actor]

    @property
    def key(self) -> dict[str, str]:
        return {f"{self.actor}_id": self.actor_id, "scope": self.scope, "scope_id": self.scope_id}

    def where(self) -> list[sa.ColumnElement[bool]]:
        return [self.table.c[name] == value for name, value in self.key.items()]


def granted(caller: Caller, on: Grants) -> list[Record]:
    """The roles given directly. Raises NotFound."""
    with caller.read() as conn:
        _permit(conn, caller, on)
        given = sa.select(on.table.c.role_id).where(*on.where())
        return [directory.record(row) for row in conn.execute(sa.select(tables.roles).where(tables.roles.c.id.in_(given)).order_by("name"))]


def check(caller: Caller, on: Grants, role_id: str) -> None:
    """Raises NotFound when it was not given."""
    with caller.read() as conn:
        _permit(conn, caller, on, role_id)
        if conn.execute(sa.select(on.table).where(*on.where(), on.table.c.role_id == role_id)).first() is None:
            raise _not_granted(on, role_id)


def grant(caller: Caller, on: Grants, role_id: str) -> None:
    """Harmless when repeated. Raises NotFound."""
    with caller.write() as tx:
        _permit(tx, caller, on, role_id)
        if tx.first(sa.select(on.table).where(*on.where(), on.table.c.role_id == role_id)) is None:
            tx.insert(on.table, **on.key, role_id=role_id)
            _changed(tx, on, "grant")


def revoke(caller: Caller, on: Grants, role_id: str) -> None:
    """Raises NotFound when it was not given."""
    with caller.write() as tx:
        _permit(tx, caller, on, role_id)
        if not tx.delete(on.table, **on.key, role_id=role_id):
            raise _not_granted(on, role_id)
        if (on.actor, on.scope) == ("user", "project"):
            app_credentials.forget(tx, on.actor_id, on.scope_id)
        _changed(tx, on, "revoke")


def _permit(conn: db.Conn, caller: Caller, on: Grants, role_id: str = "") -> None:
    """The rule looks at actor, scope and role. Raises Forbidden, then NotFound for what there is not."""
    wanted = [(_ACTORS[on.actor], on.actor_id)]
    wanted += [(_SCOPES[on.scope], on.scope_id)] if on.scope in _SCOPES else []
    wanted += [(ROLES, role_id)] if role_id else []
    target: dict[str, Any] = {}
    absent = []
    for kind, row_id in wanted:
        row = tables.by_id(conn, kind.table, row_id)
        target |= kind.target(directory.record(row)) if row is not None else {}
        absent += [(kind, row_id)] if row is None else []
    caller.require(target)
    for kind, row_id in absent:
        raise directory.missing(kind, row_id)


def _not_granted(on: Grants, role_id: str) -> NotFound:
    return NotFound(f"Could not find role assignment with role: {role_id}, user or group: {on.actor_id}, project, domain, or system: {on.scope_id}.")


def _changed(tx: db.Tx, on: Grants, action: str) -> None:
    journal.changed(tx, "role_assignment", on.actor_id, action)
    tables.bump_epoch(tx)


def assignments(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """Assignments to users and groups, with names; filters user.id, group.id, role.id, scope.project.id, scope.domain.id, scope.system."""
    caller.require({"target.domain_id": asked.get("scope.domain.id")})
    with caller.read() as conn:
        rows = [row for actor in _TABLES for row in _assigned(conn, actor, asked)]
        scopes = {row.id: row for table in (tables.projects, tables.domains) for row in conn.execute(sa.select(table))}
    for row in rows:
        found = scopes.get(row["scope_id"])
        row["scope_name"], row["scope_domain_id"] = (found.name, getattr(found, "domain_id", None)) if found is not None else ("", None)
    return rows


def _assigned(conn: db.Conn, actor: str, asked: Mapping[str, str]) -> list[Record]:
    other = "group" if actor == "user" else "user"
    if f"{other}.id" in asked:
        return []
    table, actors = _TABLES[actor], _ACTORS[actor].table
    query = sa.select(table.c[f"{actor}_id"].label("actor_id"), table.c.scope, table.c.scope_id, table.c.role_id,
                      actors.c.name.label("actor_name"), actors.c.domain_id.label("actor_domain_id"),
                      tables.roles.c.name.label("role_name"))  # fmt: skip
    query = query.select_from(table.join(actors, actors.c.id == table.c[f"{actor}_id"]).join(tables.roles, tables.roles.c.id == table.c.role_id))
    for parameter, column in ((f"{actor}.id", table.c[f"{actor}_id"]), ("role.id", table.c.role_id)):
        if parameter in asked:
            query = query.where(column == asked[parameter])
    for scope in _SCOPES:
        if f"scope.{scope}.id" in asked:
            query = query.where(table.c.scope == scope, table.c.scope_id == asked[f"scope.{scope}.id"])
    if "scope.system" in asked:
        query = query.where(table.c.scope == "system")
    return [{**row._mapping, "actor": actor} for row in conn.execute(query)]
