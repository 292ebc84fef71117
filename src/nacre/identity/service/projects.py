"""Projects: trees of them in a domain. The parent of a project at the top is its domain."""

from collections.abc import Mapping

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import BadRequest, Forbidden
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import PROJECTS, USERS, Record, Wanted

DEPTH = 5


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound (domain, parent), BadRequest, Forbidden (too deep)."""
    with caller.write() as tx:
        parent_id = wanted.get("parent_id")
        parent = tables.by_id(tx, tables.projects, parent_id)
        inherited = {"domain_id": parent.domain_id} if parent is not None and not wanted.get("domain_id") else {}
        said = {"description": "", "enabled": True, **wanted, **inherited}
        said["domain_id"] = said.get("domain_id") or caller.domain_id or caller.project_domain_id or directory.DEFAULT_DOMAIN
        caller.require(PROJECTS.target(said))
        said["domain_id"] = directory.domain_of(tx, caller, said)
        if said.pop("is_domain", False):
            raise BadRequest("A project that acts as a domain is made by creating the domain.", kind="ValidationError")
        _under(tx, said, parent)
        return directory.insert(tx, PROJECTS, {**said, "parent_id": parent_id or said["domain_id"]})


def _under(tx: db.Tx, said: Wanted, parent: db.Row | None) -> None:
    parent_id = said.get("parent_id")
    if parent_id in (None, "", said["domain_id"]):
        return
    if parent is None:
        raise directory.missing(PROJECTS, str(parent_id))
    if parent.domain_id != said["domain_id"]:
        raise BadRequest("A project is in the domain of its parent.", kind="ValidationError")
    depth = 1
    above: db.Row | None = parent
    while above is not None:
        depth, above = depth + 1, tables.by_id(tx, tables.projects, above.parent_id)
    if depth > DEPTH:
        raise Forbidden(f"Max hierarchy depth reached for {parent.id} branch.", kind="ForbiddenAction")
    if not parent.enabled:
        raise Forbidden(f"Cannot create project in a branch with a disabled parent: {parent.id}.", kind="ForbiddenAction")


def update(caller: Caller, project_id: str, wanted: Wanted) -> Record:
    """Raises Conflict, BadRequest, Forbidden (a branch that is in use cannot be disabled from above)."""
    with caller.write() as tx:
        before = directory.load(tx, caller, PROJECTS, project_id)
        said = dict(wanted)
        if said.pop("is_domain", False):
            raise BadRequest("Invalid input for field/attribute is_domain. It cannot be changed.", kind="ValidationError")
        if before["enabled"] and said.get("enabled") is False and _children(tx, project_id, enabled=True):
            raise Forbidden(f"Cannot disable project {project_id} since its subtree contains enabled projects.", kind="ForbiddenAction")
        return directory.update(tx, PROJECTS, before, said)


def delete(caller: Caller, project_id: str) -> None:
    """Raises Forbidden while it has projects below it."""
    with caller.write() as tx:
        directory.load(tx, caller, PROJECTS, project_id)
        if _children(tx, project_id):
            raise Forbidden(f"Cannot delete the project {project_id} since it is not a leaf in the hierarchy. Use the cascade option to "
                            "delete a whole branch.", kind="ForbiddenAction")  # fmt: skip
        remove(tx, caller.cloud, project_id)


def remove(tx: db.Tx, cloud: Cloud, project_id: str) -> None:
    """With what names it, here and in other services."""
    for table in (tables.assignments, tables.group_assignments):
        tx.delete(table, scope="project", scope_id=project_id)
    for table in (tables.credentials, tables.trusts, tables.app_credentials):
        tx.delete(table, project_id=project_id)
    tx.update(tables.users, {"default_project_id": project_id}, default_project_id=None)
    for forget in cloud.project_deleted:
        forget(tx, project_id)
    directory.delete(tx, PROJECTS, project_id)


def _children(tx: db.Tx, project_id: str, *, enabled: bool = False) -> bool:
    query = sa.select(tables.projects.c.id).where(tables.projects.c.parent_id == project_id).limit(1)
    return tx.first(query.where(tables.projects.c.enabled) if enabled else query) is not None


def of_user(caller: Caller, user_id: str, asked: Mapping[str, str]) -> list[Record]:
    """The projects in which the user has a role."""
    with caller.read() as conn:
        user = tables.by_id(conn, tables.users, user_id)
        caller.require({"target.user.id": user_id, "target.user.domain_id": user.domain_id if user is not None else None})
        if user is None:
            raise directory.missing(USERS, user_id)
        query = sa.select(tables.projects).where(tables.projects.c.id.in_(tables.scopes_of(conn, user_id, "project")))
        for name in ("name", "domain_id"):
            if name in asked:
                query = query.where(tables.projects.c[name] == asked[name])
        return [directory.record(row) for row in conn.execute(query.order_by(tables.projects.c.name))]
