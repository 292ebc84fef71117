"""The data of images, in and out.

An upload is `begin` (row to `saving`, in the name of a part file that its uploader keeps locked), `Part.write` for every batch, and
`end` (data on disk, then row to `active` and the rename in one transaction). Whatever stops it in between, the client included, the row
goes back to `queued` and the part goes; after a kill the loop does both, as it finds the part unlocked.
Batches are written and hashed in a bounded pool of threads of their own, so that many uploads do not take the requests' threads, and
no more than a batch an upload is in memory.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa

from nacre.core import db, ids, journal
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import BadRequest, Conflict, Error, Forbidden, Gone, UnsupportedMedia
from nacre.core.http import Call
from nacre.image import states, store, tables
from nacre.image.domain import Image
from nacre.image.service import access, images

T = TypeVar("T")
_files = anyio.CapacityLimiter(6)


class RangeNotSatisfiable(Error):
    status = 416


async def thread(function: Callable[..., T], *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(partial(function, *arguments), limiter=_files)


def allow_upload(caller: Caller, image_id: str, size: int | None) -> Image:
    """Whether an upload may begin. Raises NotFound, Forbidden, Conflict, BadRequest (formats not set), OverQuota."""
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
    caller.require(whole)
    missing = [name for name in ("disk_format", "container_format") if not getattr(image, name)]
    if missing:
        raise BadRequest(f"Propert{'y' if len(missing) == 1 else 'ies'} {', '.join(missing)} must be set prior to saving data.")
    states.move(image.status, "saving")
    with caller.write() as tx:
        images.count_quota(tx, image.owner, "image_size_total", (size or 0) // (1 << 20))
        images.count_quota(tx, image.owner, "image_count_uploading", 1)
    return image


def begin(cloud: Cloud, who: db.Who, image: Image) -> store.Part:
    """Raises Conflict when the image is not `queued` any more."""
    part = store.Part(cloud, image.id, image.disk_format or "", image.container_format or "")
    try:
        with cloud.db.write(who) as tx:
            if not tx.update(tables.images, {"id": image.id, "status": "queued"}, status="saving", upload=part.token, updated_at=tx.now):
                raise Conflict(f"Image {image.id} is not in status queued any more", kind="InvalidImageStatusTransition")
            journal.changed(tx, "image", image.id, "upload.begin", ("status",))
    except BaseException:
        part.close()
        raise
    return part


def end(cloud: Cloud, who: db.Who, part: store.Part) -> None:
    """Raises UnsupportedMedia, TooLarge, Gone (deleted meanwhile)."""
    fields = part.finish()
    with cloud.db.write(who) as tx:
        key = {"id": part.image_id, "status": "saving", "upload": part.token}
        if not tx.update(tables.images, key, status="active", upload=None, updated_at=tx.now, **fields):
            raise Gone(f"Image {part.image_id} could not be found after upload. The image may have been deleted during the upload.")
        journal.changed(tx, "image", part.image_id, "upload", ("status", *fields), {"size": part.size})
        part.publish()
    part.close()


def give_up(cloud: Cloud, who: db.Who, image_id: str, token: str) -> None:
    """The row of an upload that came to nothing is `queued` again; harmless when it is not that upload's any more."""
    with cloud.db.write(who) as tx:
        if tx.update(tables.images, {"id": image_id, "status": "saving", "upload": token}, status="queued", upload=None, updated_at=tx.now):
            journal.changed(tx, "image", image_id, "upload.failed", ("status",))


async def put(call: Call) -> None:
    """The route's handler: the request's body becomes the image's data."""
    kind = call.headers.get("content-type", "application/octet-stream").split(";")[0].strip()
    size = announced(call.headers)
    image = await thread(allow_upload, call.caller, call.path["image_id"], size)
    if kind != "application/octet-stream":
        raise UnsupportedMedia(f"Invalid content type {kind}")
    await upload(call.caller, image, call.request.stream(), size)


def announced(headers: Mapping[str, str]) -> int | None:
    """How many bytes the client says it sends."""
    text = headers.get("x-openstack-image-size") or headers.get("content-length")
    if text is not None and not text.isdecimal():
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text) if text is not None else None


async def upload(caller: Caller, image: Image, chunks: AsyncIterator[bytes], size: int | None) -> None:
    """Stores what `chunks` bring as the image's data. `size`: what the client says it sends."""
    cloud = caller.cloud
    part = await thread(begin, cloud, caller, image)
    try:
        await receive(part, chunks)
        if size is not None and size != part.size:
            raise BadRequest(f"The size of the data, {part.size} bytes, differs from the size that was announced, {size} bytes.")
        await thread(end, cloud, caller, part)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await thread(abandon, cloud, caller, part)
        raise


def abandon(cloud: Cloud, who: db.Who, part: store.Part) -> None:
    try:
        give_up(cloud, who, part.image_id, part.token)
    finally:
        part.close()


async def receive(part: store.Part, chunks: AsyncIterator[bytes]) -> None:
    batch = bytearray()
    async for chunk in chunks:
        batch += chunk
        if len(batch) >= store.BATCH:
            await thread(part.write, bytes(batch))
            batch.clear()
    if batch:
        await thread(part.write, bytes(batch))


def open_for_download(caller: Caller, image_id: str) -> tuple[Image, IO[bytes] | None]:
    """The image and its data (None: it has none yet); the open file outlives a delete."""
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
    caller.require(whole)
    if image.status == "deactivated" and not caller.allowed("context_is_admin", whole):
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    if image.status not in ("active", "deactivated"):
        return image, None
    return image, store.path(caller.cloud, image_id).open("rb")


def span(asked: str | None, size: int) -> tuple[int, int] | None:
    """(first, last) byte of a Range header, None for the whole. Raises RangeNotSatisfiable."""
    if not asked:
        return None
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip())
    if match is None or not (match[1] or match[2]):
        raise RangeNotSatisfiable(f"Malformed or unsupported Range: {asked}")
    first = int(match[1]) if match[1] else max(0, size - int(match[2]))
    last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
    if first > last:
        raise RangeNotSatisfiable(f"Range {asked} is outside of the image of {size} bytes")
    return first, last


async def chunks_of(file: IO[bytes], first: int, count: int) -> AsyncIterator[bytes]:
    try:
        file.seek(first)
        while count > 0:
            chunk = await thread(file.read, min(store.BATCH, count))
            if not chunk:
                raise OSError("the image's file is shorter than its row says")
            count -= len(chunk)
            yield chunk
    finally:
        file.close()


def register(cloud: Cloud, who: System, *, name: str, file: Path, project_id: str) -> None:
    """Makes a public qcow2/bare image of a local file, by the same checks as an upload; harmless when the project has an active one
    of that name."""
    same = sa.select(tables.images).where(tables.images.c.owner == project_id, tables.images.c.name == name, tables.images.c.deleted_at.is_(None))
    with cloud.db.write(who) as tx:
        rows = tx.all(same.order_by(tables.images.c.created_at))
        if any(row.status in ("active", "deactivated") for row in rows):
            return
        free = [row for row in rows if row.status == "queued" or (row.upload and not store.uploader_lives(cloud, row.id, row.upload))]
        image_id = free[0].id if free else ids.uuid()
        if not free:
            formats = {"disk_format": "qcow2", "container_format": "bare"}
            images.insert(tx, image_id, {"name": name, "owner": project_id, "visibility": "public", **formats})
        tx.update(tables.images, {"id": image_id}, status="queued", upload=None)
        image = tables.by_id(tx, image_id)
    assert image is not None
    part = begin(cloud, who, image)
    try:
        with file.open("rb") as source:
            while data := source.read(store.BATCH):
                part.write(data)
        end(cloud, who, part)
    except BaseException:
        abandon(cloud, who, part)
        raise
