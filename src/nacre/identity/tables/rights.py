"""Which roles a user has where: given to the user or to a group of the user's, there or above, and those that these imply."""

import sqlalchemy as sa

from nacre.core import db
from nacre.core.statements import Statement, given, given_list
from nacre.identity import tables


def places(conn: db.Conn, scope: str, scope_id: str) -> list[tuple[str, str]]:
    """Where roles are given that count on a scope: there, and for a project what is inherited from its domain and the projects above."""
    project = tables.by_id(conn, tables.projects, scope_id) if scope == "project" else None
    inherited = [("under-domain", project.domain_id)] if project is not None else []
    if project is not None and project.parent_id != project.domain_id:
        inherited += [("under-project", row.id) for row in tables.above(conn, scope_id)]
    return [(scope, scope_id), *inherited]


_IMPLIED = Statement(sa.select(tables.implied_roles))


def inferences(conn: db.Conn) -> dict[str, set[str]]:
    """A role's id -> the ids of those that it implies."""
    found: dict[str, set[str]] = {}
    for row in _IMPLIED.rows(conn):
        found.setdefault(row.prior_role_id, set()).add(row.implied_role_id)
    return found


def with_implied(held: set[str], implied: dict[str, set[str]]) -> set[str]:
    found, fresh = set(held), set(held)
    while fresh:
        fresh = {follows for prior in fresh for follows in implied.get(prior, ())} - found
        found |= fresh
    return found


def _granted() -> Statement:
    """What a user was given on these ids, whatever they are of."""
    one, other, user_id, scope_ids = tables.assignments.c, tables.group_assignments.c, given("user_id"), given_list("scope_ids")
    direct = sa.select(one.scope, one.scope_id, one.role_id).where(one.user_id == user_id, one.scope_id.in_(scope_ids))
    by_group = sa.select(other.scope, other.scope_id, other.role_id).join(tables.members, tables.members.c.group_id == other.group_id)
    return Statement(direct.union_all(by_group.where(tables.members.c.user_id == user_id, other.scope_id.in_(scope_ids))))


_GRANTED = _granted()
_EVERYBODYS = Statement(sa.select(tables.roles).where(tables.roles.c.id.in_(given_list("ids")), tables.roles.c.domain_id.is_(None))
                        .order_by(tables.roles.c.name))  # fmt: skip


def roles_on(conn: db.Conn, user_id: str, scope: str, scope_id: str) -> list[db.Row]:
    """The roles of a user on a scope, by name: given to the user or to a group of the user's, there or above, and those they imply.
    A domain's own roles are only worth what they imply."""
    where = places(conn, scope, scope_id)
    given_there = _GRANTED.rows(conn, user_id=user_id, scope_ids=[place[1] for place in where])
    held = {row.role_id for row in given_there if (row.scope, row.scope_id) in where}
    return _EVERYBODYS.rows(conn, ids=sorted(with_implied(held, inferences(conn)))) if held else []


def scopes_of(conn: db.Conn, user_id: str, scope: str) -> list[str]:
    """Where the user has a role, also by a group or from above."""
    one, other, inside = tables.assignments.c, tables.group_assignments.c, tables.members.c
    direct = sa.select(one.scope, one.scope_id).where(one.user_id == user_id)
    by_group = sa.select(other.scope, other.scope_id).join(tables.members, inside.group_id == other.group_id).where(inside.user_id == user_id)
    given_there: dict[str, set[str]] = {}
    for row in conn.execute(direct.union(by_group)):
        given_there.setdefault(row.scope, set()).add(row.scope_id)
    found = given_there.get(scope, set())
    if scope == "project":
        if "under-domain" in given_there:
            project = tables.projects.c
            found |= {row.id for row in conn.execute(sa.select(project.id).where(project.domain_id.in_(given_there["under-domain"])))}
        for project_id in given_there.get("under-project", ()):
            found |= {row.id for row in tables.below(conn, project_id)}
    return sorted(found)
