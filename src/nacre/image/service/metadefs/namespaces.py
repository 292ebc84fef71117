"""Namespaces of metadata definitions: seen by everybody when public, else by their owner's project and administrators (others: 404)."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from starlette.datastructures import QueryParams

from nacre.core import db, journal, paging
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden, NotFound
from nacre.image import filters
from nacre.image.service.metadefs import entries, resource_types
from nacre.image.tables.metadefs import associations, namespaces

_COLUMNS = ("namespace", "display_name", "description", "visibility", "protected", "owner")
_NESTED = {"resource_type_associations": "add_metadef_resource_type_association", "objects": "add_metadef_object",
           "properties": "add_metadef_property", "tags": "add_metadef_tag"}  # fmt: skip


def target(row: db.Row) -> dict[str, Any]:
    return {"project_id": row.owner, "owner": row.owner, "tenant_id": row.owner, "visibility": row.visibility}


def load(conn: db.Conn, caller: Caller, name: str, *, lock: bool = False) -> db.Row:
    """Raises NotFound."""
    query = sa.select(namespaces).where(namespaces.c.namespace == name)
    row = conn.execute(query.with_for_update() if lock else query).first()
    if row is None or not caller.allowed("get_metadef_namespace", target(row)):
        raise NotFound(f"Metadata definition namespace not found: {name}")
    return row


def deletable(row: db.Row) -> None:
    """Raises Forbidden: nothing goes from a protected namespace."""
    if row.protected:
        raise Forbidden(f"Metadata definition namespace {row.namespace} is protected and cannot be deleted.")


def listed(caller: Caller, query: QueryParams) -> tuple[list[tuple[db.Row, list[db.Row]]], bool]:
    """The page's namespaces, each with its resource types, and whether more follow. Raises BadRequest."""
    mine = {"project_id": caller.project_id, "tenant_id": caller.project_id}
    caller.require(mine)
    caller.require(mine, "list_metadef_resource_types")
    page = filters.metadefs_page(query, caller.cloud.config.DEFAULT, ("created_at", "updated_at", "namespace", "id"))
    wanted: list[sa.ColumnElement[bool]] = []
    if not caller.allowed("context_is_admin"):
        wanted.append(sa.or_(namespaces.c.visibility == "public", namespaces.c.owner == caller.project_id))
    if visibility := query.get("visibility"):
        if visibility not in ("public", "private"):
            raise BadRequest(f"Invalid visibility value: {visibility}")
        wanted.append(namespaces.c.visibility == visibility)
    if types := query.get("resource_types"):
        of_type = sa.select(associations.c.namespace_id).where(associations.c.name.in_(types.split(",")))
        wanted.append(namespaces.c.id.in_(of_type))
    with caller.read() as conn:
        if page.marker is not None:
            load(conn, caller, page.marker)
        rows, more = paging.take(conn, sa.select(namespaces).where(*wanted), namespaces, page, "namespace")
        held = resource_types.of(conn, [row.id for row in rows])
        return [(row, held.get(row.id, [])) for row in rows if caller.allowed("get_metadef_namespace", target(row))], more


def create(caller: Caller, body: Mapping[str, Any]) -> db.Row:
    """With everything that it holds, or nothing at all. Raises Conflict."""
    owner = body.get("owner", caller.project_id)
    whole = {"project_id": caller.project_id, "tenant_id": caller.project_id}
    caller.require(whole)
    for member, rule in _NESTED.items():
        if body.get(member):
            caller.require(whole, rule)
    with caller.write() as tx:
        if tx.first(sa.select(namespaces.c.id).where(namespaces.c.namespace == body["namespace"])) is not None:
            raise Conflict(f"The metadata definition namespace={body['namespace']} already exists.", kind="Duplicate")
        columns = {"visibility": "private", "protected": False, "owner": owner} | {name: body[name] for name in _COLUMNS if name in body}
        tx.insert(namespaces, created_at=tx.now, updated_at=tx.now, **columns)
        row = load(tx, caller, body["namespace"])
        for each in body.get("resource_type_associations", ()):
            resource_types.insert(tx, row, each)
        for each in body.get("objects", ()):
            entries.insert(tx, entries.OBJECT, row, each)
        for each in body.get("tags", ()):
            entries.insert(tx, entries.TAG, row, each)
        for name, each in body.get("properties", {}).items():
            entries.insert(tx, entries.PROPERTY, row, {"name": name, **each})
        journal.changed(tx, "metadef", row.namespace, "create", columns)
        return row


def show(caller: Caller, name: str) -> tuple[db.Row, list[db.Row], dict[str, list[db.Row]]]:
    """(namespace, resource types, its entries by kind)."""
    with caller.read() as conn:
        row = load(conn, caller, name)
        for rule in (caller.rule, "list_metadef_resource_types", "get_metadef_objects", "get_metadef_properties", "get_metadef_tags"):
            caller.require(target(row), rule)
        return row, resource_types.of(conn, [row.id]).get(row.id, []), entries.of(conn, row.id)


def update(caller: Caller, name: str, body: Mapping[str, Any]) -> db.Row:
    """What is not said is as at a creation, as upstream. Raises Conflict."""
    with caller.write() as tx:
        row = load(tx, caller, name, lock=True)
        caller.require(target(row))
        new = body["namespace"]
        if new != name and tx.first(sa.select(namespaces.c.id).where(namespaces.c.namespace == new)) is not None:
            raise Conflict(f"Invalid update. It would result in a duplicate namespace with the same name of {new}", kind="Duplicate")
        said = {each: body.get(each) for each in _COLUMNS}
        said |= {"visibility": said["visibility"] or "private", "protected": bool(said["protected"]), "owner": said["owner"] or caller.project_id}
        tx.update(namespaces, {"id": row.id}, updated_at=tx.now, **said)
        journal.changed(tx, "metadef", name, "update", said)
        found = tx.first(sa.select(namespaces).where(namespaces.c.id == row.id))
        assert found is not None
        return found


def delete(caller: Caller, name: str) -> None:
    with caller.write() as tx:
        row = load(tx, caller, name, lock=True)
        caller.require(target(row))
        deletable(row)
        tx.delete(namespaces, id=row.id)
        journal.changed(tx, "metadef", name, "delete")
