"""Handlers that change what a server is made of, and of its interfaces."""

from typing import Any

import msgspec

from nacre.compute.api import common
from nacre.compute.api import servers as views
from nacre.compute.bodies import life as bodies
from nacre.compute.bodies import server_view as view
from nacre.compute.bodies.common import metadata
from nacre.compute.service import life, listing
from nacre.core.errors import BadRequest
from nacre.core.http import Call, Reply
from nacre.core.versions import UNSET


def create_image(call: Call) -> Reply:
    return _image(call, life.snapshot(call.caller, call.path["id"], call.body.name, metadata(call.body.metadata)))


def _image(call: Call, image_id: str) -> Reply:
    if call.version >= (2, 45):
        return Reply({"image_id": image_id}, 202)
    return Reply(None, 202, {"location": f"{call.url.rpartition('/compute')[0]}/image/images/{image_id}"})


def create_backup(call: Call) -> Reply:
    wanted = life.Backup(call.body.name, call.body.backup_type, call.body.rotation)
    image_id = life.backup(call.caller, call.path["id"], wanted, metadata(call.body.metadata))
    return _image(call, image_id) if wanted.rotation else Reply(None, 202)


def rebuild(call: Call) -> Reply:
    image_id, values = bodies.rebuilt(call.body, call.version)
    life.rebuild(call.caller, call.path["id"], image_id, values)
    found = listing.detail(call.caller, call.path["id"])
    whole = views.whole(call, found)
    shown = view.changed(whole, call.version)
    if call.version >= (2, 54):
        shown["key_name"] = whole["key_name"]
    if call.version >= (2, 57):
        shown["user_data"] = found.row.user_data
        shown.pop("OS-EXT-SRV-ATTR:user_data", None)
    return Reply({"server": shown | common.admin_password(call, call.body.adminPass)}, 202, {"location": shown["links"][0]["href"]})


def resize(call: Call) -> None:
    config = call.body.disk_config
    life.resize(call.caller, call.path["id"], str(call.body.flavorRef).rpartition("/")[2], None if config is UNSET else config)


def confirm_resize(call: Call) -> None:
    life.confirm_resize(call.caller, call.path["id"])


def revert_resize(call: Call) -> None:
    life.revert_resize(call.caller, call.path["id"])


class _Rescue(msgspec.Struct, forbid_unknown_fields=True):
    adminPass: str | msgspec.UnsetType = UNSET
    rescue_image_ref: str | None = None


def rescue(call: Call) -> dict[str, str]:
    try:
        body = msgspec.convert(call.body.get("rescue") or {}, _Rescue)
    except msgspec.ValidationError as error:
        raise BadRequest(f"Invalid input for field/attribute rescue. {error}") from error
    life.rescue(call.caller, call.path["id"], body.rescue_image_ref)
    return common.admin_password(call, body.adminPass)


def attach(call: Call) -> dict[str, Any]:
    return {"interfaceAttachment": views.attachment(life.attach(call.caller, call.path["id"], bodies.requested(call.body)), call)}


def detach(call: Call) -> None:
    life.detach(call.caller, call.path["id"], call.path["port"])
