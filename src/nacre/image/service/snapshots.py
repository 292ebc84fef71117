"""What hosts send: images that are made of servers, a row by the verb that was asked, its data from the server's host; and what a host
made of data that was staged for an import.

The data comes while a call `upload_image` of that host is open and names the image, as often as the host repeats the call: what came
before from an uploader that is gone is forgotten, and once the image is active it is only acknowledged.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, nodes
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import Error
from nacre.image import stores, tables
from nacre.image.intake import Intake
from nacre.image.service import data, images, quotas


def begin(tx: db.Tx, caller: Caller, name: str, columns: Mapping[str, Any], properties: Mapping[str, str]) -> str:
    """The id of a new private qcow2 image without data. Raises OverQuota."""
    quotas.count(caller.cloud, tx, caller.project_id, image_count_total=1)
    image_id = ids.uuid()
    shape = {"disk_format": "qcow2", "container_format": "bare", "visibility": "private", "owner": caller.project_id}
    images.insert(tx, image_id, {"name": name, **shape, **columns})
    for key, value in properties.items():
        tx.insert(tables.properties, image_id=image_id, name=key, value=value)
    return image_id


def discard(tx: db.Tx, image_id: str) -> None:
    """A snapshot that came to nothing goes; harmless when it is active, or gone."""
    tx.lock(sa.select(tables.images.c.id).where(tables.images.c.id == image_id))
    image = tables.by_id(tx, image_id)
    if image is not None and image.status in ("queued", "saving"):
        images.end(tx, image)


def keep_newest(tx: db.Tx, project_id: str, alike: Mapping[str, str], most: int) -> None:
    """Of the project's active images with all these properties the newest stay, and those that are protected."""
    table, named = tables.images, tables.properties
    have = [sa.exists().where(named.c.image_id == table.c.id, named.c.name == name, named.c.value == value) for name, value in alike.items()]
    query = sa.select(table.c.id).where(table.c.owner == project_id, table.c.status == "active", table.c.deleted_at.is_(None),
                                        table.c.protected.is_(False), *have).order_by(table.c.created_at.desc(), table.c.id)  # fmt: skip
    for row in tx.all(query.offset(most)):
        tx.lock(sa.select(table.c.id).where(table.c.id == row.id))
        image = tables.by_id(tx, row.id)
        if image is not None:
            images.end(tx, image)


async def from_node(cloud: Cloud, host: str, image_id: str, chunks: AsyncIterator[bytes]) -> str | None:
    """None when the image has its data now, else why it has not."""
    who = System(ids.request_id())
    try:
        if await data.thread(_converting, cloud, host, image_id):
            await _converted(cloud, who, image_id, chunks)
            return None
        arrival = await data.thread(_begin, cloud, who, host, image_id)
        if arrival is None:
            async for _ in chunks:
                pass
            return None
        async with data.arriving(arrival):
            await data.receive(arrival.intake, chunks)
    except Error as error:
        return error.message
    return None


def _converting(cloud: Cloud, host: str, image_id: str) -> bool:
    with cloud.db.read() as conn:
        return any(call.verb == "convert_image" and call.args.get("image_id") == image_id for call in nodes.open_calls(conn, host))


async def _converted(cloud: Cloud, who: System, image_id: str, chunks: AsyncIterator[bytes]) -> None:
    """What a host made of staged data; repeated it replaces what came before."""
    store = stores.hidden(cloud, stores.TASKS)
    intake = Intake(store.begin(image_id), image_id, None, cloud.config.DEFAULT.image_size_cap)

    def place() -> None:
        intake.finish()
        with cloud.db.write(who) as tx:
            if tx.lock(sa.select(tables.images.c.id).where(tables.images.c.id == image_id, tables.images.c.status == "importing")) is None:
                raise Error(f"image {image_id} is not imported any more")
            tables.place(tx, image_id, store.id, intake.part.publish())

    try:
        await data.receive(intake, chunks)
        await data.thread(place)
    finally:
        intake.close()


def _begin(cloud: Cloud, who: System, host: str, image_id: str) -> data.Arrival | None:
    with cloud.db.read() as conn:
        asked = any(call.verb == "upload_image" and call.args.get("image_id") == image_id for call in nodes.open_calls(conn, host))
        image = tables.by_id(conn, image_id)
        token = conn.execute(sa.select(tables.images.c.upload).where(tables.images.c.id == image_id)).scalar()
    if not asked or image is None:
        raise Error(f"nobody asked {host} for image {image_id}")
    if image.status in ("active", "deactivated"):
        return None
    if image.status == "saving" and token and not data.uploader_lives(cloud, image_id, token):
        data.give_up(cloud, who, image_id, token)
    return data.begin(cloud, who, image)
