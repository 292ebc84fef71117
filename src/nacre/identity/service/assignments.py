"""Who has which role where, as it was given, or what it comes to.

*As given* is one row a grant, to a user or group, on a place or (inherited) on what is below it. *Effective* is what counts: a group's grant
is one for each member, an inherited one is one for each project below, a role brings those that it implies, and a domain's own roles are left
out, as in tokens. Each effective row still says which grant it comes of.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import PROJECTS, Record
from nacre.identity.tables import rights

Asked = Mapping[str, str]
Place = tuple[str, str]
_TABLES = {"user": tables.assignments, "group": tables.group_assignments}
_INHERITED, _MANY = "scope.OS-INHERIT:inherited_to", 5000


def on(asked: Asked, flag: str) -> bool:
    """A query flag as upstream reads it: there, and not 0."""
    return flag in asked and asked[flag].lower() not in ("0", "false")


def listed(caller: Caller, asked: Asked) -> list[Record]:
    """Raises Forbidden, BadRequest for questions that contradict themselves, NotFound (the project whose tree is asked for)."""
    with caller.read() as conn:
        projects = _permitted(conn, caller, asked)
        _consistent(asked)
        found = list(_effective(conn, asked, projects) if on(asked, "effective") else _given(conn, asked, _places(asked, projects)))
        if "role.id" in asked:
            found = [row for row in found if row["role_id"] == asked["role.id"]]
        if _INHERITED in asked:
            wanted = asked[_INHERITED] == "projects"
            found = [row for row in found if row["origin"][0].startswith("under-") is wanted]
        if caller.domain_id is not None:
            found = _of_domain(conn, found, caller.domain_id)
        return _with_names(conn, found) if on(asked, "include_names") else found


def _permitted(conn: db.Conn, caller: Caller, asked: Asked) -> set[str] | None:
    """The projects asked for; None: whatever is. A domain's token sees what is in its domain."""
    project_id = asked.get("scope.project.id")
    if not on(asked, "include_subtree"):
        caller.require({"target.domain_id": caller.domain_id})
        return {project_id} if project_id else None
    caller.asked.add(caller.rule)
    row = tables.by_id(conn, tables.projects, project_id)
    target = PROJECTS.target(directory.record(row)) if row is not None else {}
    caller.require({**target, "target.domain_id": row.domain_id if row is not None else None}, "identity:list_role_assignments_for_tree")
    if not project_id:
        raise BadRequest("scope.project.id must be specified if include_subtree is also specified", kind="ValidationError")
    if row is None:
        raise directory.missing(PROJECTS, project_id)
    return {project_id, *(one.id for one in tables.below(conn, project_id))}


def _consistent(asked: Asked) -> None:
    for one, other, words in (("scope.domain.id", "scope.project.id", "Specify a domain or project, not both"),
                              ("scope.domain.id", "scope.system", "Specify system or domain, not both"),
                              ("scope.project.id", "scope.system", "Specify system or project, not both"),
                              ("user.id", "group.id", "Specify a user or group, not both")):  # fmt: skip
        if asked.get(one) and asked.get(other):
            raise BadRequest(words, kind="ValidationError")
    if on(asked, "effective"):
        if asked.get("group.id"):
            raise BadRequest("Combining effective and group filter will always result in an empty list.", kind="ValidationError")
        if asked.get(_INHERITED) == "projects" and asked.get("scope.domain.id"):
            raise BadRequest("Combining effective, domain and inherited filters will always result in an empty list.", kind="ValidationError")


def _places(asked: Asked, projects: set[str] | None) -> list[Place] | None:
    """Where grants stand that were asked for as they were given; None: anywhere."""
    if projects is not None:
        return [(kind, project_id) for project_id in sorted(projects) for kind in ("project", "under-project")]
    if asked.get("scope.domain.id"):
        return [(kind, asked["scope.domain.id"]) for kind in ("domain", "under-domain")]
    return [("system", "all")] if "scope.system" in asked else None


def _given(conn: db.Conn, asked: Asked, places: list[Place] | None) -> Iterator[Record]:
    for actor, table in _TABLES.items():
        other = "group" if actor == "user" else "user"
        if asked.get(f"{other}.id"):
            continue
        query = sa.select(table)
        if asked.get(f"{actor}.id"):
            query = query.where(table.c[f"{actor}_id"] == asked[f"{actor}.id"])
        yield from (_row(actor, row) for row in conn.execute(_there(query, table, places)))


def _there(query: sa.Select[Any], table: sa.Table, places: list[Place] | None) -> sa.Select[Any]:
    return query.where(sa.tuple_(table.c.scope, table.c.scope_id).in_(places)) if places is not None else query


def _row(actor: str, row: db.Row) -> Record:
    actor_id = row._mapping[f"{actor}_id"]
    place = row.scope.removeprefix("under-")
    return {"actor": actor, "actor_id": actor_id, "scope": place, "scope_id": row.scope_id, "role_id": row.role_id,
            "origin": (row.scope, row.scope_id), "by": (actor, actor_id), "prior_id": None}  # fmt: skip


def _effective(conn: db.Conn, asked: Asked, projects: set[str] | None) -> Iterator[Record]:
    user_id, places = asked.get("user.id"), _places(asked, projects)
    if projects is not None:
        places = sorted({place for project_id in projects for place in rights.places(conn, "project", project_id)})
    held = sa.select(tables.members)
    inside: dict[str, list[str]] = {}
    for group_id, member in conn.execute(held.where(tables.members.c.user_id == user_id) if user_id else held):
        inside.setdefault(group_id, []).append(member)
    given = [*_given(conn, {"user.id": user_id} if user_id else {}, places)]
    if user_id:
        table = tables.group_assignments
        given += [_row("group", row) for row in conn.execute(_there(sa.select(table).where(table.c.group_id.in_(inside)), table, places))]
    below: dict[Place, list[str]] = {}
    known, own = rights.inferences(conn), {row.id for row in conn.execute(sa.select(tables.roles.c.id).where(tables.roles.c.domain_id.is_not(None)))}
    for row in given:
        for one in _spread(conn, row, below, projects):
            for member in [one["actor_id"]] if one["actor"] == "user" else inside.get(one["actor_id"], ()):
                for role_id in sorted(rights.with_implied({one["role_id"]}, known) - own):
                    prior = one["role_id"] if role_id != one["role_id"] else None
                    yield {**one, "actor": "user", "actor_id": member, "role_id": role_id, "prior_id": prior}


def _spread(conn: db.Conn, row: Record, below: dict[Place, list[str]], projects: set[str] | None) -> Iterator[Record]:
    """A grant where it counts."""
    origin = row["origin"]
    if not origin[0].startswith("under-"):
        if row["scope"] != "project" or projects is None or row["scope_id"] in projects:
            yield row
        return
    if origin not in below:
        inside = sa.select(tables.projects.c.id).where(tables.projects.c.domain_id == origin[1])
        rows: Iterable[db.Row] = conn.execute(inside) if origin[0] == "under-domain" else tables.below(conn, origin[1])
        below[origin] = sorted(one.id for one in rows)
    for project_id in below[origin]:
        if projects is None or project_id in projects:
            yield {**row, "scope": "project", "scope_id": project_id}


def _of_domain(conn: db.Conn, rows: list[Record], domain_id: str) -> list[Record]:
    inside = {row.id for row in conn.execute(sa.select(tables.projects.c.id).where(tables.projects.c.domain_id == domain_id))}
    places = {("domain", domain_id), *(("project", project_id) for project_id in inside)}
    return [row for row in rows if (row["scope"], row["scope_id"]) in places]


def _with_names(conn: db.Conn, rows: list[Record]) -> list[Record]:
    """Rows with the names of actor, role and scope, and those of the domains these are in."""
    wanted: dict[str, set[str]] = {"user": set(), "group": set(), "project": set(), "domain": set()}
    for row in rows:
        wanted[row["actor"]].add(row["actor_id"])
        wanted.setdefault(row["scope"], set()).add(row["scope_id"])
    homes = {row.id: row.name for row in conn.execute(sa.select(tables.domains.c.id, tables.domains.c.name))}
    named: dict[str, dict[str, Any]] = {"role": _named(conn, tables.roles, None)}
    named["domain"] = {key: {"id": key, "name": name} for key, name in homes.items()}
    for word, table in (("user", tables.users), ("group", tables.groups), ("project", tables.projects)):
        named[word] = _named(conn, table, wanted[word])
    for found in named.values():
        for one in found.values():
            if one.get("domain_id") is not None:
                one["domain"] = {"id": one["domain_id"], "name": homes.get(one["domain_id"])}
            one.pop("domain_id", None)
    return [{**row, "named": named} for row in rows]


def _named(conn: db.Conn, table: sa.Table, wanted: set[str] | None) -> dict[str, dict[str, Any]]:
    query = sa.select(table.c.id, table.c.name, table.c.domain_id)
    few = wanted is not None and len(wanted) <= _MANY
    return {row.id: dict(row._mapping) for row in conn.execute(query.where(table.c.id.in_(wanted or ())) if few else query)}
