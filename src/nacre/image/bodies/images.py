"""Wire shapes: what a create and a patch say, and how images and members are shown."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from nacre.core import db
from nacre.core.errors import BadRequest, Forbidden, UnsupportedMedia
from nacre.core.versions import Body, Version
from nacre.image.domain import WRITABLE, Change, Image, NewImage
from nacre.image.schema.images import COMMON, check_image

PATCH_TYPES = {"application/openstack-images-v2.0-json-patch": 4, "application/openstack-images-v2.1-json-patch": 10}
_READ_ONLY = ("created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url", "self", "file", "schema", "stores",
              "os_hash_algo", "os_hash_value")  # fmt: skip
_RESERVED = ("location", "deleted", "deleted_at")
_OPERATIONS = ("add", "remove", "replace")


class _Nothing:
    pass


class Anything(Body):
    """Any JSON object (what is in it, a schema says), or with `many` any array."""

    def __init__(self, *, many: bool = False) -> None:
        super().__init__(None, _Nothing)
        self.kind: Any = list[Any] if many else dict[str, Any]
        self.complaint = "Request body must be a JSON array of operation objects." if many else "Request body must be a JSON object."

    def decode(self, raw: bytes, version: Version) -> Any:
        try:
            return msgspec.json.decode(raw, type=self.kind)
        except msgspec.ValidationError as error:
            raise BadRequest(self.complaint) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"Malformed JSON in request body: {error}" if raw else "Body expected in request.") from error


def _own(name: str) -> None:
    if name in _READ_ONLY:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if name in _RESERVED or name.startswith("os_glance"):
        raise Forbidden(f"Attribute '{name}' is reserved.")
    if len(name) > 255:
        raise BadRequest("Custom property should not be greater than 255 characters.")


def new_image(body: Mapping[str, Any]) -> NewImage:
    """Raises BadRequest and Forbidden naming the attribute."""
    for name in body:
        _own(name)
        if name == "locations":
            raise Forbidden("Attribute 'locations' is reserved.")
    check_image(body)
    columns = {name: body[name] for name in WRITABLE if name in body}
    extra = {name: value for name, value in body.items() if name not in columns and name not in ("id", "tags")}
    return NewImage(body.get("id"), columns, extra, tuple(dict.fromkeys(body.get("tags", []))))


def patch(operations: list[Any], content_type: str) -> list[Change]:
    """Raises UnsupportedMedia, BadRequest and Forbidden."""
    if content_type not in PATCH_TYPES:
        raise UnsupportedMedia(f"Image PATCH expects Content-Type one of: {', '.join(sorted(PATCH_TYPES))}")
    return [_change(each, PATCH_TYPES[content_type]) for each in operations]


def _change(operation: Any, draft: int) -> Change:
    if not isinstance(operation, dict):
        raise BadRequest("Operations must be JSON objects.")
    if draft == 4:
        said = [key for key in _OPERATIONS if key in operation]
        if len(said) != 1:
            raise BadRequest('Operation objects must contain exactly one member named "add", "remove", or "replace".')
        op, pointer = said[0], operation[said[0]]
    else:
        op, pointer = str(operation.get("op")), operation.get("path")
        if op not in _OPERATIONS:
            raise BadRequest(f"Invalid operation: `{op}`. It must be one of the following: {', '.join(_OPERATIONS)}.")
    name = _name(pointer)
    _own(name)
    if name == "id":
        raise Forbidden("Attribute 'id' is read-only.")
    if op == "remove":
        return Change(op, name, None, draft)
    if "value" not in operation:
        raise BadRequest(f'Operation "{op}" requires a member named "value".')
    if name != "locations":
        check_image({name: operation["value"]})
    return Change(op, name, operation["value"], draft)


def _name(pointer: Any) -> str:
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise BadRequest(f'Pointer `{pointer}` does not start with "/".')
    if re.search("~[^01]", pointer) or pointer.endswith("~"):
        raise BadRequest(f'Pointer `{pointer}` contains "~" not part of a recognized escape sequence.')
    name = pointer[1:]
    if name.partition("/")[0] == "locations":  # the one name that goes deeper; it is refused where the image is known
        return "locations"
    if "/" in name or not name.strip():
        raise BadRequest(f"Invalid JSON pointer for this resource: '{pointer}'")
    return name.replace("~1", "/").replace("~0", "~").strip()


def time(at: datetime) -> str:
    return at.isoformat(timespec="seconds") + "Z"


def image(shown: Image) -> dict[str, Any]:
    path = f"/v2/images/{shown.id}"
    return {
        **{name: "" if value is None and name not in COMMON else value for name, value in shown.properties.items()},
        "id": shown.id, "name": shown.name, "status": shown.status, "visibility": shown.visibility, "owner": shown.owner,
        "disk_format": shown.disk_format, "container_format": shown.container_format, "size": shown.size, "virtual_size": shown.virtual_size,
        "min_disk": shown.min_disk, "min_ram": shown.min_ram, "protected": shown.protected, "os_hidden": shown.os_hidden,
        "checksum": shown.checksum, "os_hash_algo": shown.hash_algo, "os_hash_value": shown.hash_value, "tags": list(shown.tags),
        "created_at": time(shown.created_at), "updated_at": time(shown.updated_at),
        "self": path, "file": f"{path}/file", "schema": "/v2/schemas/image", **({"stores": ",".join(shown.stores)} if shown.stores else {}),
    }  # fmt: skip


def member(row: db.Row) -> dict[str, Any]:
    return {"image_id": row.image_id, "member_id": row.member_id, "status": row.status, "created_at": time(row.created_at),
            "updated_at": time(row.updated_at), "schema": "/v2/schemas/member"}  # fmt: skip
