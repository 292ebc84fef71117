"""Projects: trees of them in a domain. The parent of a project at the top is its domain. What is below a disabled project is disabled.

Races: who makes a project below another, enables or disables it, holds the one above, so that none gets an enabled child while it is
disabled or deleted.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import BadRequest, Forbidden
from nacre.identity import tables
from nacre.identity.service import directory, filters, tags
from nacre.identity.service.directory import PROJECTS, USERS, Record, Wanted
from nacre.identity.tables import rights


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound (domain, parent), BadRequest, Forbidden (too deep)."""
    with caller.write() as tx:
        parent_id = wanted.get("parent_id")
        parent = tx.lock(sa.select(tables.projects).where(tables.projects.c.id == parent_id), "change") if parent_id else None
        inherited = {"domain_id": parent.domain_id} if parent is not None and not wanted.get("domain_id") else {}
        said = {"description": "", "enabled": True, **wanted, **inherited}
        if parent is None and parent_id and not said.get("domain_id") and tables.by_id(tx, tables.domains, parent_id) is not None:
            said["domain_id"] = parent_id
        said["domain_id"] = said.get("domain_id") or caller.domain_id or caller.project_domain_id or directory.DEFAULT_DOMAIN
        caller.require(PROJECTS.target(said))
        said["domain_id"] = directory.domain_of(tx, caller, said)
        _under(tx, caller.cloud, said, parent)
        words = said.pop("tags", [])
        made = directory.insert(tx, PROJECTS, {**said, "parent_id": parent_id or said["domain_id"]})
        tags.replace(tx, made["id"], words)
        return tags.shown(tx, [made])[0]


def _under(tx: db.Tx, cloud: Cloud, said: Wanted, parent: db.Row | None) -> None:
    parent_id = said.get("parent_id")
    if parent_id in (None, "", said["domain_id"]):
        return
    if parent is None:
        raise directory.missing(PROJECTS, str(parent_id))
    if parent.domain_id != said["domain_id"]:
        raise BadRequest("A project is in the domain of its parent.", kind="ValidationError")
    if len(tables.above(tx, parent.id)) + 2 > cloud.config.DEFAULT.max_project_tree_depth:
        raise Forbidden(f"Max hierarchy depth reached for {parent.id} branch.", kind="ForbiddenAction")
    if not parent.enabled:
        raise Forbidden(f"Cannot create project in a branch with a disabled parent: {parent.id}.", kind="ForbiddenAction")


def find(caller: Caller, project_id: str, asked: Mapping[str, str]) -> Record:
    """With what is above and below it where that is asked for. Raises Forbidden, NotFound, BadRequest."""
    for way in ("parents", "subtree"):
        if f"{way}_as_list" in asked and f"{way}_as_ids" in asked:
            raise BadRequest(f"Cannot use {way}_as_list and {way}_as_ids query params at the same time.", kind="ValidationError")
    with caller.read() as conn:
        found = tags.shown(conn, [directory.load(conn, caller, PROJECTS, project_id)])[0]
        mine = set(rights.scopes_of(conn, caller.user_id or "", "project")) if {"parents_as_list", "subtree_as_list"} & set(asked) else set()
        above, below = tables.above(conn, project_id), tables.below(conn, project_id) if {"subtree_as_list", "subtree_as_ids"} & set(asked) else []
        for name, rows in (("parents", above), ("subtree", below)):
            if f"{name}_as_list" in asked:
                found[name] = tags.shown(conn, [directory.record(row) for row in rows if row.id in mine])
    if "parents_as_ids" in asked:
        found["parents"] = _chain([row.id for row in above] + [found["domain_id"]])
    if "subtree_as_ids" in asked:
        found["subtree"] = _tree(project_id, below)
    return found


def _chain(names: list[str]) -> dict[str, Any] | None:
    return {names[0]: _chain(names[1:])} if names else None


def _tree(project_id: str, below: list[db.Row]) -> dict[str, Any] | None:
    """The ids below one, each with those below it."""
    return {row.id: _tree(row.id, below) for row in below if row.parent_id == project_id} or None


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """Raises Forbidden, BadRequest."""
    found = directory.listed(caller, PROJECTS, asked)
    with caller.read() as conn:
        return tags.shown(conn, found)


def update(caller: Caller, project_id: str, wanted: Wanted) -> Record:
    """Raises Conflict, BadRequest, Forbidden (what is below an enabled project may be enabled, and only that)."""
    with caller.write() as tx:
        before = directory.load(tx, caller, PROJECTS, project_id)
        said = dict(wanted)
        directory.mutable(PROJECTS, before, said)
        words = said.pop("tags", None)
        if said.get("enabled", before["enabled"]) is not before["enabled"]:
            _turn(tx, before)
        if words is not None:
            tags.replace(tx, project_id, words)
        return tags.shown(tx, [directory.update(tx, PROJECTS, before, said)])[0]


def _turn(tx: db.Tx, project: Record) -> None:
    """Holds the project against who makes another below it. Raises Forbidden."""
    for row_id in (project["parent_id"], project["id"]):
        tx.lock(sa.select(tables.projects).where(tables.projects.c.id == row_id), "change")
    if project["enabled"] and any(row.enabled for row in tables.below(tx, project["id"])):
        raise Forbidden(f"Cannot disable project {project['id']} since its subtree contains enabled projects.", kind="ForbiddenAction")
    if not project["enabled"] and not all(row.enabled for row in tables.above(tx, project["id"])):
        raise Forbidden(f"Cannot enable project {project['id']} since it has disabled parents.", kind="ForbiddenAction")


def delete(caller: Caller, project_id: str) -> None:
    """Raises Forbidden while it has projects below it, or is immutable."""
    with caller.write() as tx:
        project = directory.load(tx, caller, PROJECTS, project_id)
        directory.mutable(PROJECTS, project)
        tx.lock(sa.select(tables.projects).where(tables.projects.c.id == project_id))
        if tables.below(tx, project_id):
            raise Forbidden(f"Cannot delete the project {project_id} since it is not a leaf in the hierarchy. Use the cascade option to "
                            "delete a whole branch.", kind="ForbiddenAction")  # fmt: skip
        remove(tx, caller.cloud, project_id)


def remove(tx: db.Tx, cloud: Cloud, project_id: str) -> None:
    """With what names it, here and in other services."""
    for table in (tables.assignments, tables.group_assignments):
        for scope in ("project", "under-project"):
            tx.delete(table, scope=scope, scope_id=project_id)
    for table in (tables.credentials, tables.trusts, tables.limits, tables.app_credentials):
        tx.delete(table, project_id=project_id)
    tx.update(tables.users, {"default_project_id": project_id}, default_project_id=None)
    for forget in cloud.project_deleted:
        forget(tx, project_id)
    directory.delete(tx, PROJECTS, project_id)


def of_user(caller: Caller, user_id: str, asked: Mapping[str, str]) -> list[Record]:
    """The projects in which the user has a role."""
    with caller.read() as conn:
        user = tables.by_id(conn, tables.users, user_id)
        caller.require({"target.user.id": user_id, "target.user.domain_id": user.domain_id if user is not None else None})
        if user is None:
            raise directory.missing(USERS, user_id)
        query = sa.select(tables.projects).where(tables.projects.c.id.in_(rights.scopes_of(conn, user_id, "project")))
        query = query.where(*filters.conditions(tables.projects, PROJECTS.filters, asked))
        return tags.shown(conn, [directory.record(row) for row in conn.execute(query.order_by(tables.projects.c.name))])
