"""What an image, its members, locations and tasks look like on the wire, as JSON schemas, and the check of what clients send of an image.

Source: Image API v2 reference, "Image schemas", "Task schemas".
"""

from collections.abc import Mapping
from typing import Any

from nacre.core.errors import BadRequest
from nacre.image.schema.check import check, collection

DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "qed", "vdi", "iso", "ploop")
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
VISIBILITIES = ("community", "public", "private", "shared")
MEMBER_STATUSES = ("pending", "accepted", "rejected")
TASK_STATUSES = ("pending", "processing", "success", "failure")
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
    "locations": {
        "type": "array", "description": "A set of URLs to access the image file kept in external store",
        "items": {
            "type": "object", "required": ["url", "metadata"],
            "properties": {
                "url": {"type": "string", "maxLength": 255}, "metadata": {"type": "object"},
                "validation_data": {
                    "type": "object", "writeOnly": True, "additionalProperties": False, "required": ["os_hash_algo", "os_hash_value"],
                    "description": "What the image properties of these names become; of an image with data, what they are.",
                    "properties": {"checksum": {"type": "string", "minLength": 32, "maxLength": 32},
                                   "os_hash_algo": {"type": "string", "maxLength": 64}, "os_hash_value": {"type": "string", "maxLength": 128}},
                },
            },
        },
    },
}  # fmt: skip
COMMON: dict[str, dict[str, Any]] = {
    "kernel_id": _text("ID of the image to be used as the kernel when booting an AMI-style image.", pattern=UUID),
    "ramdisk_id": _text("ID of the image to be used as the ramdisk when booting an AMI-style image.", pattern=UUID),
    "instance_uuid": {**_TEXT, "description": "Metadata which can be used to record which instance this image is associated with."},
    "architecture": {**_TEXT, "description": "Operating system architecture"},
    "os_distro": {**_TEXT, "description": "Common name of operating system distribution"},
    "os_version": {**_TEXT, "description": "Operating system version as specified by the distributor."},
    "description": {**_TEXT, "description": "A human-readable string describing this image."},
    "cinder_encryption_key_id": {**_TEXT, "description": "Key manager's id of the key of a volume made of this image"},
    "cinder_encryption_key_deletion_policy": {**_TEXT, "description": "Whether that key goes with the image",
                                              "enum": ["on_image_deletion", "do_not_delete"]},
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
}  # fmt: skip
LOCATION: dict[str, Any] = {
    "name": "location", "additionalProperties": True, "required": ["url"],
    "properties": {
        "url": {**_TEXT, "readOnly": True, "description": "The URL of the new location to be added in the image."},
        "validation_data": {
            "type": "object", "writeOnly": True, "additionalProperties": False,
            "properties": {"os_hash_algo": {"type": "string", "maxLength": 64, "enum": ["sha1", "sha256", "sha512", "md5"]},
                           "os_hash_value": {"type": "string", "maxLength": 128}},
            "dependentRequired": {"os_hash_value": ["os_hash_algo"], "os_hash_algo": ["os_hash_value"]},
        },
    },
}  # fmt: skip
_TASK = {
    "id": {"description": "An identifier for the task", "pattern": UUID, "type": "string"},
    "type": {"description": "What the task does", "enum": ["import", "api_image_import", "location_import"], "type": "string"},
    "status": {"description": "The current status of this task", "enum": list(TASK_STATUSES), "type": "string"},
    "input": {"description": "The parameters required by task, JSON blob", "type": ["null", "object"]},
    "result": {"description": "The result of current task, JSON blob", "type": ["null", "object"]},
    "owner": {"description": "An identifier for the owner of this task", "type": "string"},
    "message": {"description": "What went wrong, of a task that failed", "type": "string"},
    "image_id": {"description": "Image associated with the task", "type": "string"},
    "request_id": {"description": "Request that made the task", "type": "string"},
    "user_id": {"description": "User associated with the task", "type": "string"},
    "expires_at": {"description": "From when on the task may be removed", "type": ["null", "string"]},
    "created_at": {"description": "Datetime when this resource was created", "type": "string"},
    "updated_at": {"description": "Datetime when this resource was updated", "type": "string"},
    "self": {"readOnly": True, "type": "string"},
    "schema": {"readOnly": True, "type": "string"},
}  # fmt: skip
TASK: dict[str, Any] = {"name": "task", "properties": _TASK}
_STUB = {"name": "task", "properties": {name: each for name, each in _TASK.items() if name not in ("input", "result", "message")}}
SCHEMAS: dict[str, Any] = {
    "image": IMAGE, "images": collection("images", IMAGE), "member": MEMBER, "members": collection("members", MEMBER, whole=False),
    "task": TASK, "tasks": collection("tasks", _STUB, whole=False),
}  # fmt: skip


def check_image(values: Mapping[str, Any]) -> None:
    """Raises BadRequest naming the first property of an image that does not match the schema."""
    check(IMAGE, values)
    for name in ("min_disk", "min_ram"):
        if not 0 <= values.get(name, 0) <= 0x7FFFFFFF:
            raise BadRequest(f"Invalid value '{values[name]}' for parameter '{name}': Cannot be a negative value or above 2147483647")
