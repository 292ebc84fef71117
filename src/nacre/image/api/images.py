"""Images: what is known of them, and their data on the way out."""

from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from nacre.core.http import Call, Reply
from nacre.image import stores
from nacre.image.bodies import images as bodies
from nacre.image.service import data, images, removal


def create(call: Call) -> Reply:
    image = images.create_image(call.caller, bodies.new_image(call.body))
    offered = {"openstack-image-import-methods": ",".join(call.cloud.config.DEFAULT.enabled_import_methods),
               "openstack-image-store-ids": ",".join(stores.all_of(call.cloud))}  # fmt: skip
    return Reply(bodies.image(image), headers={"location": f"{call.url}/v2/images/{image.id}", **{k: v for k, v in offered.items() if v}})


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


def delete_from_store(call: Call) -> None:
    removal.delete_from_store(call.caller, call.path["image_id"], call.path["store_id"])


def download(call: Call) -> Any:
    image, reader = data.open_for_download(call.caller, call.path["image_id"])
    if reader is None:
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
        return Response(status_code=200, headers=headers)
    return StreamingResponse(data.chunks_of(reader(first), last - first + 1), 206 if part else 200, headers)
