"""The SQL tables: `wires` (networks, subnets, ports and where they are), `routing` (routers, floating IPs), `security` (groups, rules),
and what every resource has (`tags`).

Every column is written by the verbs of its resource unless it says otherwise. What is computed is not stored: a port's or a floating
IP's status is read from what the hosts reported of the documents it is in.
"""

from typing import Any

import sqlalchemy as sa

from nacre.core import db

tags = sa.Table(
    "network_tags", db.metadata,
    sa.Column("resource_id", sa.String(36), primary_key=True),
    sa.Column("tag", sa.String(255), primary_key=True),
)  # fmt: skip


def standard() -> list[sa.Column[Any]]:
    """The columns that every resource has."""
    return [
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False, index=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision_number", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    ]
