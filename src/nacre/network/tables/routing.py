"""Routers and floating IPs. A router's interfaces and gateway are ports; `host` is the binding row of the router."""

import sqlalchemy as sa

from nacre.core import db
from nacre.network.tables import standard
from nacre.network.tables.wires import reported_true

routers = sa.Table(
    "routers", db.metadata, *standard(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("gateway_network_id", sa.String(36), sa.ForeignKey("networks.id"), index=True),
    sa.Column("gateway_port_id", sa.String(36), sa.ForeignKey("ports.id")),
    sa.Column("enable_snat", sa.Boolean, nullable=False),
    sa.Column("routes", db.Json, nullable=False),                         # [{"destination", "nexthop"}]
    sa.Column("availability_zone_hints", db.Json, nullable=False),
)  # fmt: skip
router_hosts = sa.Table(
    "router_hosts", db.metadata,
    sa.Column("router_id", sa.String(36), sa.ForeignKey("routers.id"), primary_key=True),
    sa.Column("host", sa.String(255), index=True),                        # None: no host was alive; verbs and the scheduling loop
)  # fmt: skip
interfaces = sa.Table(
    "router_subnets", db.metadata,
    sa.Column("router_id", sa.String(36), sa.ForeignKey("routers.id"), primary_key=True),
    sa.Column("subnet_id", sa.String(36), sa.ForeignKey("subnets.id"), primary_key=True),
    sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id"), nullable=False, index=True),
    sa.Index("ix_router_subnets_subnet_id", "subnet_id"),
)  # fmt: skip
floating_ips = sa.Table(
    "floating_ips", db.metadata, *standard(),
    sa.Column("network_id", sa.String(36), sa.ForeignKey("networks.id"), nullable=False, index=True),
    sa.Column("address", sa.String(64), nullable=False, index=True),
    sa.Column("own_port_id", sa.String(36), sa.ForeignKey("ports.id"), nullable=False),
    sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id"), index=True),
    sa.Column("fixed_ip_address", sa.String(64)),
    sa.Column("router_id", sa.String(36), sa.ForeignKey("routers.id"), index=True),
    sa.Column("dns_name", sa.String(255), nullable=False),
    sa.Column("dns_domain", sa.String(255), nullable=False),
    sa.UniqueConstraint("port_id", "fixed_ip_address", "network_id", name="uq_floating_ips_fixed"),
)  # fmt: skip


def floating_status() -> sa.ColumnElement[str]:
    """SQL: a floating IP is ACTIVE while the router that translates it is reported true."""
    up = sa.and_(floating_ips.c.port_id.is_not(None), reported_true("router", floating_ips.c.router_id))
    return sa.case((up, "ACTIVE"), else_="DOWN")
