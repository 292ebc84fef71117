"""What other services ask of placement, as the system: in their open transaction, without policy, without commit.

Races: candidates are read on a snapshot; a claim holds only if the provider's generation is still the one that was read. The provider's
row is locked first, so of two claims with one generation exactly one wins and the other gets False. Nothing here can make what is
allocated pass what is offered; only a host that reports less than before can.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa

from nacre.core import db, ids, journal
from nacre.core.statements import Statement, given, given_list
from nacre.placement import tables
from nacre.placement.plan import Inventory, Resources, refusals
from nacre.placement.service import search

FIRST, MOST = 32, 256
_FIELDS = ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")


@dataclass(frozen=True)
class Candidate:
    """A provider seen at `generation`. `missing`: one sentence for each resource it cannot give; empty when it fits. `holders`: how many
    consumers have some of what was asked for."""

    provider_id: str
    name: str
    generation: int
    inventories: Mapping[str, Inventory]
    usages: Mapping[str, int]
    missing: tuple[str, ...]
    holders: int


_seen = sa.select(tables.providers.c.id, tables.providers.c.name, tables.providers.c.generation).order_by(tables.providers.c.name)
_PROVIDERS = Statement(_seen)
_SOME = Statement(_seen.where(tables.providers.c.id.in_(given_list("ids"))))
_PROVIDER = Statement(sa.select(tables.providers.c.id).where(
    tables.providers.c.id == given("id"), tables.providers.c.generation == given("generation")).with_for_update())  # fmt: skip
_LOCK = Statement(sa.select(tables.providers.c.id).where(tables.providers.c.id == given("id")).with_for_update())
_offered, _taken = tables.inventories.c, tables.allocations.c
_offers = (sa.select(_offered.provider_id, _offered.resource_class, *(_offered[name] for name in _FIELDS))
           .where(_offered.resource_class.in_(given_list("classes"))))  # fmt: skip
_OFFERS, _SOME_OFFERS = Statement(_offers), Statement(_offers.where(_offered.provider_id.in_(given_list("ids"))))
_used = (sa.select(_taken.provider_id, _taken.resource_class, sa.func.sum(_taken.used).label("used"), sa.func.count().label("holders"))
         .where(_taken.resource_class.in_(given_list("classes"))).group_by(_taken.provider_id, _taken.resource_class))  # fmt: skip
_USED, _SOME_USED = Statement(_used), Statement(_used.where(_taken.provider_id.in_(given_list("ids"))))
_CHANGED = Statement(tables.consumers.update().where(tables.consumers.c.id == given("consumer")).values(
    generation=tables.consumers.c.generation + 1, project_id=given("project"), user_id=given("user"), updated_at=given("now")))  # fmt: skip
_HELD = Statement(sa.select(tables.allocations).where(
    tables.allocations.c.consumer_id == given("consumer"), tables.allocations.c.provider_id == given("provider")))  # fmt: skip


def inventory(row: Any) -> Inventory:
    return Inventory(**{name: getattr(row, name) for name in _FIELDS})


def set_inventory(tx: db.Tx, provider_id: str, name: str, inventories: Mapping[str, Mapping[str, Any]]) -> None:
    """What a host reports that it has, by resource class: `total` and whatever of the other fields is not the default. Makes the
    provider. A class that is no longer reported goes, unless something holds it: then nothing more of it is handed out."""
    wanted = {resource: Inventory(**{key: fields[key] for key in _FIELDS if key in fields}) for resource, fields in inventories.items()}
    wanted = {resource: offer for resource, offer in wanted.items() if offer.total > 0}
    row = tx.lock(sa.select(tables.providers).where(tables.providers.c.id == provider_id))
    if row is None:
        tx.insert(tables.providers, id=provider_id, name=name, generation=0, root_id=provider_id, created_at=tx.now, updated_at=tx.now)
        journal.changed(tx, "resource_provider", provider_id, "create", ("name",), {"name": name})
    elif row.name != name:
        tx.update(tables.providers, {"id": provider_id}, name=name, updated_at=tx.now)
    had = {resource: inventory(offer) for resource, offer in tables.inventory_of(tx, provider_id).items()}
    held = tables.usage_of(tx, provider_id)
    for resource in had.keys() - wanted.keys():
        if held[resource]:
            wanted[resource] = Inventory(had[resource].total, had[resource].total)
    if had == wanted:
        return
    replace_inventories(tx, provider_id, wanted)
    journal.changed(tx, "resource_provider", provider_id, "update", ("inventories",))
    tx.update(tables.providers, {"id": provider_id}, generation=tables.providers.c.generation + 1, updated_at=tx.now)


def replace_inventories(tx: db.Tx, provider_id: str, wanted: Mapping[str, Inventory]) -> None:
    tx.delete(tables.inventories, provider_id=provider_id)
    for resource, offer in wanted.items():
        add_inventory(tx, provider_id, resource, offer)


def add_inventory(tx: db.Tx, provider_id: str, resource: str, offer: Inventory) -> None:
    tx.insert(tables.inventories, provider_id=provider_id, resource_class=resource, **{name: getattr(offer, name) for name in _FIELDS})


def candidates(conn: db.Conn, resources: Resources, among: Collection[str] | None = None) -> list[Candidate]:
    """Every provider (of `among`), in the order of names, with what it offers and has given of `resources`, and why it does not fit."""
    wanted = {resource: amount for resource, amount in resources.items() if amount > 0}
    some = {} if among is None else {"ids": sorted(among)}
    offers: dict[str, dict[str, Inventory]] = {}
    usages: dict[str, dict[str, int]] = {}
    holders: dict[str, int] = {}
    for row in (_SOME_OFFERS if some else _OFFERS).rows(conn, classes=list(wanted), **some):
        offers.setdefault(row.provider_id, {})[row.resource_class] = Inventory(*tuple(row)[2:])
    for row in (_SOME_USED if some else _USED).rows(conn, classes=list(wanted), **some):
        usages.setdefault(row.provider_id, {})[row.resource_class] = int(row.used)
        holders[row.provider_id] = max(row.holders, holders.get(row.provider_id, 0))
    found = []
    for row in (_SOME if some else _PROVIDERS).rows(conn, **some):
        offered = offers.get(row.id, {})
        used = dict.fromkeys(offered, 0) | usages.get(row.id, {})
        missing = tuple(refusals(wanted, offered, used))
        found.append(Candidate(row.id, row.name, row.generation, offered, used, missing, holders.get(row.id, 0)))
    return found


def with_room(conn: db.Conn, resources: Resources) -> Iterator[list[Candidate]]:
    """All providers that can give `resources`, some at a time, later more: a ring in the order of ids, begun anywhere. Ids are chance, so
    the best of the first ones is nearly the best of all, and who decides at the same time looks at others."""
    wanted = {resource: amount for resource, amount in resources.items() if amount > 0}
    begin, some = ids.uuid(), FIRST
    stretches = [(begin, search.last(conn)), ("", begin)]
    while stretches:
        found: list[str] = []
        while stretches and len(found) < some:
            after, until = stretches.pop(0)
            found += search.with_room(conn, wanted, after, until, some - len(found))
            if len(found) == some:
                stretches.insert(0, (found[-1], until))
        if found:
            yield candidates(conn, resources, found)
        some = min(2 * some, MOST)


class Owner(TypedDict):
    """Whose a consumer is."""

    project_id: str
    user_id: str


def claim(tx: db.Tx, consumer_id: str, provider_id: str, generation: int, resources: Resources, **owner: Unpack[Owner]) -> bool:
    """Give the consumer `resources` of the provider, in place of what it held there (what it holds elsewhere stays). False when the
    provider's generation is not `generation` any more or there is no room; nothing is changed then."""
    if _PROVIDER.first(tx, id=provider_id, generation=generation) is None:
        return False
    wanted = {resource: amount for resource, amount in resources.items() if amount > 0}
    before = {row.resource_class: row.used for row in _HELD.rows(tx, consumer=consumer_id, provider=provider_id)}
    others = {resource: used - before.get(resource, 0) for resource, used in tables.usage_of(tx, provider_id).items()}
    if refusals(wanted, {resource: inventory(row) for resource, row in tables.inventory_of(tx, provider_id).items()}, others):
        return False
    ensure_consumer(tx, consumer_id, owner)
    tx.delete(tables.allocations, consumer_id=consumer_id, provider_id=provider_id)
    for resource, amount in wanted.items():
        tx.insert(tables.allocations, consumer_id=consumer_id, provider_id=provider_id, resource_class=resource, used=amount)
    tx.update(tables.providers, {"id": provider_id}, generation=generation + 1)
    journal.changed(tx, "allocation", consumer_id, "update", wanted, {"provider_id": provider_id, "resources": wanted})
    return True


def hold(tx: db.Tx, provider_ids: Collection[str]) -> None:
    """Nobody else claims from these providers until the transaction ends."""
    for provider_id in sorted(provider_ids):
        _LOCK.first(tx, id=provider_id)


def join_aggregate(tx: db.Tx, provider_id: str, aggregate_id: str) -> None:
    """What was seen of the provider before does not count for a claim any more; likewise when it leaves."""
    leave_aggregate(tx, provider_id, aggregate_id)
    tx.insert(tables.provider_aggregates, provider_id=provider_id, aggregate_id=aggregate_id)


def leave_aggregate(tx: db.Tx, provider_id: str, aggregate_id: str) -> None:
    _LOCK.first(tx, id=provider_id)
    tx.delete(tables.provider_aggregates, provider_id=provider_id, aggregate_id=aggregate_id)
    tx.update(tables.providers, {"id": provider_id}, generation=tables.providers.c.generation + 1, updated_at=tx.now)
    journal.changed(tx, "resource_provider", provider_id, "update", ("aggregates",))


def ensure_consumer(tx: db.Tx, consumer_id: str, owner: Owner) -> None:
    if not _CHANGED.change(tx, consumer=consumer_id, project=owner["project_id"], user=owner["user_id"], now=tx.now):
        tx.insert(tables.consumers, id=consumer_id, generation=1, created_at=tx.now, updated_at=tx.now, **owner)


def release(tx: db.Tx, consumer_id: str, provider_id: str | None = None) -> None:
    """Take back what the consumer holds (of one provider, or of all); harmless when it holds nothing."""
    mine = tables.allocations.c.consumer_id == consumer_id
    query = sa.select(tables.allocations.c.provider_id).where(mine).distinct().order_by(tables.allocations.c.provider_id)
    held = [row.provider_id for row in tx.all(query)]
    for gone in held if provider_id is None else [each for each in held if each == provider_id]:
        tx.update(tables.providers, {"id": gone}, generation=tables.providers.c.generation + 1)
        tx.execute(tables.allocations.delete().where(mine, tables.allocations.c.provider_id == gone))
        journal.changed(tx, "allocation", consumer_id, "delete", (), {"provider_id": gone})
    if tx.first(sa.select(tables.allocations.c.used).where(mine).limit(1)) is None:
        tx.delete(tables.consumers, id=consumer_id)


def consumers(conn: db.Conn, provider_ids: Collection[str]) -> dict[str, set[str]]:
    """Who holds something of these providers: consumer id -> the providers."""
    taken = tables.allocations.c
    query = sa.select(taken.consumer_id, taken.provider_id).where(taken.provider_id.in_(list(provider_ids))).distinct()
    held: dict[str, set[str]] = {}
    for row in conn.execute(query):
        held.setdefault(row.consumer_id, set()).add(row.provider_id)
    return held


def allocated(conn: db.Conn, consumer_id: str) -> dict[str, dict[str, int]]:
    """provider id -> resource class -> amount."""
    held: dict[str, dict[str, int]] = {}
    for row in conn.execute(sa.select(tables.allocations).where(tables.allocations.c.consumer_id == consumer_id)):
        held.setdefault(row.provider_id, {})[row.resource_class] = row.used
    return held
