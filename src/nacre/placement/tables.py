"""Rows of placement. A provider's generation is counted up by every change of its inventories, traits, aggregates or allocations, so
that who decided on what they read can tell whether it still holds. Usage is summed from allocations, never cached.
"""

import sqlalchemy as sa

from nacre.core import db
from nacre.core.statements import Statement, given

providers = sa.Table(
    "placement_providers", db.metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("parent_id", sa.String(36), index=True),
    sa.Column("root_id", sa.String(36), nullable=False, index=True),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)  # fmt: skip
inventories = sa.Table(
    "placement_inventories", db.metadata,
    sa.Column("provider_id", sa.String(36), sa.ForeignKey("placement_providers.id"), primary_key=True),
    sa.Column("resource_class", sa.String(255), primary_key=True),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("reserved", sa.Integer, nullable=False),
    sa.Column("min_unit", sa.Integer, nullable=False),
    sa.Column("max_unit", sa.Integer, nullable=False),
    sa.Column("step_size", sa.Integer, nullable=False),
    sa.Column("allocation_ratio", sa.Float, nullable=False),
    sa.Index("ix_placement_inventories_class", "resource_class"),
)  # fmt: skip
consumers = sa.Table(
    "placement_consumers", db.metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("project_id", sa.String(255), nullable=False, index=True),
    sa.Column("user_id", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)  # fmt: skip
allocations = sa.Table(
    "placement_allocations", db.metadata,
    sa.Column("consumer_id", sa.String(36), sa.ForeignKey("placement_consumers.id"), primary_key=True),
    sa.Column("provider_id", sa.String(36), sa.ForeignKey("placement_providers.id"), primary_key=True),
    sa.Column("resource_class", sa.String(255), primary_key=True),
    sa.Column("used", sa.Integer, nullable=False),
    sa.Index("ix_placement_allocations_usage", "provider_id", "resource_class", "used"),
)  # fmt: skip
custom_classes = sa.Table(
    "placement_resource_classes", db.metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)  # fmt: skip
custom_traits = sa.Table(
    "placement_traits", db.metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)  # fmt: skip
provider_traits = sa.Table(
    "placement_provider_traits", db.metadata,
    sa.Column("provider_id", sa.String(36), sa.ForeignKey("placement_providers.id"), primary_key=True),
    sa.Column("trait", sa.String(255), primary_key=True),
    sa.Index("ix_placement_provider_traits_trait", "trait"),
)  # fmt: skip
provider_aggregates = sa.Table(
    "placement_provider_aggregates", db.metadata,
    sa.Column("provider_id", sa.String(36), sa.ForeignKey("placement_providers.id"), primary_key=True),
    sa.Column("aggregate_id", sa.String(36), primary_key=True),
    sa.Index("ix_placement_provider_aggregates_aggregate", "aggregate_id"),
)  # fmt: skip


_INVENTORY = Statement(sa.select(inventories).where(inventories.c.provider_id == given("provider")).order_by(inventories.c.resource_class))
_USAGE = Statement(sa.select(allocations.c.resource_class, sa.func.sum(allocations.c.used).label("used"))
                   .where(allocations.c.provider_id == given("provider")).group_by(allocations.c.resource_class))  # fmt: skip


def inventory_of(conn: db.Conn, provider_id: str) -> dict[str, db.Row]:
    """resource class -> row."""
    return {row.resource_class: row for row in _INVENTORY.rows(conn, provider=provider_id)}


def usage_of(conn: db.Conn, provider_id: str) -> dict[str, int]:
    """resource class -> sum of what is allocated; 0 for what is offered and unused."""
    return dict.fromkeys(inventory_of(conn, provider_id), 0) | {row.resource_class: int(row.used) for row in _USAGE.rows(conn, provider=provider_id)}
