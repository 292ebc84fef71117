"""Data that is given up. A location becomes a tombstone in the transaction that decides it; `bury` follows: once more under the image's
lock it looks whether the tombstone still stands (a copy to the same store may have come meanwhile), parts the data from the image, and
removes it when that is committed. What is cut off in between is done by the loop."""

from collections.abc import Callable

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import Conflict, Forbidden, NotFound
from nacre.image import stores
from nacre.image.service import access
from nacre.image.tables import displace, images, locations


def bury(cloud: Cloud, who: db.Who, image_id: str) -> None:
    with cloud.db.read() as conn:
        dead = list(conn.execute(sa.select(locations.c.store).where(locations.c.image_id == image_id, locations.c.status == "deleted")).scalars())
    for store_id in dead:
        with cloud.db.write(who) as tx:
            remove = _part(cloud, tx, image_id, store_id)
        remove()


def _part(cloud: Cloud, tx: db.Tx, image_id: str, store_id: str) -> Callable[[], None]:
    tx.lock(sa.select(images.c.id).where(images.c.id == image_id))
    key = {"image_id": image_id, "store": store_id, "status": "deleted"}
    row = tx.first(sa.select(locations.c.url).filter_by(**key))
    store = stores.named(cloud, store_id)
    if row is None or store is None:
        return lambda: None
    remove = store.retire(row.url)
    tx.delete(locations, **key)
    return remove


def delete_from_store(caller: Caller, image_id: str, store_id: str) -> None:
    """Raises NotFound, Conflict (not active, no such store), Forbidden (the last one)."""
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole, "get_image_location")
        caller.require(whole)
        if store_id not in stores.all_of(caller.cloud):
            raise Conflict(f"The selected store {store_id} is not available on this node.")
        if image.status != "active":
            raise Conflict("It's not allowed to remove image data from store if image status is not 'active'")
        if store_id not in image.stores:
            raise NotFound(f"Image {image_id} is not stored in store {store_id}.")
        if len(image.stores) == 1:
            raise Forbidden("Cannot delete image data from the only store containing it. Consider deleting the image instead.")
        displace(tx, image_id, store_id)
        tx.update(images, {"id": image_id}, updated_at=tx.now)
        journal.changed(tx, "image", image_id, "update", ("locations",), {"store": store_id})
    bury(caller.cloud, caller, image_id)
