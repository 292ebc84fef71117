"""Providers: make, list, change, delete; their traits and aggregates; and the names (classes, traits) that they use.

Races: whoever changes what a provider offers sends the generation that it read; the row is locked and compared, else 409.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, NotFound
from nacre.core.statements import Statement, given_list
from nacre.core.versions import UNSET
from nacre.placement import names, query, tables
from nacre.placement.service import fronts, search
from nacre.placement.tables import providers

CONCURRENT = "placement.concurrent_update"
_TRAITS = Statement(sa.select(tables.provider_traits).where(tables.provider_traits.c.provider_id.in_(given_list("ids")))
                    .order_by(tables.provider_traits.c.trait))  # fmt: skip


def find(conn: db.Conn, provider_id: str, *, lock: bool = False) -> db.Row:
    select = sa.select(providers).where(providers.c.id == provider_id)
    row = conn.execute(select.with_for_update() if lock else select).first()
    if row is None:
        raise NotFound(f"No resource provider with uuid {provider_id} found", kind="placement.resource_provider.not_found")
    return row


def locked(tx: db.Tx, provider_id: str, generation: Any) -> db.Row:
    """The row, if its generation is what the caller read (UNSET: not asked). Raises NotFound, Conflict."""
    row = find(tx, provider_id, lock=True)
    if generation is not UNSET and row.generation != generation:
        raise Conflict(f"resource provider generation conflict for {provider_id}: it is {row.generation}, not {generation}", kind=CONCURRENT)
    return row


def bump(tx: db.Tx, row: db.Row, *fields: str) -> db.Row:
    """The row after one more change."""
    tx.update(providers, {"id": row.id}, generation=providers.c.generation + 1, updated_at=tx.now)
    journal.changed(tx, "resource_provider", row.id, "update", fields)
    return find(tx, row.id)


def create_provider(caller: Caller, name: str, provider_id: Any, parent_id: Any) -> db.Row:
    caller.require({})
    with caller.write() as tx:
        new_id = ids.uuid() if provider_id is UNSET else str(provider_id)
        _free(tx, name, "")
        if tx.first(sa.select(providers.c.id).where(providers.c.id == new_id)) is not None:
            raise Conflict(f"Conflicting resource provider uuid: {new_id} already exists.")
        parent = _parent(tx, new_id, parent_id)
        root = parent.root_id if parent is not None else new_id
        tx.insert(providers, id=new_id, name=name, generation=0, parent_id=parent.id if parent is not None else None, root_id=root,
                  created_at=tx.now, updated_at=tx.now)  # fmt: skip
        journal.changed(tx, "resource_provider", new_id, "create", ("name",), {"name": name})
        return find(tx, new_id)


def _free(tx: db.Tx, name: str, but: str) -> None:
    if tx.first(sa.select(providers.c.id).where(providers.c.name == name, providers.c.id != but)) is not None:
        raise Conflict(f"Conflicting resource provider name: {name} already exists.", kind="placement.duplicate_name")


def _parent(tx: db.Tx, provider_id: str, parent_id: Any) -> db.Row | None:
    if parent_id is UNSET or parent_id is None:
        return None
    if parent_id == provider_id:
        raise BadRequest("parent_provider_uuid: a resource provider cannot be its own parent")
    row = tx.first(sa.select(providers).where(providers.c.id == parent_id))
    if row is None:
        raise BadRequest(f"parent_provider_uuid: parent provider {parent_id} does not exist.")
    return row


def show_provider(caller: Caller, provider_id: str) -> db.Row:
    caller.require({})
    with caller.read() as conn:
        return find(conn, provider_id)


def update_provider(caller: Caller, provider_id: str, name: str, parent_id: Any) -> db.Row:
    """A parent may be given once; it cannot be changed or taken away (before 1.37)."""
    caller.require({})
    with caller.write() as tx:
        row = find(tx, provider_id, lock=True)
        _free(tx, name, provider_id)
        changes: dict[str, Any] = {"name": name, "updated_at": tx.now}
        if parent_id is not UNSET and parent_id != row.parent_id:
            if row.parent_id is not None:
                raise BadRequest("parent_provider_uuid: re-parenting a provider is not currently allowed.")
            parent = _parent(tx, provider_id, parent_id)
            if parent is not None and parent.root_id == row.root_id:
                raise BadRequest("parent_provider_uuid: creating loop in the provider tree is not allowed.")
            if parent is not None:
                tx.execute(providers.update().where(providers.c.root_id == row.id).values(root_id=parent.root_id))
                changes |= {"parent_id": parent.id, "root_id": parent.root_id}
        tx.update(providers, {"id": provider_id}, **changes)
        journal.changed(tx, "resource_provider", provider_id, "update", changes)
        return find(tx, provider_id)


def delete_provider(caller: Caller, provider_id: str) -> None:
    caller.require({})
    with caller.write() as tx:
        row = find(tx, provider_id, lock=True)
        if tx.first(sa.select(providers.c.id).where(providers.c.parent_id == provider_id)) is not None:
            said = f"Unable to delete resource provider {provider_id}: it is the parent of other providers."
            raise Conflict(said, kind="placement.resource_provider.cannot_delete_parent")
        held = tx.first(sa.select(tables.allocations.c.consumer_id).where(tables.allocations.c.provider_id == provider_id))
        if held is not None:
            said = f"Unable to delete resource provider {provider_id}: Resource provider has allocations, among them of {held.consumer_id}."
            raise Conflict(said, kind="placement.resource_provider.inuse")
        for table in (tables.inventories, tables.provider_traits, tables.provider_aggregates):
            tx.delete(table, provider_id=provider_id)
        tx.delete(providers, id=provider_id)
        journal.changed(tx, "resource_provider", provider_id, "delete", (), {"name": row.name})


def list_providers(caller: Caller, wanted: query.Wanted, **equal: str) -> list[db.Row]:
    """`equal`: id, name, in_tree."""
    caller.require({})
    with caller.read() as conn:
        _check(conn, wanted)
        select = sa.select(providers).where(*search.fitting(wanted)).order_by(providers.c.name)
        if "in_tree" in equal:
            root = conn.execute(sa.select(providers.c.root_id).where(providers.c.id == equal.pop("in_tree"))).scalar()
            select = select.where(providers.c.root_id == root)
        return list(conn.execute(select.where(*(providers.c[name] == value for name, value in equal.items()))))


def candidates(caller: Caller, wanted: query.Wanted, limit: int | None) -> tuple[list[fronts.Candidate], dict[str, list[str]]]:
    """Single providers that can give all of it, at most `limit`, and their traits."""
    caller.require({})
    with caller.read() as conn:
        _check(conn, wanted)
        select = sa.select(providers.c.id).where(*search.fitting(wanted)).order_by(providers.c.name).limit(limit)
        suitable = list(conn.execute(select).scalars())
        found, traits = list[fronts.Candidate](), dict[str, list[str]]()
        for start in range(0, len(suitable), fronts.MOST):
            some = suitable[start : start + fronts.MOST]
            found += fronts.candidates(conn, wanted.resources, some)
            for row in _TRAITS.rows(conn, ids=some):
                traits.setdefault(row.provider_id, []).append(row.trait)
    return found, traits


def _check(conn: db.Conn, wanted: query.Wanted) -> None:
    check_classes(conn, wanted.resources)
    check_traits(conn, wanted.required | wanted.forbidden)


_SETS = {"traits": (tables.provider_traits, "trait"), "aggregates": (tables.provider_aggregates, "aggregate_id")}


def show_set(caller: Caller, provider_id: str, kind: str) -> tuple[db.Row, list[str]]:
    """A provider's `traits` or `aggregates`."""
    caller.require({})
    table, column = _SETS[kind]
    with caller.read() as conn:
        row = find(conn, provider_id)
        return row, list(conn.execute(sa.select(table.c[column]).where(table.c.provider_id == provider_id).order_by(table.c[column])).scalars())


def replace_set(caller: Caller, provider_id: str, wanted: Iterable[str], generation: Any, kind: str) -> tuple[db.Row, list[str]]:
    """`kind`: traits or aggregates."""
    caller.require({})
    table, column = _SETS[kind]
    with caller.write() as tx:
        row, new = locked(tx, provider_id, generation), sorted(set(wanted))
        if kind == "traits":
            check_traits(tx, new)
        tx.delete(table, provider_id=provider_id)
        for each in new:
            tx.insert(table, provider_id=provider_id, **{column: each})
        return bump(tx, row, kind), new


def check_classes(conn: db.Conn, wanted: Iterable[str]) -> None:
    unknown = set(wanted) - set(all_names(conn, tables.custom_classes, names.RESOURCE_CLASSES))
    if unknown:
        raise BadRequest(f"Invalid resource class: Unknown resource class {', '.join(sorted(unknown))}", kind="placement.query.bad_value")


def check_traits(conn: db.Conn, wanted: Iterable[str]) -> None:
    unknown = set(wanted) - set(all_names(conn, tables.custom_traits, names.TRAITS))
    if unknown:
        raise BadRequest(f"No such trait(s): {', '.join(sorted(unknown))}.", kind="placement.query.bad_value")


def all_names(conn: db.Conn, table: sa.Table, standard: Sequence[str]) -> list[str]:
    return [*standard, *conn.execute(sa.select(table.c.name).order_by(table.c.name)).scalars()]
