"""What an image looks like on the wire, as the JSON schema that clients fetch (`/v2/schemas/...`), and the check of what they send
against it. One table of properties is both.

Source: Image API v2 reference, "Image schemas".
"""

import re
from collections.abc import Mapping
from typing import Any

from nacre.core.errors import BadRequest

DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "qed", "vdi", "iso", "ploop")
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
VISIBILITIES = ("community", "public", "private", "shared")
MEMBER_STATUSES = ("pending", "accepted", "rejected")
UUID = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
_TEXT = {"type": "string"}


def _text(description: str, most: int = 255, **more: Any) -> dict[str, Any]:
    return {"type": ["null", "string"], "description": description, "maxLength": most, **more}


def _seen(kind: Any, description: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "readOnly": True, "description": description, **more}


BASE: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "description": "An identifier for the image", "pattern": UUID},
    "name": _text("Descriptive name for the image"),
    "status": _seen("string", "Status of the image", enum=["queued", "saving", "active", "killed", "deleted", "uploading", "importing",
                                                           "pending_delete", "deactivated"]),
    "visibility": {"type": "string", "description": "Scope of image accessibility", "enum": list(VISIBILITIES)},
    "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
    "os_hidden": {"type": "boolean", "description": "If true, image will not appear in default image list response."},
    "checksum": _seen(["null", "string"], "md5 hash of image contents.", maxLength=32),
    "os_hash_algo": _seen(["null", "string"], "Algorithm to calculate the os_hash_value", maxLength=64),
    "os_hash_value": _seen(["null", "string"], "Hexdigest of the image contents using the algorithm specified by the os_hash_algo", maxLength=128),
    "owner": _text("Owner of the image"),
    "size": _seen(["null", "integer"], "Size of image file in bytes"),
    "virtual_size": _seen(["null", "integer"], "Virtual size of image in bytes"),
    "container_format": {"type": ["null", "string"], "description": "Format of the container", "enum": [None, *CONTAINER_FORMATS]},
    "disk_format": {"type": ["null", "string"], "description": "Format of the disk", "enum": [None, *DISK_FORMATS]},
    "created_at": _seen("string", "Date and time of image registration"),
    "updated_at": _seen("string", "Date and time of the last image modification"),
    "tags": {"type": "array", "description": "List of strings related to the image", "items": {"type": "string", "maxLength": 255}},
    "direct_url": _seen("string", "URL to access the image file kept in external store"),
    "min_ram": {"type": "integer", "description": "Amount of ram (in MB) required to boot image."},
    "min_disk": {"type": "integer", "description": "Amount of disk space (in GB) required to boot image."},
    "self": _seen("string", "An image self url"),
    "file": _seen("string", "An image file url"),
    "stores": _seen("string", "Store in which image data resides. Only present when the operator has enabled multiple stores."),
    "schema": _seen("string", "An image schema url"),
}  # fmt: skip
COMMON: dict[str, dict[str, Any]] = {
    "kernel_id": _text("ID of the image to be used as the kernel when booting an AMI-style image.", pattern=UUID),
    "ramdisk_id": _text("ID of the image to be used as the ramdisk when booting an AMI-style image.", pattern=UUID),
    "instance_uuid": {**_TEXT, "description": "Metadata which can be used to record which instance this image is associated with."},
    "architecture": {**_TEXT, "description": "Operating system architecture"},
    "os_distro": {**_TEXT, "description": "Common name of operating system distribution"},
    "os_version": {**_TEXT, "description": "Operating system version as specified by the distributor."},
    "description": {**_TEXT, "description": "A human-readable string describing this image."},
}  # fmt: skip
_LINKS = [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"}]
_DATE = {"type": "string", "description": "Date and time"}
IMAGE: dict[str, Any] = {
    "name": "image", "properties": BASE | {name: {**each, "is_base": False} for name, each in COMMON.items()},
    "additionalProperties": {"type": "string"}, "links": _LINKS,
}  # fmt: skip
MEMBER: dict[str, Any] = {
    "name": "member",
    "properties": {
        "member_id": {**_TEXT, "description": "An identifier for the image member (tenantId)"},
        "image_id": {**_TEXT, "description": "An identifier for the image", "pattern": UUID},
        "created_at": _DATE, "updated_at": _DATE,
        "status": {**_TEXT, "description": "The status of this image member", "enum": list(MEMBER_STATUSES)},
        "schema": {"readOnly": True, "type": "string"},
    },
    "additionalProperties": False,
}  # fmt: skip


def _collection(name: str, item: Mapping[str, Any]) -> dict[str, Any]:
    links = [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}]
    return {"name": name, "links": links, "properties": {name: {"type": "array", "items": item}, "first": _TEXT, "next": _TEXT, "schema": _TEXT}}


SCHEMAS: dict[str, Any] = {"image": IMAGE, "images": _collection("images", IMAGE), "member": MEMBER, "members": _collection("members", MEMBER)}
_KINDS: dict[str, type | tuple[type, ...]] = {"string": str, "boolean": bool, "integer": int, "array": list, "null": type(None)}


def check(values: Mapping[str, Any]) -> None:
    """Raises BadRequest naming the first property of an image that does not match the schema."""
    for name, value in values.items():
        rule = BASE.get(name) or COMMON.get(name) or _TEXT
        wrong = _wrong(rule, value)
        if wrong:
            raise BadRequest(f"Provided object does not match schema 'image': {name}: {wrong}", kind="InvalidObject")
    for name in ("min_disk", "min_ram"):
        if values.get(name, 0) < 0 or values.get(name, 0) > 0x7FFFFFFF:
            raise BadRequest(f"Invalid value '{values[name]}' for parameter '{name}': Cannot be a negative value or above 2147483647")


def _wrong(rule: Mapping[str, Any], value: Any) -> str:
    kinds = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    fits = any(isinstance(value, _KINDS[kind]) and not (kind == "integer" and isinstance(value, bool)) for kind in kinds)
    if not fits:
        return f"{value!r} is not of type {', '.join(map(repr, kinds))}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{value!r} is not one of {rule['enum']!r}"
    if isinstance(value, str):
        if len(value) > rule.get("maxLength", 65535):
            return f"{value[:40]!r}... is too long, at most {rule.get('maxLength', 65535)} characters"
        if "pattern" in rule and not re.match(rule["pattern"], value):
            return f"{value!r} does not match {rule['pattern']!r}"
    if isinstance(value, list):
        return next((text for each in value if (text := _wrong(rule["items"], each))), "")
    return ""
