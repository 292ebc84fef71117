"""Imports, copies and locations, as tasks: each step is done once, or again without harm, whatever is killed in between.

    image.import   fetch the data into the staging store (unless it was staged, or another store has it) -> convert it on a host, inject
                   properties (plug-ins) -> fill each store, judged on the way -> active
    image.locate   read what is at an address once, for its hashes -> active
    image.cache    a copy nearer by, which nobody has to know of

A store is filled by `run.work`: the data is copied aside, and becomes the image's in the transaction that records the step. Who fails takes
back what it placed; the `failed` hook puts the image where it was before the import. Data from outside never leaves the staging store before
the format inspector has passed all of it. Cancelled by the image's deletion, a task notices within a second.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal, nodes, tasks
from nacre.core.errors import Error
from nacre.core.tasks import Run, StepFailed
from nacre.image import downloads, stores, tables
from nacre.image.domain import Image
from nacre.image.intake import BATCH, Intake
from nacre.image.service import cache, data, quotas
from nacre.image.service.imports import FAILED, IMPORTING, TASK, mark

CONVERT_SECONDS = 3600.0


@dataclass(frozen=True)
class Filled:
    """A whole copy that is not published yet, with what is known of it; or why there is none."""

    intake: Intake | None
    fields: dict[str, Any]
    failure: str = ""


def _image(conn: db.Conn, run: Run) -> Image:
    """Raises StepFailed when it is deleted."""
    found = tables.by_id(conn, run.args["image_id"])
    if found is None:
        raise StepFailed(f"Image {run.args['image_id']} was deleted.")
    return found


def _locked(tx: db.Tx, run: Run) -> Image:
    tx.lock(sa.select(tables.images.c.id).where(tables.images.c.id == run.args["image_id"]))
    return _image(tx, run)


def _is_copy(run: Run) -> bool:
    return run.kind == "image.cache" or bool(run.args["import_req"]["method"]["name"] == "copy-image")


def _failed(tx: db.Tx, run: Run, error: Exception) -> None:
    """The image is as before the import; what lies in a store without a location goes."""
    image_id = run.args["image_id"]
    tx.lock(sa.select(tables.images.c.id).where(tables.images.c.id == image_id))
    image = tables.by_id(tx, image_id)
    wanted = run.args.get("backend", ())
    if image is not None:
        for name in set(wanted) - set(image.stores):
            store = stores.named(run.cloud, name)
            if store is not None:
                store.leftover(image_id)
        if image.status == "importing":
            cleared = dict.fromkeys(("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"))
            tx.update(tables.images, {"id": image_id}, status="queued", updated_at=tx.now, **cleared)
            journal.changed(tx, "image", image_id, "import.failed", ("status",))
        mark(tx, image_id, {TASK: None, IMPORTING: "" if wanted else None, FAILED: ",".join(wanted) if wanted else None})
    _clear(tx, image_id)


def _clear(tx: db.Tx, image_id: str) -> None:
    """What came for an import is not needed any more."""
    for store in (stores.STAGING, stores.TASKS):
        tables.displace(tx, image_id, store)
    tx.ring("image-data")


@tasks.task("image.import", failed=_failed, slow=True)
def import_image(run: Run) -> None:
    method = run.args["import_req"]["method"]["name"]
    if method in downloads.METHODS:
        said: dict[str, Any] | None = None
        if method == "glance-download":
            said = run.work("describe", lambda: downloads.described(run), lambda tx, got: downloads.take_over(tx, run, _locked(tx, run), got))
        size = said["size"] if said else None
        run.work("fetch", lambda: _kept(run, lambda: downloads.opened(run)), lambda tx, got: _stage(tx, run, got, size))
    if method != "copy-image":
        _plugins(run)
    wanted = run.args["backend"]
    must = run.args["import_req"].get("all_stores_must_succeed", True)
    reached, failure = [], ""
    for name in wanted:
        last = name == wanted[-1]
        active = not must or last
        told = run.work(f"fill:{name}", partial(_filled, run, name), partial(_place, run, name, active), partial(_take_back, run, name))
        if told["failed"] and must:
            raise StepFailed(told["failed"])
        reached += [] if told["failed"] else [name]
        failure = told["failed"]
    if not reached:
        raise StepFailed(failure)
    run.last("finish", lambda tx: _finish(tx, run, [name for name in wanted if name not in reached]))


@contextmanager
def _kept(run: Run, source: Callable[[], stores.Reader]) -> Iterator[Intake]:
    """What the source gives, whole, in the staging store, not published yet."""
    part = stores.hidden(run.cloud, stores.STAGING).begin(run.args["image_id"])
    intake = Intake(part, run.args["image_id"], None, run.cloud.config.DEFAULT.image_size_cap)
    try:
        try:
            _copy(run, source(), intake.write)
            intake.finish()
        except Error as error:
            raise StepFailed(error.message) from error
        yield intake
    finally:
        intake.close()


def _copy(run: Run, source: stores.Reader, write: Callable[[bytes], object]) -> int:
    size = 0
    with closing(source):
        while batch := source.read(BATCH):
            run.heed()
            write(batch)
            size += len(batch)
    return size


def _stage(tx: db.Tx, run: Run, intake: Intake, size: int | None) -> dict[str, Any]:
    """`size`: what the source says that it has."""
    image = _locked(tx, run)
    if size not in (None, intake.size):
        raise StepFailed(f"{intake.size} bytes came of an image that has {size}.")
    try:
        quotas.count(run.cloud, tx, image.owner, image_stage_total=intake.size >> 20)
    except Error as error:
        raise StepFailed(error.message) from error
    tx.update(tables.images, {"id": image.id}, size=intake.size, updated_at=tx.now)
    tables.place(tx, image.id, stores.STAGING, intake.part.publish())
    return {"size": intake.size}


def _plugins(run: Run) -> None:
    """In the order of the configuration, as upstream."""
    for name in run.cloud.config.image_import_opts.image_import_plugins:
        if name == "inject_image_metadata":
            run.here("inject", lambda tx: _inject(tx, run))
        elif name == "image_conversion":
            _convert(run)


def _inject(tx: db.Tx, run: Run) -> None:
    options = run.cloud.config.inject_metadata_properties
    if not set(run.args["roles"]) & set(options.ignore_user_roles):
        mark(tx, _locked(tx, run).id, options.inject)


def _convert(run: Run) -> None:
    """A host reads the staged data as nobody and sends it back in the preferred format."""
    wanted = run.cloud.config.image_conversion.output_format
    job = run.here("convert.choose", lambda tx: _conversion(tx, run, wanted))
    if job is None:
        return
    call = nodes.NewCall("convert_image", {"image_id": run.args["image_id"], "disk_format": job["from"], "size": job["size"], "to": wanted},
                         CONVERT_SECONDS)  # fmt: skip
    run.node("convert", job["host"], call)
    run.here("convert.done", lambda tx: tx.update(tables.images, {"id": run.args["image_id"]}, disk_format=wanted, container_format="bare"))


def _conversion(tx: db.Tx, run: Run, wanted: str) -> dict[str, Any] | None:
    image = _locked(tx, run)
    if image.disk_format in (wanted, "iso") or image.container_format != "bare":
        return None
    hosts = [row.name for row in nodes.all_hosts(tx) if nodes.alive(row)]
    if not hosts:
        raise StepFailed("No host is up that could convert the image.")
    return {"host": hosts[run.attempt % len(hosts)], "from": image.disk_format, "size": image.size}


@contextmanager
def _filled(run: Run, store_id: str) -> Iterator[Filled]:
    with run.cloud.db.read() as conn:
        image = _image(conn, run)
    store, made = stores.named(run.cloud, store_id), None
    try:
        if store is None:
            raise Error(f"Store {store_id} is not configured any more.")
        formats = (None, None) if _is_copy(run) else (image.disk_format, image.container_format)
        made = Intake(store.begin(image.id), image.id, formats, run.cloud.config.DEFAULT.image_size_cap)
        _copy(run, _source(run, image), made.write)
        fields = made.finish()
        if _is_copy(run) and image.hash_value not in (None, fields["os_hash_value"]):
            raise Error(f"The data of image {image.id} is damaged: its hash differs.")
        filled = Filled(made, fields)
    except (Error, OSError) as error:
        filled = Filled(None, {}, error.message if isinstance(error, Error) else f"Store {store_id}: {error.strerror or error}")
    try:
        yield filled
    finally:
        if made is not None:
            made.close()


def _source(run: Run, image: Image) -> stores.Reader:
    """What the stores are filled from: the image itself for a copy, else what came for it, the latest that was made of it."""
    held = {each.store for each in image.locations}
    return data.opened(run.cloud, image, store_id=None if _is_copy(run) else stores.TASKS if stores.TASKS in held else stores.STAGING)


def _place(run: Run, store_id: str, active: bool, tx: db.Tx, filled: Filled) -> dict[str, str]:
    image, copy = _locked(tx, run), _is_copy(run)
    if filled.intake is None:
        return {"failed": filled.failure}
    if image.status not in ("active", "deactivated", *(() if copy else ("importing",))):
        raise StepFailed(f"Image {image.id} is {image.status}.")
    try:
        quotas.count(run.cloud, tx, image.owner, image_size_total=filled.intake.size >> 20)
    except Error as error:
        return {"failed": error.message}
    fields = {} if copy else dict(filled.fields) | ({"status": "active"} if active else {})
    tx.update(tables.images, {"id": image.id}, updated_at=tx.now, **fields)
    left = [name for name in (image.properties.get(IMPORTING) or "").split(",") if name not in ("", store_id)]
    mark(tx, image.id, {IMPORTING: ",".join(left)})
    journal.changed(tx, "image", image.id, "import.store", ("locations", *fields), {"store": store_id})
    tables.place(tx, image.id, store_id, filled.intake.part.publish())
    return {"failed": ""}


def _take_back(run: Run, store_id: str, tx: db.Tx, result: dict[str, str]) -> None:
    """What an import placed goes while nobody was told that the image is active, a copy while it is not the only one."""
    tx.lock(sa.select(tables.images.c.id).where(tables.images.c.id == run.args["image_id"]))
    image = tables.by_id(tx, run.args["image_id"])
    if result["failed"] or image is None:
        return
    if image.status == "importing" or (_is_copy(run) and len(image.stores) > 1):
        tables.displace(tx, image.id, store_id)


def _finish(tx: db.Tx, run: Run, missed: list[str]) -> None:
    image = _locked(tx, run)
    if image.status == "importing":
        tx.update(tables.images, {"id": image.id}, status="active", updated_at=tx.now)
    mark(tx, image.id, {TASK: None, IMPORTING: "", FAILED: ",".join(missed)})
    journal.changed(tx, "image", image.id, "imported", ("status",))
    _clear(tx, image.id)


@tasks.task("image.locate", failed=_failed, slow=True)
def locate_image(run: Run) -> None:
    run.work("read", lambda: _read(run), lambda tx, fields: _located(tx, run, fields))


@contextmanager
def _read(run: Run) -> Iterator[dict[str, Any]]:
    """What is known of the data at an address after reading it once, or without `do_secure_hash` of its head alone."""
    said, secure = run.args["validation_data"], run.cloud.config.DEFAULT.do_secure_hash
    algorithm = said.get("os_hash_algo", "sha512")
    md5, digest = hashlib.md5(usedforsecurity=False), hashlib.new(algorithm, usedforsecurity=False)
    try:
        source = stores.all_of(run.cloud)[run.args["store"]].open(run.args["loc_url"], 0)
        if not secure:
            size = getattr(source, "length", None)
            source.close()
            yield {"size": size, **said}
            return

        def write(batch: bytes) -> None:
            md5.update(batch)
            digest.update(batch)

        size = _copy(run, source, write)
    except Error as error:
        raise StepFailed(error.message) from error
    if said and said["os_hash_value"].lower() != digest.hexdigest():
        raise StepFailed(f"os_hash_value: ({said['os_hash_value']}) not matched with actual os_hash_value: ({digest.hexdigest()})")
    yield {"size": size, "checksum": md5.hexdigest(), "os_hash_algo": algorithm, "os_hash_value": digest.hexdigest()}


def _located(tx: db.Tx, run: Run, fields: dict[str, Any]) -> None:
    image = _locked(tx, run)
    tx.update(tables.images, {"id": image.id}, status="active", updated_at=tx.now, **fields)
    tables.place(tx, image.id, run.args["store"], run.args["loc_url"])
    mark(tx, image.id, {TASK: None})
    journal.changed(tx, "image", image.id, "located", ("status", "locations"))


def _uncached(tx: db.Tx, run: Run, error: Exception) -> None:
    if cache.absent(tx, run.args["image_id"]):
        stores.hidden(run.cloud, stores.CACHE).leftover(run.args["image_id"])


@tasks.task("image.cache", failed=_uncached, slow=True)
def cache_image(run: Run) -> None:
    run.work("copy", lambda: _filled(run, stores.CACHE), lambda tx, filled: _keep_near(tx, run, filled))


def _keep_near(tx: db.Tx, run: Run, filled: Filled) -> None:
    image = _locked(tx, run)
    if filled.intake is None or image.status != "active":
        raise StepFailed(filled.failure or f"Image {image.id} is {image.status}.")
    tables.place(tx, image.id, stores.CACHE, filled.intake.part.publish())
    cache.came(tx, run.cloud, image.id)
