"""The journal: one line for each change of a resource, written in the transaction of the change (design law 10).

A line holds when, by which request and whom, what, and the *names* of the fields that changed; values only where the caller passes
them as `values`, never a secret. Readers (notifications, metering, live pages, `nacre history`) keep cursors of their own.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core import db

lines = sa.Table(
    "journal", db.metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("request_id", sa.String(64), nullable=False, index=True),
    sa.Column("user_id", sa.String(64)),
    sa.Column("project_id", sa.String(64)),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("resource_id", sa.String(255), nullable=False, index=True),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("fields", db.Json, nullable=False),
    sa.Column("values", db.Json, nullable=False),
)  # fmt: skip


def changed(tx: db.Tx, kind: str, resource_id: str, action: str, fields: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> None:
    """Write a line. `action`: create, update, delete or the verb's upstream name."""
    tx.insert(lines, at=tx.now, request_id=tx.who.request_id, user_id=tx.who.user_id, project_id=tx.who.project_id, kind=kind,
              resource_id=resource_id, action=action, fields=sorted(fields), values=dict(values or {}))  # fmt: skip
