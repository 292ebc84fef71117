"""Which resource types a namespace applies to. The types that OpenStack's own definitions name are known from the beginning; any other is known as
soon as a namespace names it."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import Conflict, NotFound
from nacre.image.service.metadefs import namespaces
from nacre.image.tables.metadefs import associations

KNOWN = ("OS::Cinder::Volume", "OS::Glance::Image", "OS::Nova::Aggregate", "OS::Nova::Flavor", "OS::Nova::Server", "OS::Trove::Instance")


def of(conn: db.Conn, namespace_ids: Sequence[int]) -> dict[int, list[db.Row]]:
    """namespace id -> its associations."""
    found: dict[int, list[db.Row]] = {}
    query = sa.select(associations).where(associations.c.namespace_id.in_(namespace_ids)).order_by(associations.c.created_at, associations.c.name)
    for row in conn.execute(query):
        found.setdefault(row.namespace_id, []).append(row)
    return found


def insert(tx: db.Tx, namespace: db.Row, body: Mapping[str, Any]) -> db.Row:
    """As the system. Raises Conflict."""
    key = {"namespace_id": namespace.id, "name": str(body["name"])}
    mine = sa.select(associations).filter_by(**key)
    if tx.first(mine) is not None:
        said = f"The metadata definition resource-type association of resource-type={key['name']} to namespace={namespace.namespace} already exists."
        raise Conflict(said, kind="Duplicate")
    tx.insert(associations, prefix=body.get("prefix"), properties_target=body.get("properties_target"), created_at=tx.now, updated_at=tx.now, **key)
    row = tx.first(mine)
    assert row is not None
    return row


def names(caller: Caller) -> list[str]:
    caller.require({"project_id": caller.project_id, "tenant_id": caller.project_id})
    with caller.read() as conn:
        return sorted({*KNOWN, *conn.execute(sa.select(associations.c.name).distinct()).scalars()})


def listed(caller: Caller, namespace: str) -> list[db.Row]:
    with caller.read() as conn:
        row = namespaces.load(conn, caller, namespace)
        caller.require(namespaces.target(row))
        seen = caller.allowed("get_metadef_resource_type", namespaces.target(row))
        return of(conn, [row.id]).get(row.id, []) if seen else []


def prefix(conn: db.Conn, namespace: db.Row, name: str) -> str:
    """Raises NotFound."""
    row = conn.execute(sa.select(associations).filter_by(namespace_id=namespace.id, name=name)).first()
    if row is None:
        raise NotFound(f"The resource type {name} is not associated with namespace={namespace.namespace}.")
    return row.prefix or ""


def create(caller: Caller, namespace: str, body: Mapping[str, Any]) -> db.Row:
    with caller.write() as tx:
        row = namespaces.load(tx, caller, namespace, lock=True)
        caller.require(namespaces.target(row))
        journal.changed(tx, "metadef", namespace, "update", ("resource_types",), {"name": body["name"]})
        return insert(tx, row, body)


def delete(caller: Caller, namespace: str, name: str) -> None:
    with caller.write() as tx:
        row = namespaces.load(tx, caller, namespace, lock=True)
        caller.require(namespaces.target(row))
        prefix(tx, row, name)
        namespaces.deletable(row)
        tx.delete(associations, namespace_id=row.id, name=name)
        journal.changed(tx, "metadef", namespace, "update", ("resource_types",), {"name": name})
