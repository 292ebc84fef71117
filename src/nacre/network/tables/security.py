"""Security groups, their rules, and which port is in which group.

`alike` of a rule is a text made of all that the rule matches, so that two equal rules in a group meet in a unique index. A project has
one default group, made when it is first needed; the partial index makes it one.
"""

import sqlalchemy as sa

from nacre.core import db
from nacre.network.tables import standard

groups = sa.Table(
    "security_groups", db.metadata, *standard(),
    sa.Column("stateful", sa.Boolean, nullable=False),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Index("uq_security_groups_default", "project_id", unique=True,
             sqlite_where=sa.text("is_default"), postgresql_where=sa.text("is_default")),
)  # fmt: skip
rules = sa.Table(
    "security_group_rules", db.metadata, *standard(),
    sa.Column("security_group_id", sa.String(36), sa.ForeignKey("security_groups.id"), nullable=False),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("ethertype", sa.String(8), nullable=False),
    sa.Column("protocol", sa.String(32)),
    sa.Column("port_range_min", sa.Integer),
    sa.Column("port_range_max", sa.Integer),
    sa.Column("remote_ip_prefix", sa.String(64)),
    sa.Column("remote_group_id", sa.String(36), sa.ForeignKey("security_groups.id"), index=True),
    sa.Column("alike", sa.String(255), nullable=False),
    sa.UniqueConstraint("security_group_id", "alike"),
)  # fmt: skip
members = sa.Table(
    "port_security_groups", db.metadata,
    sa.Column("port_id", sa.String(36), sa.ForeignKey("ports.id"), primary_key=True),
    sa.Column("group_id", sa.String(36), sa.ForeignKey("security_groups.id"), primary_key=True, index=True),
    sa.Column("position", sa.Integer, nullable=False),
)  # fmt: skip
