"""Which providers would do, as conditions in SQL: what each offers, less what is summed from its allocations, is compared where it lies, so
that a provider that is full or has the wrong traits costs a look at an index and is never read.

`can_give` says what `plan.refusals` says one by one: for whole numbers, fitting in a capacity and in what it was rounded down from is the same.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.statements import Statement, given
from nacre.placement import query, tables
from nacre.placement.tables import providers

_offer, _held = tables.inventories.c, tables.allocations.c


def can_give(resource: str, amount: Any) -> sa.ColumnElement[bool]:
    """The provider offers the class, and one consumer may have so much more of it."""
    held = (_held.provider_id == _offer.provider_id, _held.resource_class == resource)
    used = sa.select(sa.func.coalesce(sa.func.sum(_held.used), 0)).where(*held).correlate(tables.inventories)
    return sa.exists().where(
        _offer.provider_id == providers.c.id, _offer.resource_class == resource, _offer.min_unit <= amount, _offer.max_unit >= amount,
        sa.cast(amount, sa.Integer) % _offer.step_size == 0,
        used.scalar_subquery() + amount <= (_offer.total - _offer.reserved) * _offer.allocation_ratio)  # fmt: skip


def fitting(wanted: query.Wanted) -> list[sa.ColumnElement[bool]]:
    """What a query of the API asks of one provider."""
    traits, groups = tables.provider_traits.c, tables.provider_aggregates.c

    def has(trait: str) -> sa.ColumnElement[bool]:
        return sa.exists().where(traits.provider_id == providers.c.id, traits.trait == trait)

    return [
        *(can_give(resource, sa.literal(amount)) for resource, amount in sorted(wanted.resources.items())),
        *(has(trait) for trait in sorted(wanted.required)), *(~has(trait) for trait in sorted(wanted.forbidden)),
        *(sa.exists().where(groups.provider_id == providers.c.id, groups.aggregate_id.in_(sorted(group))) for group in wanted.groups),
    ]  # fmt: skip


@cache
def _next(resources: tuple[str, ...]) -> Statement:
    room = [can_give(name, sa.bindparam(f"amount{number}", type_=sa.Integer)) for number, name in enumerate(resources)]
    within = (providers.c.id > given("after"), providers.c.id <= given("until"))
    return Statement(sa.select(providers.c.id).where(*within, *room).order_by(providers.c.id).limit(sa.bindparam("most", type_=sa.Integer)))


_LAST = Statement(sa.select(sa.func.max(providers.c.id)))


def last(conn: db.Conn) -> str:
    """The highest id; empty when there is no provider."""
    return _LAST.scalar(conn) or ""


def with_room(conn: db.Conn, resources: Mapping[str, int], after: str, until: str, most: int) -> list[str]:
    """Ids beyond `after`, up to `until`, of providers that can give all of it."""
    names = tuple(sorted(resources))
    amounts = {f"amount{number}": resources[name] for number, name in enumerate(names)}
    return [row.id for row in _next(names).rows(conn, after=after, until=until, most=most, **amounts)]
