"""Roles, and the grants of them. A grant is (user or group, role, scope); a scope is a project, a domain or the system, or what is below a
project or in a domain (an inherited grant).

A role is everybody's, or a domain's own: that is given only in its domain, and is worth what it implies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Forbidden, NotFound
from nacre.identity import tables
from nacre.identity.service import app_credentials, directory
from nacre.identity.service.directory import DOMAINS, GROUPS, PROJECTS, ROLES, USERS, Kind, Record, Wanted

_TABLES = {"user": tables.assignments, "group": tables.group_assignments}
_ACTORS: Mapping[str, Kind] = {"user": USERS, "group": GROUPS}
_SCOPES: Mapping[str, Kind] = {"project": PROJECTS, "domain": DOMAINS}


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound (domain)."""
    _ask(caller, "create", wanted)
    domain_id = wanted.get("domain_id")
    with caller.write() as tx:
        if domain_id is not None and tables.by_id(tx, tables.domains, domain_id) is None:
            raise directory.missing(DOMAINS, domain_id)
        return directory.insert(tx, ROLES, {"description": "", **wanted, "domain_id": domain_id})


def _ask(caller: Caller, verb: str, role: Wanted) -> None:
    """A domain's own roles have rules of their own. Raises Forbidden."""
    caller.asked.add(caller.rule)
    caller.require(ROLES.target(role), f"identity:{verb}_domain_role" if role.get("domain_id") else caller.rule)


def _load(conn: db.Conn, caller: Caller, verb: str, role_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    row = tables.by_id(conn, tables.roles, role_id)
    _ask(caller, verb, directory.record(row) if row is not None else {})
    if row is None:
        raise directory.missing(ROLES, role_id)
    return directory.record(row)


def find(caller: Caller, role_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return _load(conn, caller, "get", role_id)


def update(caller: Caller, role_id: str, wanted: Wanted) -> Record:
    """Raises Conflict."""
    with caller.write() as tx:
        before = _load(tx, caller, "update", role_id)
        return directory.update(tx, ROLES, before, wanted)


def delete(caller: Caller, role_id: str) -> None:
    """Nobody has it any more."""
    with caller.write() as tx:
        before = _load(tx, caller, "delete", role_id)
        directory.mutable(ROLES, before)
        directory.delete(tx, ROLES, role_id)


@dataclass(frozen=True)
class Grants:
    """All grants to an actor ("user", "group") on a scope ("project", "domain", "system"), or inherited from it."""

    actor: str
    actor_id: str
    scope: str
    scope_id: str
    inherited: bool = False

    @property
    def table(self) -> sa.Table:
        return _TABLES[self.actor]

    @property
    def key(self) -> dict[str, str]:
        return {f"{self.actor}_id": self.actor_id, "scope": f"under-{self.scope}" if self.inherited else self.scope, "scope_id": self.scope_id}

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
    """Harmless when repeated. Raises NotFound, Forbidden or BadRequest (another domain's own role)."""
    with caller.write() as tx:
        _permit(tx, caller, on, role_id)
        _at_home(tx, on, role_id)
        if tx.first(sa.select(on.table).where(*on.where(), on.table.c.role_id == role_id)) is None:
            tx.insert(on.table, **on.key, role_id=role_id)
            _changed(tx, on, "grant", role_id)


def _at_home(tx: db.Tx, on: Grants, role_id: str) -> None:
    role = tables.by_id(tx, tables.roles, role_id)
    if role is None or role.domain_id is None:
        return
    if on.scope == "system":
        raise BadRequest(f"Role {role_id} is a domain-specific role. Unable to use a domain-specific role in a system assignment.",
                         kind="ValidationError")  # fmt: skip
    project = tables.by_id(tx, tables.projects, on.scope_id) if on.scope == "project" else None
    if role.domain_id != (project.domain_id if project is not None else on.scope_id):
        raise Forbidden(f"{on.scope.capitalize()} {on.scope_id} must be in the same domain as the role {role_id} being assigned.",
                        kind="DomainSpecificRoleMismatch")  # fmt: skip


def revoke(caller: Caller, on: Grants, role_id: str) -> None:
    """Raises NotFound when it was not given."""
    with caller.write() as tx:
        _permit(tx, caller, on, role_id)
        if not tx.delete(on.table, **on.key, role_id=role_id):
            raise _not_granted(on, role_id)
        if on.actor == "user":
            app_credentials.forget(tx, on.actor_id, _projects(tx, on))
        _changed(tx, on, "revoke", role_id)


def _projects(tx: db.Tx, on: Grants) -> sa.Select[Any]:
    """Ids of those in which the grants count."""
    ids = sa.select(tables.projects.c.id)
    if on.inherited and on.scope == "domain":
        return ids.where(tables.projects.c.domain_id == on.scope_id)
    return ids.where(tables.projects.c.id.in_([row.id for row in tables.below(tx, on.scope_id)] if on.inherited else [on.scope_id]))


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


def _changed(tx: db.Tx, on: Grants, action: str, role_id: str) -> None:
    journal.changed(tx, "role_assignment", on.actor_id, action, values={**on.key, "role_id": role_id})
    tables.bump_epoch(tx)


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """Everybody's roles, or those of a domain."""
    caller.asked.add(caller.rule)
    domain_id = asked.get("domain_id") or None
    caller.require({"target.role.domain_id": domain_id, "target.domain_id": domain_id},
                   "identity:list_domain_roles" if domain_id else caller.rule)  # fmt: skip
    with caller.read() as conn:
        return directory.rows(conn, ROLES, asked, tables.roles.c.domain_id == domain_id)
