"""Reading the directory: domains, projects, users, roles, assignments, services, endpoints, regions.

Every kind is read the same way, so one pair of verbs serves all: `find` one that the caller may see, `listed` those that match.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import NotFound
from nacre.identity import tables


@dataclass(frozen=True)
class Kind:
    """A resource of the directory: its word, its table, the columns a list may be filtered by."""

    word: str
    table: sa.Table
    filters: tuple[str, ...]


DOMAINS = Kind("domain", tables.domains, ("name", "enabled"))
PROJECTS = Kind("project", tables.projects, ("name", "domain_id", "parent_id", "enabled"))
USERS = Kind("user", tables.users, ("name", "domain_id", "enabled"))
ROLES = Kind("role", tables.roles, ("name",))
REGIONS = Kind("region", tables.regions, ("parent_region_id",))
SERVICES = Kind("service", tables.services, ("name", "type"))
ENDPOINTS = Kind("endpoint", tables.endpoints, ("interface", "service_id", "region_id"))


def find(caller: Caller, kind: Kind, row_id: str) -> db.Row:
    """Raises NotFound when there is none, Forbidden naming the rule when the caller may not see it."""
    with caller.read() as conn:
        row = tables.by_id(conn, kind.table, row_id)
    target = {f"target.{kind.word}.{name}": value for name, value in (row._mapping.items() if row is not None else ())}
    caller.require({"target.user.id": row_id, **target, **{k.replace("target.", ""): v for k, v in target.items()}})
    if row is None:
        raise NotFound(f"Could not find {kind.word}: {row_id}.")
    return row


def listed(caller: Caller, kind: Kind, asked: Mapping[str, str]) -> list[db.Row]:
    """Rows by equality on the kind's filters; unknown parameters are ignored, as upstream does."""
    caller.require({"target.domain_id": asked.get("domain_id"), "target.user.id": asked.get("user_id")})
    query = sa.select(kind.table).order_by(kind.table.c.name if "name" in kind.table.c else kind.table.c.id)
    for name in kind.filters:
        if name in asked:
            value: Any = asked[name]
            query = query.where(kind.table.c[name] == (value.lower() not in ("false", "0") if name == "enabled" else value))
    with caller.read() as conn:
        return list(conn.execute(query))


def projects_of(caller: Caller, user_id: str) -> list[db.Row]:
    """The enabled projects in which the user has a role."""
    with caller.read() as conn:
        user = tables.by_id(conn, tables.users, user_id)
        caller.require({"target.user.id": user_id, "target.user.domain_id": user.domain_id if user is not None else None})
        if user is None:
            raise NotFound(f"Could not find user: {user_id}.")
        wanted = tables.scopes_of(conn, user_id, "project")
        return list(conn.execute(sa.select(tables.projects).where(tables.projects.c.id.in_(wanted)).order_by(tables.projects.c.name)))


def role_assignments(caller: Caller, asked: Mapping[str, str]) -> list[dict[str, Any]]:
    """Assignments as (user, role, scope) with names; filters user.id, role.id, scope.project.id, scope.domain.id, scope.system."""
    caller.require({"target.domain_id": asked.get("scope.domain.id")})
    names = sa.select(tables.assignments, tables.users.c.name.label("user_name"), tables.users.c.domain_id.label("user_domain_id"),
                      tables.roles.c.name.label("role_name"))  # fmt: skip
    joined = tables.assignments.join(tables.users, tables.users.c.id == tables.assignments.c.user_id).join(
        tables.roles, tables.roles.c.id == tables.assignments.c.role_id)  # fmt: skip
    query = names.select_from(joined)
    columns = tables.assignments.c
    for parameter, column in (("user.id", columns.user_id), ("role.id", columns.role_id)):
        if parameter in asked:
            query = query.where(column == asked[parameter])
    for scope in ("project", "domain"):
        if f"scope.{scope}.id" in asked:
            query = query.where(columns.scope == scope, columns.scope_id == asked[f"scope.{scope}.id"])
    if "scope.system" in asked:
        query = query.where(columns.scope == "system")
    with caller.read() as conn:
        rows = [dict(row._mapping) for row in conn.execute(query)]
        scopes = {row.id: row for table in (tables.projects, tables.domains) for row in conn.execute(sa.select(table))}
    for row in rows:
        found = scopes.get(row["scope_id"])
        row["scope_name"], row["scope_domain_id"] = (found.name, getattr(found, "domain_id", None)) if found is not None else ("", None)
    return rows


def catalog(caller: Caller) -> list[db.Row]:
    with caller.read() as conn:
        return tables.catalog_rows(conn)
