"""Rows of images. Where the bytes of an image are, its locations say; a row is `active` or `deactivated` only while it has one whose data
is whole. Rows stay after deletion: they are the tombstones by which data may be removed, and their ids are never given again. A location
that is given up is a tombstone, too, until its data is gone.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from nacre.core import db
from nacre.core.statements import Statement, given_list
from nacre.image.domain import Image, Location

images = sa.Table(
    "images", db.metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255)),
    sa.Column("status", sa.String(30), nullable=False),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("owner", sa.String(255), index=True),
    sa.Column("disk_format", sa.String(20)),
    sa.Column("container_format", sa.String(20)),
    sa.Column("size", sa.BigInteger),                   # uploads
    sa.Column("virtual_size", sa.BigInteger),           # uploads
    sa.Column("checksum", sa.String(32)),               # uploads
    sa.Column("os_hash_algo", sa.String(64)),           # uploads
    sa.Column("os_hash_value", sa.String(128)),         # uploads
    sa.Column("upload", sa.String(32)),                 # uploads: whose part file it is while `saving`
    sa.Column("min_disk", sa.Integer, nullable=False),
    sa.Column("min_ram", sa.Integer, nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("os_hidden", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("deleted_at", sa.DateTime),
    sa.Index("ix_images_visibility", "visibility", "created_at"),
    sa.Index("ix_images_newest", "created_at", "id"),
)  # fmt: skip
properties = sa.Table(
    "image_properties", db.metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("value", sa.Text),
)  # fmt: skip
tags = sa.Table(
    "image_tags", db.metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("value", sa.String(255), primary_key=True),
)  # fmt: skip
locations = sa.Table(
    "image_locations", db.metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("store", sa.String(64), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),   # active, deleted
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Index("ix_image_locations_deleted", "status", sqlite_where=sa.text("status = 'deleted'"), postgresql_where=sa.text("status = 'deleted'")),
)  # fmt: skip
cached = sa.Table(
    "image_cached", db.metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("hits", sa.Integer, nullable=False),
    sa.Column("last_accessed", sa.DateTime, nullable=False),
)  # fmt: skip
members = sa.Table(
    "image_members", db.metadata,
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), primary_key=True),
    sa.Column("member_id", sa.String(255), primary_key=True),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Index("ix_image_members_member", "member_id"),
)  # fmt: skip

_PROPERTIES = Statement(sa.select(properties).where(properties.c.image_id.in_(given_list("ids"))).order_by(properties.c.name))
_TAGS = Statement(sa.select(tags).where(tags.c.image_id.in_(given_list("ids"))).order_by(tags.c.value))
_LOCATIONS = Statement(sa.select(locations).where(locations.c.image_id.in_(given_list("ids")), locations.c.status == "active")
                       .order_by(locations.c.created_at, locations.c.store))  # fmt: skip


def load(conn: db.Conn, rows: Iterable[db.Row]) -> list[Image]:
    """Rows of `images` with their properties and tags, in the same order."""
    rows = list(rows)
    ids = [row.id for row in rows]
    extra: dict[str, dict[str, str | None]] = {image_id: {} for image_id in ids}
    labels: dict[str, list[str]] = {image_id: [] for image_id in ids}
    for row in _PROPERTIES.rows(conn, ids=ids):
        extra[row.image_id][row.name] = row.value
    for row in _TAGS.rows(conn, ids=ids):
        labels[row.image_id].append(row.value)
    held = locations_of(conn, ids)
    return [Image(id=row.id, name=row.name, status=row.status, visibility=row.visibility, owner=row.owner, disk_format=row.disk_format,
                  container_format=row.container_format, size=row.size, virtual_size=row.virtual_size, min_disk=row.min_disk, min_ram=row.min_ram,
                  checksum=row.checksum, hash_algo=row.os_hash_algo, hash_value=row.os_hash_value, protected=row.protected, os_hidden=row.os_hidden,
                  properties=extra[row.id], tags=tuple(labels[row.id]), created_at=row.created_at, updated_at=row.updated_at,
                  locations=tuple(held.get(row.id, ()))) for row in rows]  # fmt: skip


def locations_of(conn: db.Conn, image_ids: Iterable[str]) -> dict[str, list[Location]]:
    """Where the data of images is, in the order in which it came there."""
    found: dict[str, list[Location]] = {}
    for row in _LOCATIONS.rows(conn, ids=list(image_ids)):
        found.setdefault(row.image_id, []).append(Location(row.store, row.url))
    return found


def place(tx: db.Tx, image_id: str, store: str, url: str) -> None:
    """The image's data is at `url` of `store` from now on, whatever was there before."""
    tx.delete(locations, image_id=image_id, store=store)
    tx.insert(locations, image_id=image_id, store=store, url=url, status="active", created_at=tx.now)


def displace(tx: db.Tx, image_id: str, store: str) -> bool:
    """The image's data in `store` may be removed; whether there was any."""
    return bool(tx.update(locations, {"image_id": image_id, "store": store, "status": "active"}, status="deleted"))


def by_id(conn: db.Conn, image_id: str) -> Image | None:
    """As the system; None when there is none or it is deleted."""
    row = conn.execute(sa.select(images).where(images.c.id == image_id, images.c.deleted_at.is_(None))).first()
    return load(conn, [row])[0] if row is not None else None


def is_member(conn: db.Conn, image_id: str, project_id: str | None) -> bool:
    query = sa.select(members.c.member_id).where(members.c.image_id == image_id, members.c.member_id == project_id)
    return conn.execute(query).first() is not None
