"""What must stay true of images: uploads whose uploader is dead are over, data that was given up goes, nothing half-done stays.

Data without any row is not ours to judge (the database may be older than the files): it is named in the log and left alone.
"""

import logging

import sqlalchemy as sa

from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.loops import Loop
from nacre.image import stores, tables
from nacre.image.service import data, removal
from nacre.image.tables import images, locations

_log = logging.getLogger("nacre.image")


def reclaim_uploads(cloud: Cloud, who: System) -> None:
    """Images whose data nobody sends any more are `queued` again."""
    with cloud.db.read() as conn:
        begun = list(conn.execute(sa.select(images.c.id, images.c.upload).where(images.c.upload.is_not(None))))
    for row in begun:
        if not data.uploader_lives(cloud, row.id, row.upload):
            data.give_up(cloud, who, row.id, row.upload)
    adopt(cloud, who)


def adopt(cloud: Cloud, who: System) -> None:
    """Images that have their data from a time when it could be in one place only are given their location."""
    placed = sa.select(locations.c.image_id)
    homeless = sa.select(images.c.id).where(images.c.status.in_(("active", "deactivated")), images.c.id.not_in(placed))
    with cloud.db.read() as conn:
        found = list(conn.execute(homeless).scalars())
    store = stores.all_of(cloud).get("file")
    for image_id in found:
        if isinstance(store, stores.FileStore) and store.path(image_id).exists():
            with cloud.db.write(who) as tx:
                if tx.lock(homeless.where(images.c.id == image_id)) is not None:
                    tables.place(tx, image_id, store.id, store.url(image_id))


def remove_given_up(cloud: Cloud, who: System) -> None:
    with cloud.db.read() as conn:
        dead = set(conn.execute(sa.select(locations.c.image_id).where(locations.c.status == "deleted")).scalars())
    for image_id in dead:
        removal.bury(cloud, who, image_id)


def tidy_files(cloud: Cloud, who: System) -> None:
    remove_given_up(cloud, who)
    for store in stores.files(cloud):
        whole = store.sweep()
        with cloud.db.read() as conn:
            status = {row.id: row.status for row in conn.execute(sa.select(images.c.id, images.c.status).where(images.c.id.in_(whole)))}
        for image_id in whole:
            if image_id not in status:
                _log.warning("%s of store %s has no row; it is left alone", image_id, store.id)
            elif status[image_id] in ("deleted", "queued"):
                _remove_unvouched(cloud, who, store, image_id)


def _remove_unvouched(cloud: Cloud, who: System, store: stores.FileStore, image_id: str) -> None:
    """Data renamed into place by an upload whose transaction was lost. The row is locked, so no upload can begin meanwhile."""
    placed = sa.exists().where(locations.c.image_id == image_id, locations.c.store == store.id)
    with cloud.db.write(who) as tx:
        if tx.lock(sa.select(images.c.id).where(images.c.id == image_id, images.c.status.in_(("deleted", "queued")), ~placed)) is None:
            return
        remove = store.retire(store.url(image_id))
    remove()


LOOPS: tuple[Loop, ...] = (
    Loop("reclaim-uploads", 10, reclaim_uploads), Loop("tidy-image-files", 120, tidy_files),
    Loop("remove-image-data", 120, remove_given_up, "image-data"),
)  # fmt: skip
