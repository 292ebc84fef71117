"""Unified limits: how much of a resource a project or domain may have, by service (and region). A registered limit says it for all, a limit for
one. The model is flat: a project's limit knows nothing of those above it. Services that count by them ask the front (`nacre.identity.limits`).

Races: who makes a limit holds the registered one that it belongs to, so that this is not changed or deleted meanwhile; two that say the
same thing meet at the unique index.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden, NotFound
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import Kind, Record, Wanted

MODEL = {"name": "flat", "description": "Limit enforcement and validation does not take project hierarchy into consideration."}
REGISTERED = Kind("registered_limit", tables.registered_limits, ("service_id", "region_id", "resource_name"))
LIMITS = Kind("limit", tables.limits, ("project_id", "domain_id"))
_WHAT = ("service_id", "region_id", "resource_name")


def model(caller: Caller) -> Record:
    caller.require({})
    return MODEL


def listed_registered(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    caller.require({})
    with caller.read() as conn:
        return directory.rows(conn, REGISTERED, asked)


def find_registered(caller: Caller, row_id: str) -> Record:
    """Raises NotFound."""
    caller.require({})
    with caller.read() as conn:
        return _registered(conn, row_id)


def _registered(conn: db.Conn, row_id: str) -> Record:
    row = tables.by_id(conn, tables.registered_limits, row_id)
    if row is None:
        raise NotFound(f"Could not find registered limit for {row_id}.", kind="RegisteredLimitNotFound")
    return directory.record(row)


def register(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none. Raises BadRequest (service, region), Conflict."""
    caller.require({})
    with caller.write() as tx:
        return [_register(tx, one) for one in wanted]


def _register(tx: db.Tx, wanted: Wanted) -> Record:
    row = {"id": ids.hex_id(), "region_id": None, "description": None, **wanted}
    _known(tx, row)
    _only(tx, row)
    tx.insert(tables.registered_limits, **row)
    journal.changed(tx, "registered_limit", row["id"], "create")
    return _registered(tx, row["id"])


def _known(tx: db.Tx, said: Wanted) -> None:
    """Raises BadRequest naming what there is not."""
    for name, table in (("service_id", tables.services), ("region_id", tables.regions), ("project_id", tables.projects),
                        ("domain_id", tables.domains)):  # fmt: skip
        if said.get(name) is not None and tables.by_id(tx, table, said[name]) is None:
            raise BadRequest(f"Invalid input for field/attribute {name}. There is no such {name.removesuffix('_id')}: {said[name]}.",
                             kind="ValidationError")  # fmt: skip


def _same(row: Wanted) -> list[sa.ColumnElement[bool]]:
    return [tables.registered_limits.c[name] == row.get(name) for name in _WHAT]


def _only(tx: db.Tx, row: Wanted) -> None:
    other = tx.first(sa.select(tables.registered_limits.c.id).where(*_same(row), tables.registered_limits.c.id != row["id"]))
    if other is not None:
        raise Conflict(f"Conflict occurred attempting to store registered_limit - Duplicate entry: {row['resource_name']} of service "
                       f"{row['service_id']}.")  # fmt: skip


def change_registered(caller: Caller, row_id: str, wanted: Wanted) -> Record:
    """Raises NotFound, BadRequest, Conflict, Forbidden (of what it is cannot change while there are limits of it)."""
    caller.require({})
    with caller.write() as tx:
        tx.lock(sa.select(tables.registered_limits).where(tables.registered_limits.c.id == row_id))
        before = _registered(tx, row_id)
        after = {**before, **wanted}
        if any(after[name] != before[name] for name in _WHAT):
            _unused(tx, row_id)
            _known(tx, wanted)
            _only(tx, after)
        if wanted:
            tx.update(tables.registered_limits, {"id": row_id}, **wanted)
        journal.changed(tx, "registered_limit", row_id, "update", wanted)
        return _registered(tx, row_id)


def _unused(tx: db.Tx, row_id: str) -> None:
    if tx.first(sa.select(tables.limits.c.id).where(tables.limits.c.registered_id == row_id).limit(1)) is not None:
        raise Forbidden(f"Unable to update or delete registered limit {row_id} because there are project limits associated with it.",
                        kind="RegisteredLimitError")  # fmt: skip


def delete_registered(caller: Caller, row_id: str) -> None:
    """Raises NotFound, Forbidden while there are limits of it."""
    caller.require({})
    with caller.write() as tx:
        tx.lock(sa.select(tables.registered_limits).where(tables.registered_limits.c.id == row_id))
        _registered(tx, row_id)
        _unused(tx, row_id)
        tx.delete(tables.registered_limits, id=row_id)
        journal.changed(tx, "registered_limit", row_id, "delete")


def _query() -> sa.Select[Any]:
    own, what = tables.limits.c, tables.registered_limits.c
    columns = (own.id, own.project_id, own.domain_id, own.resource_limit, own.description, what.service_id, what.region_id, what.resource_name)
    home = tables.projects.c.domain_id.label("home_id")
    join = tables.limits.join(tables.registered_limits, what.id == own.registered_id)
    return sa.select(*columns, home).select_from(join.outerjoin(tables.projects, tables.projects.c.id == own.project_id)).order_by(own.id)


def _shown(row: db.Row) -> Record:
    return {name: value for name, value in row._mapping.items() if name != "home_id"}


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """What the caller may see: all, those of the domain and what is in it, or the project's."""
    caller.require({})
    query = _query()
    if not (caller.system_scope or caller.roles & {"admin", "service"}):
        own, home = tables.limits.c, tables.projects.c.domain_id
        in_domain = sa.or_(own.domain_id == caller.domain_id, home == caller.domain_id)
        query = query.where(in_domain if caller.domain_id is not None else own.project_id == (caller.project_id or ""))
    for name, table in ((_WHAT[0], tables.registered_limits), (_WHAT[1], tables.registered_limits), (_WHAT[2], tables.registered_limits),
                        ("project_id", tables.limits), ("domain_id", tables.limits)):  # fmt: skip
        if name in asked:
            query = query.where(table.c[name] == asked[name])
    with caller.read() as conn:
        return [_shown(row) for row in conn.execute(query)]


def find(caller: Caller, row_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return _shown(_load(conn, caller, row_id))


def _load(conn: db.Conn, caller: Caller, row_id: str) -> db.Row:
    row = conn.execute(_query().where(tables.limits.c.id == row_id)).first()
    caller.require({"target.limit.project_id": row.project_id, "target.limit.project.domain_id": row.home_id,
                    "target.limit.domain.id": row.domain_id} if row is not None else {})  # fmt: skip
    if row is None:
        raise NotFound(f"Could not find limit for {row_id}.", kind="LimitNotFound")
    return row


def create(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none. Raises BadRequest, Forbidden (nothing like it is registered), Conflict."""
    caller.require({})
    with caller.write() as tx:
        return [_create(tx, one) for one in wanted]


def _create(tx: db.Tx, wanted: Wanted) -> Record:
    if (wanted.get("project_id") is None) == (wanted.get("domain_id") is None):
        raise BadRequest("Invalid input for field/attribute limits. Each is of a project_id or a domain_id, and only one of them.",
                         kind="ValidationError")  # fmt: skip
    _known(tx, wanted)
    registered = tx.lock(sa.select(tables.registered_limits).where(*_same(wanted)), "share")
    if registered is None:
        raise Forbidden("Unable to create a limit that has no corresponding registered limit.", kind="NoLimitReference")
    row = {"id": ids.hex_id(), "registered_id": registered.id, "project_id": None, "domain_id": None, "description": None,
           **{name: value for name, value in wanted.items() if name not in _WHAT}}  # fmt: skip
    whose = "project_id" if row["project_id"] is not None else "domain_id"
    own = tables.limits.c
    if tx.first(sa.select(own.id).where(own.registered_id == registered.id, own[whose] == row[whose])) is not None:
        raise Conflict(f"Conflict occurred attempting to store limit - Duplicate entry: {wanted['resource_name']} of {row[whose]}.")
    tx.insert(tables.limits, **row)
    journal.changed(tx, "limit", row["id"], "create", values={"resource_limit": row["resource_limit"]})
    made = tx.first(_query().where(own.id == row["id"]))
    assert made is not None
    return _shown(made)


def change(caller: Caller, row_id: str, wanted: Wanted) -> Record:
    """Its number and description. Raises NotFound."""
    with caller.write() as tx:
        _load(tx, caller, row_id)
        if wanted:
            tx.update(tables.limits, {"id": row_id}, **wanted)
        journal.changed(tx, "limit", row_id, "update", wanted, {"resource_limit": wanted["resource_limit"]} if "resource_limit" in wanted else None)
        return _shown(_load(tx, caller, row_id))


def delete(caller: Caller, row_id: str) -> None:
    """Raises NotFound."""
    with caller.write() as tx:
        _load(tx, caller, row_id)
        tx.delete(tables.limits, id=row_id)
        journal.changed(tx, "limit", row_id, "delete")


def of_project(conn: db.Conn, kind: str, project_id: str, region: str) -> dict[str, int]:
    """Resource -> what is registered for services of this type, or the project's own; what is said of the region wins over what is said of all."""
    what, own = tables.registered_limits.c, tables.limits.c
    join = tables.registered_limits.join(tables.services, tables.services.c.id == what.service_id).outerjoin(
        tables.limits, sa.and_(own.registered_id == what.id, own.project_id == project_id))  # fmt: skip
    query = sa.select(what.resource_name, sa.func.coalesce(own.resource_limit, what.default_limit).label("limit")).select_from(join)
    query = query.where(tables.services.c.type == kind, sa.or_(what.region_id.is_(None), what.region_id == region))
    return {row.resource_name: int(row.limit) for row in conn.execute(query.order_by(what.region_id.is_not(None)))}
