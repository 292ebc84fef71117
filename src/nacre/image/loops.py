"""What must stay true of images: uploads whose uploader is dead are over, deleted images have no data, nothing half-done stays.

Data without any row is not ours to judge (the database may be older than the files): it is named in the log and left alone.
"""

import logging

import sqlalchemy as sa

from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.loops import Loop
from nacre.image import store
from nacre.image.service import data
from nacre.image.tables import images

_log = logging.getLogger("nacre.image")


def reclaim_uploads(cloud: Cloud, who: System) -> None:
    """`saving` images that nobody uploads any more are `queued` again."""
    with cloud.db.read() as conn:
        saving = list(conn.execute(sa.select(images.c.id, images.c.upload).where(images.c.status == "saving")))
    for row in saving:
        if not store.uploader_lives(cloud, row.id, row.upload):
            data.give_up(cloud, who, row.id, row.upload)


def tidy_files(cloud: Cloud, who: System) -> None:
    whole = store.sweep(cloud)
    with cloud.db.read() as conn:
        status = {row.id: row.status for row in conn.execute(sa.select(images.c.id, images.c.status).where(images.c.id.in_(whole)))}
    for image_id in whole:
        if image_id not in status:
            _log.warning("images/%s has no row; it is left alone", image_id)
        elif status[image_id] == "deleted":
            store.drop(cloud, image_id)
        elif status[image_id] == "queued":
            _remove_unvouched(cloud, who, image_id)


def _remove_unvouched(cloud: Cloud, who: System, image_id: str) -> None:
    """Data renamed into place by an upload whose transaction was lost. The row is locked, so no upload can begin meanwhile."""
    with cloud.db.write(who) as tx:
        if tx.lock(sa.select(images.c.id).where(images.c.id == image_id, images.c.status == "queued")) is None:
            return
        aside = store.set_aside(cloud, image_id)
    aside.unlink()


LOOPS: tuple[Loop, ...] = (Loop("reclaim-uploads", 10, reclaim_uploads), Loop("tidy-image-files", 120, tidy_files))
