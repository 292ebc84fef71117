"""What consumers hold. A change locks every provider that it touches, in the order of their ids, before it looks at what is free."""

from collections.abc import Mapping

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, NotFound
from nacre.placement import tables
from nacre.placement.plan import refusals
from nacre.placement.service import fronts, providers
from nacre.placement.tables import allocations

Shares = Mapping[str, Mapping[str, int]]


def show_allocations(caller: Caller, consumer_id: str) -> tuple[db.Row | None, dict[str, dict[str, int]], dict[str, int]]:
    """(consumer, provider -> resources, provider -> generation)."""
    caller.require({})
    with caller.read() as conn:
        held = fronts.allocated(conn, consumer_id)
        rows = conn.execute(sa.select(tables.providers.c.id, tables.providers.c.generation).where(tables.providers.c.id.in_(held)))
        generations = {row.id: row.generation for row in rows}
        return conn.execute(sa.select(tables.consumers).where(tables.consumers.c.id == consumer_id)).first(), held, generations


def provider_allocations(caller: Caller, provider_id: str) -> tuple[db.Row, dict[str, dict[str, int]]]:
    """consumer -> resources."""
    caller.require({})
    found: dict[str, dict[str, int]] = {}
    with caller.read() as conn:
        row = providers.find(conn, provider_id)
        for held in conn.execute(sa.select(allocations).where(allocations.c.provider_id == provider_id).order_by(allocations.c.consumer_id)):
            found.setdefault(held.consumer_id, {})[held.resource_class] = held.used
    return row, found


def set_allocations(caller: Caller, wanted: Mapping[str, tuple[Shares, str, str]]) -> None:
    """consumer -> (provider -> resources, project, user): all of it or nothing; no shares takes everything back. Raises BadRequest
    (unknown provider or class) and Conflict (no room)."""
    caller.require({})
    with caller.write() as tx:
        before = {consumer: fronts.allocated(tx, consumer) for consumer in wanted}
        touched = {provider for held in before.values() for provider in held} | {p for shares, _, _ in wanted.values() for p in shares}
        for provider_id in sorted(touched):
            if tx.lock(sa.select(tables.providers.c.id).where(tables.providers.c.id == provider_id)) is None:
                raise BadRequest(f"Allocation for resource provider '{provider_id}' that does not exist.")
        for consumer in wanted:
            tx.delete(allocations, consumer_id=consumer)
        for consumer, (shares, project_id, user_id) in wanted.items():
            if not shares:
                tx.delete(tables.consumers, id=consumer)
                continue
            fronts.ensure_consumer(tx, consumer, {"project_id": project_id, "user_id": user_id})
            for provider_id, resources in shares.items():
                _add(tx, consumer, provider_id, resources)
        for provider_id in touched:
            tx.update(tables.providers, {"id": provider_id}, generation=tables.providers.c.generation + 1)
        for consumer, (shares, _, _) in wanted.items():
            journal.changed(tx, "allocation", consumer, "update", {name for resources in shares.values() for name in resources})


def _add(tx: db.Tx, consumer: str, provider_id: str, resources: Mapping[str, int]) -> None:
    providers.check_classes(tx, resources)
    offered = {name: fronts.inventory(row) for name, row in tables.inventory_of(tx, provider_id).items()}
    refused = refusals(resources, offered, tables.usage_of(tx, provider_id))
    if refused:
        raise Conflict(f"Unable to allocate inventory: resource provider '{provider_id}': {'; '.join(refused)}")
    for name, amount in resources.items():
        tx.insert(allocations, consumer_id=consumer, provider_id=provider_id, resource_class=name, used=amount)


def delete_allocations(caller: Caller, consumer_id: str) -> None:
    caller.require({})
    with caller.write() as tx:
        if not fronts.allocated(tx, consumer_id):
            raise NotFound(f"No allocations for consumer '{consumer_id}'")
        fronts.release(tx, consumer_id)
