"""Images on compute's wire, as they were shown there until 2.35."""

from collections.abc import Mapping
from typing import Any

from nacre.compute.bodies.common import stamp
from nacre.core.errors import BadRequest
from nacre.image import Image

_STATUS = {"queued": "SAVING", "saving": "SAVING", "uploading": "SAVING", "importing": "SAVING", "active": "ACTIVE", "deleted": "DELETED",
           "pending_delete": "DELETED", "killed": "ERROR"}  # fmt: skip
_STORED = {"ACTIVE": "active", "SAVING": "in:queued,saving,uploading,importing", "DELETED": "deleted", "ERROR": "killed"}
_PROGRESS = {"queued": 25, "saving": 50, "active": 100}
FILTERS = ("name", "status", "changes-since", "server", "type", "minRam", "minDisk", "limit", "marker")


def asked(query: Mapping[str, str]) -> dict[str, str]:
    """A list's query in the image service's words; what is not known is no filter, but properties are. Raises BadRequest."""
    known = {"limit": "limit", "marker": "marker", "name": "name", "minRam": "min_ram", "minDisk": "min_disk", "type": "image_type"}
    found = {known[name]: value for name, value in query.items() if name in known}
    found |= {name.removeprefix("property-"): value for name, value in query.items() if name.startswith("property-")}
    if "status" in query:
        found["status"] = _STORED.get(query["status"].upper(), query["status"].lower())
    if "changes-since" in query:
        found["updated_at"] = f"gte:{query['changes-since']}"
    if "server" in query:
        found["instance_uuid"] = query["server"].rpartition("/")[2]
    return found


def _links(url: str, image_id: str) -> list[dict[str, str]]:
    root = url.rpartition("/compute")[0]
    return [{"rel": "self", "href": f"{url}/v2.1/images/{image_id}"}, {"rel": "bookmark", "href": f"{url}/images/{image_id}"},
            {"rel": "alternate", "type": "application/vnd.openstack.image", "href": f"{root}/image/images/{image_id}"}]  # fmt: skip


def basic(image: Image, url: str) -> dict[str, Any]:
    return {"id": image.id, "name": image.name, "links": _links(url, image.id)}


def detail(image: Image, url: str) -> dict[str, Any]:
    shown = basic(image, url) | {
        "minRam": image.min_ram, "minDisk": image.min_disk, "metadata": dict(image.properties), "created": stamp(image.created_at),
        "updated": stamp(image.updated_at), "status": _STATUS.get(image.status, "UNKNOWN"), "progress": _PROGRESS.get(image.status, 0),
        "OS-EXT-IMG-SIZE:size": image.size}  # fmt: skip
    server = image.properties.get("instance_uuid")
    if server:
        shown["server"] = {"id": server, "links": [{"rel": "self", "href": f"{url}/v2.1/servers/{server}"},
                                                   {"rel": "bookmark", "href": f"{url}/servers/{server}"}]}  # fmt: skip
    automatic = image.properties.get("auto_disk_config")
    return shown | ({} if automatic is None else {"OS-DCF:diskConfig": "AUTO" if automatic.lower() in ("true", "1", "yes") else "MANUAL"})


def one_item(meta: Mapping[str, str], key: str) -> Mapping[str, str]:
    """Raises BadRequest when the key of the body is not the address's."""
    if list(meta) != [key]:
        raise BadRequest("Request body and URI mismatch")
    return meta
