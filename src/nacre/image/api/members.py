"""Members of shared images."""

from typing import Any

from nacre.core.errors import BadRequest
from nacre.core.http import Call
from nacre.image.bodies import images as bodies
from nacre.image.service import members


def create_member(call: Call) -> dict[str, Any]:
    member = call.body.get("member")
    if not isinstance(member, str) or not 0 < len(member) <= 255 or "\0" in member:
        raise BadRequest("member: Member to be added not specified")
    return bodies.member(members.create_member(call.caller, call.path["image_id"], member))


def list_members(call: Call) -> dict[str, Any]:
    rows = members.list_members(call.caller, call.path["image_id"])
    return {"members": [bodies.member(row) for row in rows], "schema": "/v2/schemas/members"}


def show_member(call: Call) -> dict[str, Any]:
    return bodies.member(members.show_member(call.caller, call.path["image_id"], call.path["member_id"]))


def update_member(call: Call) -> dict[str, Any]:
    if "status" not in call.body:
        raise BadRequest("status: Status not specified")
    return bodies.member(members.update_member(call.caller, call.path["image_id"], call.path["member_id"], str(call.body["status"])))


def delete_member(call: Call) -> None:
    members.delete_member(call.caller, call.path["image_id"], call.path["member_id"])
