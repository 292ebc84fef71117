"""Locations as a service adds and reads them: data that is at an address of the web already. A task (`image.locate`) reads it once, for its
hashes, before the image is active."""

import hashlib
from collections.abc import Mapping
from typing import Any

from nacre.core import journal, tasks
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden
from nacre.image import fetching, states, stores, tables
from nacre.image.service import access, imports


def add(caller: Caller, image_id: str, url: str, validation: Mapping[str, str]) -> None:
    """Raises NotFound, Forbidden (no store of addresses), Conflict (not queued), BadRequest."""
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.require(whole)
        if image.status != "queued":
            raise Conflict(f"It's not allowed to add locations if image status is {image.status}.")
        web = [store for store in stores.all_of(caller.cloud).values() if store.kind == "http"]
        if not web:
            raise Forbidden("http store must be enabled to use location API by normal user.")
        _hash(validation)
        fetching.check(url, caller.cloud.config.import_filtering_opts)
        args = {"image_id": image_id, "loc_url": url, "validation_data": dict(validation), "store": web[0].id}
        task_id = tasks.start(tx, "image.locate", f"image:{image_id}", args)
        tx.update(tables.images, {"id": image_id}, status=states.move(image.status, "importing"), updated_at=tx.now)
        imports.mark(tx, image_id, {imports.TASK: task_id})
        journal.changed(tx, "image", image_id, "locate", ("status",))


def _hash(validation: Mapping[str, str]) -> None:
    value = validation.get("os_hash_value")
    if value is None:
        return
    try:
        found = len(bytes.fromhex(value))
    except ValueError as error:
        raise BadRequest(f"os_hash_value ({value}) is not a valid hexadecimal value") from error
    wanted = hashlib.new(validation["os_hash_algo"], usedforsecurity=False).digest_size
    if found != wanted:
        said = f"os_hash_value: ({value}) is not the correct size for ({validation['os_hash_algo']}) (should be ({wanted}) bytes)"
        raise BadRequest(said)


def listed(caller: Caller, image_id: str) -> list[dict[str, Any]]:
    with caller.read() as conn:
        image, whole = access.load(conn, caller, image_id)
        caller.require(whole)
        return [{"url": each.url, "metadata": {"store": each.store}} for each in image.locations if each.store in image.stores]
