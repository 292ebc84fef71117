"""Imports, as they are asked for: what may be imported by which method, and where to. The work is a task (`image.import`).

`importing` is the state of an image whose data an import brings; a copy leaves an active image active and only says, in two properties as
upstream does, which stores it goes to and which it did not reach.

Races: the image's row is locked from the look at its state to the task, so of two imports one sees the other's state and is refused.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from nacre import identity
from nacre.core import db, journal, tasks
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict
from nacre.image import fetching, states, stores, tables
from nacre.image.domain import Image
from nacre.image.service import access, data, quotas

TASK, IMPORTING, FAILED = "os_glance_import_task", "os_glance_importing_to_stores", "os_glance_failed_import"
DOWNLOADS = ("web-download", "glance-download")


def begin(caller: Caller, image_id: str, body: Mapping[str, Any], store_id: str | None) -> None:
    """`store_id`: the store that a header names."""
    method = _method(caller, body)
    with caller.write() as tx:
        image, whole = access.load(tx, caller, image_id, lock=True)
        caller.asked.add(caller.rule)
        caller.require(whole, "copy_image" if method["name"] == "copy-image" else caller.rule)
        _fits(image, method)
        data.unsigned(image)
        quotas.count(caller.cloud, tx, image.owner, image_size_total=0)
        wanted = _targets(caller, image, body, store_id)
        if not wanted:
            return
        args = {"image_id": image_id, "import_req": dict(body) | {"method": method}, "backend": wanted, "roles": sorted(caller.roles)}
        if method["name"] == "glance-download":
            args["token"] = identity.sealed(caller.cloud, caller.token)
        task_id = tasks.start(tx, "image.import", f"image:{image_id}", args)
        status = {} if method["name"] == "copy-image" else {"status": states.move(image.status, "importing")}
        tx.update(tables.images, {"id": image_id}, updated_at=tx.now, **status)
        mark(tx, image_id, {TASK: task_id, IMPORTING: ",".join(wanted), FAILED: ""})
        journal.changed(tx, "image", image_id, "import", ("status",), {"method": method["name"]})


def mark(tx: db.Tx, image_id: str, properties: Mapping[str, str | None]) -> None:
    """Sets what an image says of its import; None: nothing any more."""
    for name, value in properties.items():
        tx.delete(tables.properties, image_id=image_id, name=name)
        if value is not None:
            tx.insert(tables.properties, image_id=image_id, name=name, value=value)


def _method(caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
    """The import's method, checked as far as that goes without the image. Raises BadRequest."""
    method = body.get("method")
    if not isinstance(method, dict):
        raise BadRequest("Import request requires a 'method' field.")
    name = method.get("name")
    if name is None:
        raise BadRequest("Import request requires a 'name' field.")
    if name not in caller.cloud.config.DEFAULT.enabled_import_methods:
        raise BadRequest(f"Unknown import method name '{name}'.")
    for flag in ("all_stores_must_succeed", "all_stores"):
        if not isinstance(body.get(flag, True), bool):
            raise BadRequest(f"'{flag}' must be boolean value only")
    if name == "web-download":
        fetching.check(str(method.get("uri") or ""), caller.cloud.config.import_filtering_opts)
    if name == "glance-download":
        return _elsewhere(method)
    return dict(method)


def _elsewhere(method: Mapping[str, Any]) -> dict[str, Any]:
    for needed in ("glance_region", "glance_image_id"):
        if needed not in method:
            raise BadRequest(f"'{needed}' needs to be set for glance-download import method")
    try:
        UUID(str(method["glance_image_id"]))
    except ValueError as error:
        raise BadRequest(f"Remote image id does not look like a UUID: {method['glance_image_id']}") from error
    return {"glance_service_interface": "public"} | dict(method)


def _fits(image: Image, method: Mapping[str, Any]) -> None:
    """Raises Conflict when the image is not in the state that the method wants."""
    name, copy = method["name"], method["name"] == "copy-image"
    if image.status == "active" and not copy:
        raise Conflict("Image with status active cannot be target for import")
    if image.status != "active" and copy:
        raise Conflict("Only images with status active can be targeted for copying")
    if image.status != "queued" and name in DOWNLOADS:
        raise Conflict(f"Image needs to be in 'queued' state to use '{name}' method")
    if name == "glance-direct" and (image.status != "uploading" or all(each.store != stores.STAGING for each in image.locations)):
        raise Conflict("Image needs to be staged before 'glance-direct' method can be used")
    for needed in ("container_format", "disk_format"):
        if not getattr(image, needed):
            raise Conflict(f"'{needed}' needs to be set before import")


def _targets(caller: Caller, image: Image, body: Mapping[str, Any], store_id: str | None) -> list[str]:
    """The stores to be filled. Raises BadRequest and Conflict."""
    known, copy = stores.all_of(caller.cloud), body["method"]["name"] == "copy-image"
    if body.get("all_stores"):
        if "stores" in body or store_id:
            raise BadRequest("All_stores parameter can't be used with x-image-meta-store header or stores parameter")
        every = [name for name, store in known.items() if not store.read_only]
        return [name for name in every if not (copy and name in image.stores)]
    wanted = body.get("stores", [store_id or stores.default(caller.cloud)])
    if "stores" in body and store_id:
        raise BadRequest("Stores parameter and x-image-meta-store header can't be both specified")
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, str) for each in wanted):
        raise BadRequest("'stores' must be a list of store identifiers")
    wanted = list(dict.fromkeys(wanted))
    if unknown := [each for each in wanted if each not in known or known[each].read_only]:
        raise Conflict(f"Store for identifier {unknown[0]} not found, or nothing can be written to it")
    coming = (image.properties.get(IMPORTING) or "").split(",")
    for each in wanted if copy else ():
        if each in image.stores:
            raise BadRequest(f"Image is already present at store '{each}'")
        if each in coming:
            raise Conflict(f"New operation on image '{image.id}' is not permitted as prior operation is still in progress")
    return wanted
