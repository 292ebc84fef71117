"""What other services ask of images."""

from collections.abc import AsyncIterator

import sqlalchemy as sa

from nacre.core import db, nodes
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.image import stores, tables
from nacre.image.domain import Image
from nacre.image.service import access, data


def visible(conn: db.Conn, caller: Caller, image_id: str) -> Image:
    """The image, if this caller may see it. Raises NotFound."""
    return access.load(conn, caller, image_id)[0]


def known(conn: db.Conn) -> set[str]:
    """Ids of the images that are not deleted."""
    return set(conn.execute(sa.select(tables.images.c.id).where(tables.images.c.deleted_at.is_(None))).scalars())


def with_data(conn: db.Conn) -> list[tuple[str, str]]:
    """(store, image) of all data that is whole."""
    c = tables.locations.c
    placed = list(conn.execute(sa.select(c.store, c.image_id).where(c.status == "active")))
    i = tables.images.c
    whole = sa.select(i.id).where(i.status.in_(("active", "deactivated")), i.id.not_in(sa.select(c.image_id)))
    return [(row.store, row.image_id) for row in placed] + [("file", image_id) for image_id in conn.execute(whole).scalars()]


def restored(tx: db.Tx) -> None:
    """After a restore nobody brings data any more, and what only passed through, or was a copy nearer by, is not there."""
    coming = tables.images.c.status.in_(("saving", "uploading", "importing"))
    tx.execute(tables.images.update().where(coming).values(status="queued", upload=None))
    tx.execute(tables.locations.update().where(tables.locations.c.store.in_((stores.STAGING, stores.TASKS, stores.CACHE))).values(status="deleted"))


def compared(cloud: Cloud, conn: db.Conn) -> tuple[list[str], list[str]]:
    """(images whose data is not there, data that no image has). Neither is repaired: data is not ours to make or to judge."""
    known, lost, strange = {row.id for row in conn.execute(sa.select(tables.images.c.id))}, set(), set()
    held = sa.select(tables.locations).where(tables.locations.c.status == "active")
    rows = list(conn.execute(held))
    for store in stores.files(cloud):
        there = store.strange()
        lost |= {row.image_id for row in rows if row.store == store.id and row.image_id not in there}
        strange |= {name if store.id == "file" else f"{store.id}/{name}" for name in there - known}
    return sorted(lost), sorted(strange)


def for_node(cloud: Cloud, host: str, image_id: str) -> tuple[int, AsyncIterator[bytes]] | None:
    """(bytes, chunks) of an image that an open call of `host` names, or that a server it holds was made of; of one that it is to convert,
    what was staged; else None."""
    with cloud.db.read() as conn:
        image = tables.by_id(conn, image_id)
        calls = [call for call in nodes.open_calls(conn, host) if image_id in _named(call.args)]
        staged = image is not None and image.status == "importing" and any(call.verb == "convert_image" for call in calls)
        usable = image is not None and image.status in ("active", "deactivated") and (bool(calls) or _held(conn, host, image_id))
    if image is None or not (staged or usable):
        return None
    size = image.size or 0
    return size, data.chunks_of(data.opened(cloud, image, store_id=stores.STAGING if staged else None), size)


def _held(conn: sa.Connection, host: str, image_id: str) -> bool:
    held = set(nodes.held_by(conn, host).get("server", {}))
    made = sa.select(nodes.calls.c.args).where(nodes.calls.c.host == host, nodes.calls.c.verb == "ensure_server")
    return bool(held) and any(args["spec"].get("id") in held and image_id in _named(args) for args in conn.execute(made).scalars())


def _named(args: dict[str, object]) -> set[object]:
    spec = args.get("spec")
    inner = spec.get("image") if isinstance(spec, dict) else None
    return {args.get("image_id"), inner.get("image_id") if isinstance(inner, dict) else None}
