"""Subnet pools: prefixes of which subnets are cut. What is taken of a pool is read from its subnets. A family has one default
pool at most."""

import sqlalchemy as sa

from nacre.core import db
from nacre.network.tables import standard

pools = sa.Table(
    "subnetpools", db.metadata, *standard(),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("prefixes", db.Json, nullable=False),
    sa.Column("default_prefixlen", sa.Integer, nullable=False),
    sa.Column("min_prefixlen", sa.Integer, nullable=False),
    sa.Column("max_prefixlen", sa.Integer, nullable=False),
    sa.Column("default_quota", sa.Integer),                     # addresses (IPv4) or /64 ranges (IPv6) of one project
    sa.Column("shared", sa.Boolean, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Index("uq_subnetpools_default", "ip_version", unique=True, sqlite_where=sa.text("is_default"), postgresql_where=sa.text("is_default")),
)  # fmt: skip
