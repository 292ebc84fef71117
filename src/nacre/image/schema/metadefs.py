"""What metadata definitions look like on the wire.

Source: Metadata Definitions Service API v2 reference, "Metadata definition schemas".
"""

from typing import Any

from nacre.image.schema.check import collection

_TEXT = {"type": "string"}
_NAME = {"type": "string", "maxLength": 80}
_SEEN = {"type": "string", "readOnly": True}
_KINDS = ["array", "boolean", "integer", "number", "object", "string", None]
_REF = "#/definitions/"
READ_ONLY = ("self", "schema", "created_at", "updated_at")


def _time(what: str) -> dict[str, Any]:
    return {"type": "string", "readOnly": True, "description": what, "format": "date-time"}


_PROPERTY: dict[str, Any] = {
    "name": _NAME, "title": _TEXT, "description": _TEXT, "operators": {"type": "array", "items": _TEXT}, "type": {"type": "string", "enum": _KINDS},
    "required": {"$ref": _REF + "stringArray"}, "minimum": {"type": "number"}, "maximum": {"type": "number"},
    "maxLength": {"$ref": _REF + "positiveInteger"}, "minLength": {"$ref": _REF + "positiveIntegerDefault0"},
    "pattern": {"type": "string", "format": "regex"}, "enum": {"type": "array"}, "readonly": {"type": "boolean"}, "default": {},
    "items": {"type": "object", "properties": {"type": {"type": "string", "enum": _KINDS}, "enum": {"type": "array"}}},
    "maxItems": {"$ref": _REF + "positiveInteger"}, "minItems": {"$ref": _REF + "positiveIntegerDefault0"},
    "uniqueItems": {"type": "boolean", "default": False}, "additionalItems": {"type": "boolean"},
}  # fmt: skip
_NUMBERS = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {"allOf": [{"$ref": _REF + "positiveInteger"}, {"default": 0}]},
    "stringArray": {"type": "array", "items": _TEXT, "uniqueItems": True},
}  # fmt: skip
_DEFINITIONS = _NUMBERS | {
    "property": {"type": "object", "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": _PROPERTY}},
}  # fmt: skip
NAMESPACE: dict[str, Any] = {
    "name": "namespace", "additionalProperties": False, "required": ["namespace"], "definitions": _DEFINITIONS,
    "properties": {
        "namespace": {**_NAME, "description": "The unique namespace text."},
        "display_name": {**_NAME, "description": "What people read as its name."},
        "description": {"type": "string", "maxLength": 500, "description": "What the namespace is for."},
        "visibility": {"type": "string", "enum": ["public", "private"], "description": "Scope of namespace accessibility."},
        "protected": {"type": "boolean", "description": "If true, namespace will not be deletable."},
        "owner": {"type": "string", "maxLength": 255, "description": "Owner of the namespace."},
        "created_at": _time("Date and time of namespace creation"), "updated_at": _time("Date and time of the last namespace modification"),
        "schema": _SEEN, "self": _SEEN,
        "resource_type_associations": {
            "type": "array", "items": {"type": "object", "properties": {"name": _TEXT, "prefix": _TEXT, "properties_target": _TEXT}},
        },
        "properties": {"$ref": _REF + "property"},
        "objects": {"type": "array", "items": {"type": "object", "properties": {
            "name": _TEXT, "description": _TEXT, "required": {"$ref": _REF + "stringArray"}, "properties": {"$ref": _REF + "property"}}}},
        "tags": {"type": "array", "items": {"type": "object", "properties": {"name": _TEXT}}},
    },
}  # fmt: skip
OBJECT: dict[str, Any] = {
    "name": "object", "additionalProperties": False, "required": ["name"], "definitions": _DEFINITIONS,
    "properties": {
        "name": _NAME, "description": _TEXT, "required": {"$ref": _REF + "stringArray"}, "properties": {"$ref": _REF + "property"},
        "schema": _SEEN, "self": _SEEN,
        "created_at": _time("Date and time of object creation"), "updated_at": _time("Date and time of the last object modification"),
    },
}  # fmt: skip
PROPERTY: dict[str, Any] = {
    "name": "property", "additionalProperties": False, "required": ["type", "title", "name"], "properties": _PROPERTY,
    "definitions": _NUMBERS | {"stringArray": {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True}},
}  # fmt: skip
TAG: dict[str, Any] = {
    "name": "tag", "additionalProperties": False, "required": ["name"],
    "properties": {"name": _NAME, "created_at": _time("Date and time of tag creation"), "updated_at": _time("Date and time of its last change")},
}  # fmt: skip
TAGS: dict[str, Any] = {
    "name": "tags", "additionalProperties": False,
    "properties": {"tags": {"type": "array", "items": {
        "type": "object", "required": ["name"], "additionalProperties": False, "properties": {"name": _NAME}}}},
}  # fmt: skip
ASSOCIATION: dict[str, Any] = {
    "name": "resource_type_association", "additionalProperties": False, "required": ["name"],
    "properties": {
        "name": {**_NAME, "description": "The resource type, by the name that orchestration has for it."},
        "prefix": {**_NAME, "description": "What is put before the namespace's properties on resources of this type, with its separator."},
        "properties_target": {**_NAME, "description": "Which of several kinds of properties of such a resource is meant."},
        "created_at": _time("Date and time of resource type association"),
        "updated_at": _time("Date and time of the last resource type association modification"),
    },
}  # fmt: skip
_PROPERTIES = collection("properties", PROPERTY) | {"properties": {
    "properties": {"type": "object", "additionalProperties": {key: value for key, value in PROPERTY.items() if key != "definitions"}
                   | {"required": ["type", "title"]}},
    "first": _TEXT, "next": _TEXT, "schema": _TEXT}}  # fmt: skip
SCHEMAS: dict[str, Any] = {
    "namespace": NAMESPACE, "namespaces": collection("namespaces", NAMESPACE), "object": OBJECT, "objects": collection("objects", OBJECT),
    "property": PROPERTY, "properties": _PROPERTIES, "tag": TAG, "tags": collection("tags", TAG), "resource_type": ASSOCIATION,
    "resource_types": collection("resource_type_associations", ASSOCIATION),
}  # fmt: skip
