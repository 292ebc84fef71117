"""Decode, one verb, render."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from nacre.core.errors import BadRequest, Error, NotFound
from nacre.core.http import Call, Reply
from nacre.image import bodies, schema
from nacre.image.service import data, images, members

VERSIONS = ("v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0")


def error(error: Error, request_id: str) -> dict[str, Any]:
    title = HTTPStatus(error.code).phrase
    return {"error": {"message": error.message, "code": f"{error.code} {title}", "title": title}}


def versions(call: Call) -> Reply:
    links = [{"rel": "self", "href": f"{call.url}/v2/"}]
    shown = [{"id": version, "status": "SUPPORTED" if n else "CURRENT", "links": links} for n, version in enumerate(VERSIONS)]
    return Reply({"versions": shown}, status=200 if call.request.url.path.rstrip("/").endswith("versions") else 300)


def create(call: Call) -> Reply:
    image = images.create_image(call.caller, bodies.new_image(call.body))
    return Reply(bodies.image(image), headers={"location": f"{call.url}/v2/images/{image.id}"})


def index(call: Call) -> dict[str, Any]:
    found, more = images.list_images(call.caller, call.query)
    pairs = [(name, value) for name, value in call.query.multi_items() if name != "marker"]
    body = {"images": [bodies.image(each) for each in found], "first": "/v2/images" + (f"?{urlencode(pairs)}" if pairs else ""),
            "schema": "/v2/schemas/images"}  # fmt: skip
    if more and found:
        body["next"] = f"/v2/images?{urlencode([*pairs, ('marker', found[-1].id)])}"
    return body


def show(call: Call) -> dict[str, Any]:
    return bodies.image(images.show_image(call.caller, call.path["image_id"]))


def update(call: Call) -> dict[str, Any]:
    changes = bodies.patch(call.body, call.headers.get("content-type", "").split(";")[0].strip())
    return bodies.image(images.update_image(call.caller, call.path["image_id"], changes))


def delete(call: Call) -> None:
    images.delete_image(call.caller, call.path["image_id"])


def deactivate(call: Call) -> None:
    images.switch(call.caller, call.path["image_id"], "deactivated", "deactivate")


def reactivate(call: Call) -> None:
    images.switch(call.caller, call.path["image_id"], "active", "reactivate")


def add_tag(call: Call) -> None:
    images.add_tag(call.caller, call.path["image_id"], call.path["tag"])


def remove_tag(call: Call) -> None:
    images.remove_tag(call.caller, call.path["image_id"], call.path["tag"])


def download(call: Call) -> Any:
    image, file = data.open_for_download(call.caller, call.path["image_id"])
    if file is None:
        return Reply(status=204)
    size = image.size or 0
    part = data.span(call.headers.get("range"), size)
    first, last = part or (0, size - 1)
    headers = {"content-type": "application/octet-stream", "content-length": str(last - first + 1), "accept-ranges": "bytes"}
    if image.checksum:
        headers["content-md5"] = image.checksum
    if part:
        headers["content-range"] = f"bytes {first}-{last}/{size}"
    if call.request.method == "HEAD":
        file.close()
        return Response(status_code=200, headers=headers)
    return StreamingResponse(data.chunks_of(file, first, last - first + 1), 206 if part else 200, headers)


def create_member(call: Call) -> dict[str, Any]:
    member = call.body.get("member")
    if not isinstance(member, str) or not 0 < len(member) <= 255:
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


def show_schema(call: Call) -> Any:
    call.caller.require({})
    found = schema.SCHEMAS.get(call.path["name"])
    if found is None:
        raise NotFound(f"There is no schema {call.path['name']}")
    return found


def info_import(call: Call) -> dict[str, Any]:
    call.caller.require({})
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": []}}


def info_stores(call: Call) -> None:
    call.caller.require({})
    raise NotFound("Multi backend is not supported at this site.")
