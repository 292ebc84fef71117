"""Metadata definitions: what properties of resources mean. Namespaces hold objects, properties and tags (one table, told apart by `kind`) and
say with which prefix they apply to which resource types."""

import sqlalchemy as sa

from nacre.core import db

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
namespaces = sa.Table(
    "metadef_namespaces", db.metadata,
    sa.Column("id", _number, primary_key=True, autoincrement=True),
    sa.Column("namespace", sa.String(80), nullable=False, unique=True),
    sa.Column("display_name", sa.String(80)),
    sa.Column("description", sa.Text),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)  # fmt: skip
entries = sa.Table(
    "metadef_entries", db.metadata,
    sa.Column("id", _number, primary_key=True, autoincrement=True),
    sa.Column("namespace_id", _number, sa.ForeignKey("metadef_namespaces.id", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),               # object, property, tag
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("content", db.Json, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.UniqueConstraint("namespace_id", "kind", "name"),
)  # fmt: skip
associations = sa.Table(
    "metadef_associations", db.metadata,
    sa.Column("namespace_id", _number, sa.ForeignKey("metadef_namespaces.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(80), primary_key=True),             # the resource type
    sa.Column("prefix", sa.String(80)),
    sa.Column("properties_target", sa.String(80)),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
)  # fmt: skip
