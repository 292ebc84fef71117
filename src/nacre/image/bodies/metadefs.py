"""How metadata definitions are read and shown."""

from collections.abc import Mapping
from typing import Any

from nacre.core import db
from nacre.core.errors import Forbidden
from nacre.image.bodies.images import time
from nacre.image.schema.check import Schema, check
from nacre.image.schema.metadefs import READ_ONLY

Row = db.Row
_PATH = "/v2/metadefs/namespaces"


def read(body: Mapping[str, Any], schema: Schema) -> Mapping[str, Any]:
    """The body, when it is what the schema says. Raises Forbidden (read-only), BadRequest."""
    for name in READ_ONLY:
        if name in body and "title" not in schema["properties"]:
            raise Forbidden(f"Attribute '{name}' is read-only.")
    check(schema, body)
    return body


def _times(row: Row) -> dict[str, Any]:
    return {"created_at": time(row.created_at), "updated_at": time(row.updated_at)}


def _said(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def association(row: Row) -> dict[str, Any]:
    return _said(name=row.name, prefix=row.prefix, properties_target=row.properties_target) | _times(row)


def property_(row: Row) -> dict[str, Any]:
    return {"name": row.name, **row.content}


def properties(rows: list[Row], prefix: str = "") -> dict[str, Any]:
    return {prefix + row.name: row.content for row in rows}


def object_(namespace: str, row: Row, prefix: str = "") -> dict[str, Any]:
    content = dict(row.content)
    if prefix and "properties" in content:
        content["properties"] = {prefix + name: each for name, each in content["properties"].items()}
        content |= {"required": [prefix + name for name in content["required"]]} if content.get("required") else {}
    return {"name": row.name, **content, **_times(row), "self": f"{_PATH}/{namespace}/objects/{row.name}", "schema": "/v2/schemas/metadefs/object"}


def tag(row: Row) -> dict[str, Any]:
    return {"name": row.name, **_times(row)}


def namespace(row: Row, types: list[Row], held: Mapping[str, list[Row]], prefix: str = "") -> dict[str, Any]:
    """A namespace with what it holds; `prefix` stands before the properties."""
    inner = {
        "resource_type_associations": [association(each) for each in types],
        "objects": [object_(row.namespace, each, prefix) for each in held.get("object", [])],
        "properties": properties(held.get("property", []), prefix),
        "tags": [{"name": each.name} for each in held.get("tag", [])],
    }
    shown = _said(display_name=row.display_name, description=row.description)
    return {"namespace": row.namespace, **shown, "visibility": row.visibility, "protected": row.protected, "owner": row.owner, **_times(row),
            **{name: each for name, each in inner.items() if each}, "self": f"{_PATH}/{row.namespace}",
            "schema": "/v2/schemas/metadefs/namespace"}  # fmt: skip
