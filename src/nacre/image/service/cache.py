"""The image cache: copies of images in a folder of ours, for images whose stores are far. A copy is a location that users do not see and
that is read first; what is queued is a task. The longest unread go when there is more than `image_cache_max_size`."""

from collections.abc import Sequence

import sqlalchemy as sa

from nacre.core import db, journal, tasks
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import BadRequest, NotFound
from nacre.image import stores
from nacre.image.service import access, removal
from nacre.image.tables import cached, displace, images, locations

_HELD = (locations.c.image_id == cached.c.image_id, locations.c.store == stores.CACHE, locations.c.status == "active")


def _required(caller: Caller) -> None:
    """Raises Forbidden, NotFound when there is no cache."""
    caller.require({})
    if not caller.cloud.config.DEFAULT.image_cache_dir:
        raise NotFound("Caching via API is not supported at this site.")


def listed(caller: Caller) -> tuple[Sequence[db.Row], list[str]]:
    """(copies: image_id, size, hits, last_accessed, created_at; ids of images that wait for theirs)."""
    _required(caller)
    with caller.read() as conn:
        columns = (cached, locations.c.created_at, images.c.size)
        query = sa.select(*columns).where(*_HELD, images.c.id == cached.c.image_id).order_by(locations.c.created_at)
        return list(conn.execute(query)), _queued(conn)


def _queued(conn: db.Conn) -> list[str]:
    waiting = sa.select(tasks.tasks.c.args).where(tasks.tasks.c.kind == "image.cache", tasks.tasks.c.state.in_(tasks.OPEN),
                                                  tasks.tasks.c.cancelling.is_(False)).order_by(tasks.tasks.c.seq)  # fmt: skip
    return [str(args["image_id"]) for args in conn.execute(waiting).scalars()]


def queue(caller: Caller, image_id: str) -> None:
    """Harmless when it is there, or waits."""
    _required(caller)
    with caller.write() as tx:
        image, _ = access.load(tx, caller, image_id, lock=True)
        if image.status != "active":
            raise BadRequest("Only images with status active can be targeted for queueing")
        if all(each.store != stores.CACHE for each in image.locations) and image_id not in _queued(tx):
            tasks.start(tx, "image.cache", f"image-cache:{image_id}", {"image_id": image_id})


def came(tx: db.Tx, cloud: Cloud, image_id: str) -> None:
    """The copy is there; others make room for it."""
    tx.delete(cached, image_id=image_id)
    tx.insert(cached, image_id=image_id, hits=0, last_accessed=tx.now)
    journal.changed(tx, "image", image_id, "cache", ("locations",))
    columns = (cached.c.image_id, images.c.size)
    rows = tx.all(sa.select(*columns).where(*_HELD, images.c.id == cached.c.image_id).order_by(cached.c.last_accessed))
    total = sum(row.size or 0 for row in rows)
    for row in rows:
        if total > cloud.config.DEFAULT.image_cache_max_size and row.image_id != image_id:
            absent(tx, row.image_id)
            total -= row.size or 0


def absent(tx: db.Tx, image_id: str) -> bool:
    """The image has no copy; whether it had none. As the system."""
    tx.delete(cached, image_id=image_id)
    tx.ring("image-data")
    return not displace(tx, image_id, stores.CACHE)


def hit(caller: Caller, image_id: str) -> None:
    with caller.write() as tx:
        tx.update(cached, {"image_id": image_id}, hits=cached.c.hits + 1, last_accessed=tx.now)


def delete(caller: Caller, image_id: str) -> None:
    """Raises NotFound when there is neither such an image nor a copy of one."""
    _required(caller)
    with caller.write() as tx:
        if tx.first(sa.select(images.c.id).where(images.c.id == image_id, images.c.deleted_at.is_(None))) is None:
            raise NotFound(f"Image {image_id} not found.")
        tasks.cancel(tx, f"image-cache:{image_id}")
        absent(tx, image_id)
    removal.bury(caller.cloud, caller, image_id)


def clear(caller: Caller, target: str) -> None:
    """`target`: cache, queue, or both when empty."""
    _required(caller)
    if target not in ("", "cache", "queue"):
        raise BadRequest("If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.")
    with caller.write() as tx:
        for image_id in _queued(tx) if target != "cache" else ():
            tasks.cancel(tx, f"image-cache:{image_id}")
        held = sa.select(locations.c.image_id).where(locations.c.store == stores.CACHE, locations.c.status == "active")
        copies = [row.image_id for row in tx.all(held)] if target != "queue" else []
        for image_id in copies:
            absent(tx, image_id)
    for image_id in copies:
        removal.bury(caller.cloud, caller, image_id)
