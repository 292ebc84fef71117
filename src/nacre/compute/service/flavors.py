"""Flavors: what sizes of servers there are. A server keeps a copy of its flavor, so deleting one changes no server."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre import identity
from nacre.compute.tables import flavor_access, flavors
from nacre.core import db, ids, journal, paging
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, NotFound

SORTABLE = {"created_at": "created_at", "description": "description", "disabled": "disabled", "ephemeral_gb": "ephemeral_gb", "flavorid": "id",
            "id": "id",
            "is_public": "is_public", "memory_mb": "memory_mb", "name": "name", "root_gb": "root_gb", "rxtx_factor": "rxtx_factor", "swap": "swap_mb",
            "updated_at": "updated_at", "vcpus": "vcpus", "vcpu_weight": "vcpus"}  # fmt: skip


def visible(conn: db.Conn, caller: Caller, flavor_id: str) -> db.Row:
    """A flavor that the caller may use. Raises NotFound."""
    query = sa.select(flavors).where(flavors.c.id == flavor_id)
    row = conn.execute(query if caller.is_admin else query.where(_usable(caller))).first()
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return row


def _usable(caller: Caller) -> sa.ColumnElement[bool]:
    mine = sa.exists().where(flavor_access.c.flavor_id == flavors.c.id, flavor_access.c.project_id == (caller.project_id or ""))
    return sa.or_(flavors.c.is_public, mine)


def show(caller: Caller, flavor_id: str) -> db.Row:
    with caller.read() as conn:
        row = visible(conn, caller, flavor_id)
    caller.require()
    return row


def listed(caller: Caller, page: paging.Page, filters: Mapping[str, Any]) -> tuple[list[db.Row], bool]:
    """`filters`: is_public (True, False or None: both, for administrators), min_ram, min_disk, name."""
    caller.require()
    query = sa.select(flavors)
    if not caller.is_admin:
        query = query.where(_usable(caller))
    elif filters.get("is_public") is not None:
        query = query.where(flavors.c.is_public == filters["is_public"])
    for name, column in (("min_ram", flavors.c.memory_mb), ("min_disk", flavors.c.root_gb)):
        if filters.get(name) is not None:
            query = query.where(column >= filters[name])
    with caller.read() as conn:
        return paging.take(conn, query, flavors, page)


def create(caller: Caller, values: Mapping[str, Any]) -> db.Row:
    caller.require()
    flavor_id = values["id"] or ids.uuid()
    with caller.write() as tx:
        if tx.first(sa.select(flavors.c.id).where(flavors.c.name == values["name"])) is not None:
            raise Conflict(f"Flavor with name {values['name']} already exists.")
        if tx.first(sa.select(flavors.c.id).where(flavors.c.id == flavor_id)) is not None:
            raise Conflict(f"Flavor with ID {flavor_id} already exists.")
        tx.insert(flavors, **{**values, "id": flavor_id}, disabled=False, extra_specs={}, created_at=tx.now)
        journal.changed(tx, "flavor", flavor_id, "create", values)
        return _row(tx, flavor_id)


def update(caller: Caller, flavor_id: str, description: str | None) -> db.Row:
    with caller.write() as tx:
        visible(tx, caller, flavor_id)
        caller.require()
        tx.update(flavors, {"id": flavor_id}, description=description, updated_at=tx.now)
        journal.changed(tx, "flavor", flavor_id, "update", ("description",))
        return _row(tx, flavor_id)


def delete(caller: Caller, flavor_id: str) -> None:
    with caller.write() as tx:
        visible(tx, caller, flavor_id)
        caller.require()
        tx.delete(flavors, id=flavor_id)
        journal.changed(tx, "flavor", flavor_id, "delete")


def _row(tx: db.Tx, flavor_id: str) -> db.Row:
    return tx.execute(sa.select(flavors).where(flavors.c.id == flavor_id)).one()


def set_extra_specs(caller: Caller, flavor_id: str, specs: Mapping[str, str]) -> None:
    with caller.write() as tx:
        row = visible(tx, caller, flavor_id)
        caller.require()
        tx.update(flavors, {"id": flavor_id}, extra_specs={**row.extra_specs, **specs}, updated_at=tx.now)
        journal.changed(tx, "flavor", flavor_id, "update", ("extra_specs",))


def delete_extra_spec(caller: Caller, flavor_id: str, key: str) -> None:
    with caller.write() as tx:
        row = visible(tx, caller, flavor_id)
        caller.require()
        if key not in row.extra_specs:
            raise NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
        tx.update(flavors, {"id": flavor_id}, extra_specs={k: v for k, v in row.extra_specs.items() if k != key}, updated_at=tx.now)
        journal.changed(tx, "flavor", flavor_id, "update", ("extra_specs",))


def access(caller: Caller, flavor_id: str) -> list[str]:
    """The projects that may use a private flavor."""
    with caller.read() as conn:
        row = visible(conn, caller, flavor_id)
        caller.require()
        if row.is_public:
            raise NotFound("Access list not available for public flavors.")
        return _projects(conn, flavor_id)


def _projects(conn: db.Conn, flavor_id: str) -> list[str]:
    query = sa.select(flavor_access.c.project_id).where(flavor_access.c.flavor_id == flavor_id).order_by(flavor_access.c.project_id)
    return [row.project_id for row in conn.execute(query)]


def grant(caller: Caller, flavor_id: str, project_id: str, refuse_public: bool) -> list[str]:
    with caller.write() as tx:
        caller.require()
        row = visible(tx, caller, flavor_id)
        _known(tx, project_id)
        if row.is_public and refuse_public:
            raise Conflict("Can not add access to a public flavor.")
        if project_id in _projects(tx, flavor_id):
            raise Conflict(f"Flavor access already exists for flavor {flavor_id} and project {project_id} combination.")
        tx.insert(flavor_access, flavor_id=flavor_id, project_id=project_id)
        journal.changed(tx, "flavor", flavor_id, "update", ("access",))
        return _projects(tx, flavor_id)


def revoke(caller: Caller, flavor_id: str, project_id: str) -> list[str]:
    with caller.write() as tx:
        caller.require()
        visible(tx, caller, flavor_id)
        _known(tx, project_id)
        if not tx.delete(flavor_access, flavor_id=flavor_id, project_id=project_id):
            raise NotFound(f"Flavor access not found for {flavor_id} / {project_id} combination.")
        journal.changed(tx, "flavor", flavor_id, "update", ("access",))
        return _projects(tx, flavor_id)


def snapshot(row: db.Row) -> dict[str, Any]:
    """The copy that a server keeps."""
    return {"id": row.id, "name": row.name, "vcpus": row.vcpus, "memory_mb": row.memory_mb, "root_gb": row.root_gb, "ephemeral_gb": row.ephemeral_gb,
            "swap_mb": row.swap_mb, "extra_specs": row.extra_specs}  # fmt: skip


def _known(conn: db.Conn, project_id: str) -> None:
    if not identity.project_exists(conn, project_id):
        raise BadRequest(f"Project ID {project_id} is not a valid project.")
