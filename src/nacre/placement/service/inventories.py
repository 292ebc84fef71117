"""What a provider offers, and how much of it is used."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, NotFound
from nacre.placement import tables
from nacre.placement.plan import Inventory
from nacre.placement.service import fronts, providers

Fields = Mapping[str, Any]


def show_inventories(caller: Caller, provider_id: str) -> tuple[db.Row, dict[str, db.Row]]:
    caller.require({})
    with caller.read() as conn:
        return providers.find(conn, provider_id), tables.inventory_of(conn, provider_id)


def show_inventory(caller: Caller, provider_id: str, resource: str) -> tuple[db.Row, db.Row]:
    row, found = show_inventories(caller, provider_id)
    if resource not in found:
        raise NotFound(f"No inventory of class {resource} for {provider_id}")
    return row, found[resource]


def replace_inventories(caller: Caller, provider_id: str, generation: Any, offers: Mapping[str, Fields]) -> tuple[db.Row, dict[str, db.Row]]:
    caller.require({})
    wanted = {name: Inventory(**fields) for name, fields in offers.items()}
    with caller.write() as tx:
        row = providers.locked(tx, provider_id, generation)
        _check(tx, provider_id, wanted)
        used = tables.usage_of(tx, provider_id)
        _unused(provider_id, [name for name, amount in used.items() if amount and name not in wanted])
        fronts.replace_inventories(tx, provider_id, wanted)
        return providers.bump(tx, row, "inventories"), tables.inventory_of(tx, provider_id)


def _check(tx: db.Tx, provider_id: str, wanted: Mapping[str, Inventory]) -> None:
    providers.check_classes(tx, wanted)
    for name, offer in wanted.items():
        if offer.reserved >= offer.total:
            raise BadRequest(f"Invalid inventory for '{name}' on resource provider '{provider_id}': reserved must be less than total.")


def _unused(provider_id: str, held: list[str]) -> None:
    if held:
        said = f"Inventory for '{', '.join(sorted(held))}' on resource provider '{provider_id}' in use."
        raise Conflict(f"update conflict: {said}", kind="placement.inventory.inuse")


def set_inventory(
    caller: Caller, provider_id: str, generation: Any, resource: str, fields: Fields | None, *, new: bool = False
) -> tuple[db.Row, Any]:
    """One class of it; None takes it away. Raises NotFound (change of what is not there) and Conflict (`new` of what is, in use)."""
    caller.require({})
    offer = Inventory(**fields) if fields is not None else None
    with caller.write() as tx:
        row = providers.locked(tx, provider_id, generation)
        there = resource in tables.inventory_of(tx, provider_id)
        if new and there:
            raise Conflict(f"Inventory of {resource} already exists for {provider_id}: Update conflict")
        if not new and not there:
            raise NotFound(f"No inventory of class {resource} for {provider_id}")
        if offer is None:
            _unused(provider_id, [resource] if tables.usage_of(tx, provider_id).get(resource) else [])
        else:
            _check(tx, provider_id, {resource: offer})
        tx.delete(tables.inventories, provider_id=provider_id, resource_class=resource)
        if offer is not None:
            fronts.add_inventory(tx, provider_id, resource, offer)
        return providers.bump(tx, row, "inventories"), tables.inventory_of(tx, provider_id).get(resource)


def show_usages(caller: Caller, provider_id: str) -> tuple[db.Row, dict[str, int]]:
    caller.require({})
    with caller.read() as conn:
        return providers.find(conn, provider_id), tables.usage_of(conn, provider_id)


def project_usages(caller: Caller, project_id: str, user_id: str | None) -> dict[str, int]:
    caller.require({"project_id": project_id})
    held, who = tables.allocations, tables.consumers
    select = (sa.select(held.c.resource_class, sa.func.sum(held.c.used).label("used")).join_from(held, who, held.c.consumer_id == who.c.id)
              .where(who.c.project_id == project_id).group_by(held.c.resource_class))  # fmt: skip
    with caller.read() as conn:
        return {row.resource_class: int(row.used) for row in conn.execute(select.where(who.c.user_id == user_id) if user_id else select)}
