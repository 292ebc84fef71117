"""The data of images, in and out.

Data arrives in three moves: `begin` (the row to `saving`, or to `uploading` when it is only staged, in the name of a part that its
uploader keeps alive), a batch after the other, and `end` (data durable, then row, location and publication in one transaction). Whatever
stops it in between, the client included, the row goes back to `queued` and the part goes; after a kill the loop does both, as it finds the
part dead. Batches are worked on in threads of their own (intake.py), so that many uploads do not take the requests' threads, and no more
than two batches an upload are in memory.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa

from nacre.core import db, ids, journal
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import BadRequest, Conflict, Error, Forbidden, Gone, UnsupportedMedia
from nacre.core.http import Call
from nacre.image import states, stores, tables
from nacre.image.domain import Image
from nacre.image.intake import BATCH, Intake
from nacre.image.service import access, cache, images, quotas

T = TypeVar("T")
SIGNED = ("img_signature", "img_signature_hash_method", "img_signature_key_type", "img_signature_certificate_uuid")
_files = anyio.CapacityLimiter(6)
_log = logging.getLogger("nacre.image")


class RangeNotSatisfiable(Error):
    status = 416


@dataclass(frozen=True)
class Arrival:
    """Data under way. `staged`: it waits for an import, in a store that users do not see."""

    cloud: Cloud
    who: db.Who
    image: Image
    store: stores.Store
    intake: Intake
    staged: bool

    @property
    def key(self) -> dict[str, Any]:
        return {"id": self.image.id, "status": "uploading" if self.staged else "saving", "upload": self.intake.token}


async def thread(function: Callable[..., T], *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(partial(function, *arguments), limiter=_files)


def allow(caller: Caller, image_id: str, status: str) -> Image:
    """The image, when its data may be sent. Raises NotFound, Forbidden, Conflict, BadRequest (formats not set, signed)."""
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
    caller.require(whole)
    missing = [name for name in ("disk_format", "container_format") if not getattr(image, name)]
    if missing and status == "saving":
        raise BadRequest(f"Propert{'y' if len(missing) == 1 else 'ies'} {', '.join(missing)} must be set prior to saving data.")
    unsigned(image)
    states.move(image.status, status)
    return image


def unsigned(image: Image) -> None:
    """Raises BadRequest: a signature could only be checked with its certificate from a key manager."""
    if all(image.properties.get(name) for name in SIGNED):
        raise BadRequest(f"Signature verification failed for image {image.id}: this cloud has no key manager, so its certificate cannot be had. "
                         f"Remove {', '.join(SIGNED)} to send data that is not verified.")  # fmt: skip


def target(cloud: Cloud, store_id: str | None) -> stores.Store:
    """The store that an upload names, or the default one. Raises BadRequest."""
    found = stores.all_of(cloud).get(store_id or stores.default(cloud))
    if found is None:
        raise BadRequest(f"Store for identifier {store_id} not found")
    return found


def begin(cloud: Cloud, who: db.Who, image: Image, size: int | None = None, *, store: stores.Store | None = None) -> Arrival:
    """`store` None: the default one. Raises Conflict when the image is not `queued` any more, OverQuota."""
    store = store or target(cloud, None)
    staged = store.id == stores.STAGING
    formats = None if staged else (image.disk_format, image.container_format)
    intake = Intake(store.begin(image.id), image.id, formats, cloud.config.DEFAULT.image_size_cap)
    arrival = Arrival(cloud, who, image, store, intake, staged)
    try:
        with cloud.db.write(who) as tx:
            total = "image_stage_total" if staged else "image_size_total"
            quotas.count(cloud, tx, image.owner, **{total: (size or 0) // (1 << 20), "image_count_uploading": 1})
            if not tx.update(tables.images, {"id": image.id, "status": "queued"}, updated_at=tx.now, **_without_id(arrival.key)):
                raise Conflict(f"Image {image.id} is not in status queued any more", kind="InvalidImageStatusTransition")
            journal.changed(tx, "image", image.id, "stage.begin" if staged else "upload.begin", ("status",))
    except BaseException:
        intake.close()
        raise
    return arrival


def _without_id(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "id"}


def end(arrival: Arrival) -> None:
    """Raises UnsupportedMedia, TooLarge, Gone (deleted meanwhile)."""
    intake, image_id = arrival.intake, arrival.image.id
    fields = intake.finish()
    after = {"status": "uploading" if arrival.staged else "active", "upload": None}
    with arrival.cloud.db.write(arrival.who) as tx:
        if not tx.update(tables.images, arrival.key, updated_at=tx.now, **after, **fields):
            raise Gone(f"Image {image_id} could not be found after upload. The image may have been deleted during the upload.")
        journal.changed(tx, "image", image_id, "stage" if arrival.staged else "upload", ("status", *fields), {"size": intake.size})
        tables.place(tx, image_id, arrival.store.id, intake.part.publish())
    intake.close()


def abandon(arrival: Arrival) -> None:
    """The bytes go first: they may be what leaves the database no room. A row that cannot be changed now is found by the loop, and whoever
    uploaded is told why that failed, not this."""
    arrival.intake.close()
    try:
        give_up(arrival.cloud, arrival.who, arrival.image.id, arrival.intake.token)
    except db.Unreachable as error:
        _log.warning("image %s stays in its state for a while: %s", arrival.image.id, error.reason)


def give_up(cloud: Cloud, who: db.Who, image_id: str, token: str) -> None:
    """The row of an upload that came to nothing is `queued` again; harmless when it is not that upload's any more."""
    with cloud.db.write(who) as tx:
        if tx.update(tables.images, {"id": image_id, "upload": token}, status="queued", upload=None, updated_at=tx.now):
            journal.changed(tx, "image", image_id, "upload.failed", ("status",))


async def put(call: Call) -> None:
    """The route's handler: the request's body becomes the image's data."""
    size = announced(call.headers)
    image = await thread(allow, call.caller, call.path["image_id"], "saving")
    _octets(call)
    await upload(call, image, size, target(call.cloud, call.headers.get("x-image-meta-store")))


async def stage(call: Call) -> None:
    """The route's handler: the request's body waits in the staging store for an import."""
    size = announced(call.headers)
    image = await thread(allow, call.caller, call.path["image_id"], "uploading")
    _octets(call)
    await upload(call, image, size, stores.hidden(call.cloud, stores.STAGING))


def _octets(call: Call) -> None:
    kind = call.headers.get("content-type", "application/octet-stream").split(";")[0].strip()
    if kind != "application/octet-stream":
        raise UnsupportedMedia(f"Invalid content type {kind}")


def announced(headers: Mapping[str, str]) -> int | None:
    """How many bytes the client says it sends."""
    text = headers.get("x-openstack-image-size") or headers.get("content-length")
    if text is not None and not text.isdecimal():
        raise BadRequest("Invalid or missing image size in request headers.")
    return int(text) if text is not None else None


async def upload(call: Call, image: Image, size: int | None, store: stores.Store) -> None:
    """Stores the request's body as the image's data. `size`: what the client says it sends."""
    arrival = await thread(lambda: begin(call.cloud, call.caller, image, size, store=store))
    async with arriving(arrival):
        await receive(arrival.intake, call.request.stream())
        sent = arrival.intake.size
        if size is not None and size != sent:
            raise BadRequest(f"The size of the data, {sent} bytes, differs from the size that was announced, {size} bytes.")


class arriving:
    """`end` when all went well, else `abandon`, whoever is being waited for."""

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                await thread(end, self.arrival)
                return
        except BaseException as failed:
            error = failed
        with anyio.CancelScope(shield=True):
            await thread(abandon, self.arrival)
        raise error


async def receive(intake: Intake, chunks: AsyncIterator[bytes]) -> None:
    """A batch is collected while the one before is worked on."""
    begun: list[Future[object]] = []
    parts: list[bytes] = []
    waiting = 0
    try:
        async for chunk in chunks:
            parts.append(chunk)
            waiting += len(chunk)
            if waiting >= BATCH:
                await _done(begun)
                begun, parts, waiting = intake.take(b"".join(parts)), [], 0
        await _done(begun)
        if waiting:
            begun = intake.take(b"".join(parts))
            await _done(begun)
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*map(asyncio.wrap_future, begun), return_exceptions=True)


async def _done(begun: list[Future[object]]) -> None:
    if begun:
        await asyncio.wait(list(map(asyncio.wrap_future, begun)))
        for each in begun:
            each.result()


def open_for_download(caller: Caller, image_id: str) -> tuple[Image, Callable[[int], stores.Reader] | None]:
    """The image, and what opens its data from some byte on (None: it has none yet); what is open outlives a delete."""
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
    caller.require(whole)
    if image.status == "deactivated" and not caller.allowed("context_is_admin", whole):
        raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    if image.status not in ("active", "deactivated"):
        return image, None
    if any(each.store == stores.CACHE for each in image.locations):
        cache.hit(caller, image_id)
    return image, partial(opened, caller.cloud, image)


def opened(cloud: Cloud, image: Image, first: int = 0, store_id: str | None = None) -> stores.Reader:
    """The image's data in that store, or in the first that has it, in the order of the stores' weights. Raises Gone, FetchFailed."""
    chosen = [each for each in image.locations if (each.store == store_id if store_id else each.store not in (stores.STAGING, stores.TASKS))]
    known = [(stores.named(cloud, each.store), each.url) for each in chosen]
    usable = sorted(((store, url) for store, url in known if store is not None), key=lambda each: -each[0].options.weight)
    failure: Error = stores.Gone(f"No store of this cloud has the data of image {image.id}.")
    for store, url in usable:
        try:
            return store.open(url, first)
        except Error as error:
            failure = error
    raise failure


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


async def chunks_of(reader: stores.Reader, count: int) -> AsyncIterator[bytes]:
    """`count` bytes; fewer are an error. A batch is read while the one before is sent, which makes it half as fast again."""
    ahead = _ahead(reader, count)
    try:
        while count > 0:
            chunk = await ahead
            if not chunk:
                raise OSError("the image's data is shorter than its row says")
            count -= len(chunk)
            ahead = _ahead(reader, count)
            yield chunk
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.gather(ahead, return_exceptions=True)
        reader.close()


def _ahead(reader: stores.Reader, count: int) -> asyncio.Task[bytes]:
    return asyncio.create_task(thread(reader.read, min(BATCH, count)))


def register(cloud: Cloud, who: System, *, name: str, file: Path, project_id: str) -> None:
    """Makes a public qcow2/bare image of a local file, by the same checks as an upload; harmless when the project has an active one
    of that name."""
    same = sa.select(tables.images).where(tables.images.c.owner == project_id, tables.images.c.name == name, tables.images.c.deleted_at.is_(None))
    with cloud.db.write(who) as tx:
        rows = tx.all(same.order_by(tables.images.c.created_at))
        if any(row.status in ("active", "deactivated") for row in rows):
            return
        free = [row for row in rows if row.status == "queued" or (row.upload and not uploader_lives(cloud, row.id, row.upload))]
        image_id = free[0].id if free else ids.uuid()
        if not free:
            formats = {"disk_format": "qcow2", "container_format": "bare"}
            images.insert(tx, image_id, {"name": name, "owner": project_id, "visibility": "public", **formats})
        tx.update(tables.images, {"id": image_id}, status="queued", upload=None)
        image = tables.by_id(tx, image_id)
    assert image is not None
    arrival = begin(cloud, who, image)
    try:
        with file.open("rb") as source:
            while data := source.read(BATCH):
                arrival.intake.write(data)
        end(arrival)
    except BaseException:
        abandon(arrival)
        raise


def uploader_lives(cloud: Cloud, image_id: str, token: str) -> bool:
    """Whether somebody still writes the part of this upload, whichever store it is for."""
    return any(store.lives(image_id, token) for store in stores.files(cloud))
