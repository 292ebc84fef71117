"""As much of JSON Schema as the Image API's own schemas use: the schemas that clients fetch are what their bodies are held against."""

import re
from collections.abc import Mapping
from typing import Any

from nacre.core.errors import BadRequest

Schema = Mapping[str, Any]
_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict, "null": type(None),
}  # fmt: skip
_LONGEST = 65535


def check(schema: Schema, value: Any) -> None:
    """Raises BadRequest that names the first member which does not match."""
    complaint = wrong(schema, value, schema.get("definitions", {}))
    if complaint:
        raise BadRequest(f"Provided object does not match schema '{schema['name']}': {complaint}", kind="InvalidObject")


def wrong(schema: Schema, value: Any, definitions: Schema) -> str:
    """"where: what" of the first mismatch, else nothing."""
    if "$ref" in schema:
        return wrong(definitions[schema["$ref"].rpartition("/")[2]], value, definitions)
    for part in schema.get("allOf", ()):
        if complaint := wrong(part, value, definitions):
            return complaint
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{value!r} is not of type {', '.join(map(repr, kinds))}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not one of {schema['enum']!r}"
    if isinstance(value, str):
        return _text(schema, value)
    if isinstance(value, list):
        return _array(schema, value, definitions)
    if isinstance(value, dict):
        return _object(schema, value, definitions)
    if "minimum" in schema and isinstance(value, int | float) and value < schema["minimum"]:
        return f"{value} is less than the minimum of {schema['minimum']}"
    return ""


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _KINDS[kind]) and not (kind in ("integer", "number") and isinstance(value, bool))


def _text(schema: Schema, value: str) -> str:
    most = schema.get("maxLength", _LONGEST)
    if len(value) > most:
        return f"{value[:40]!r}... is too long, at most {most} characters"
    if len(value) < schema.get("minLength", 0):
        return f"{value!r} is too short"
    if "\0" in value:
        return f"{value[:40]!r} holds a character that cannot be stored"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{value!r} does not match {schema['pattern']!r}"
    if schema.get("format") == "regex":
        try:
            re.compile(value)
        except re.error:
            return f"{value!r} is not a 'regex'"
    return ""


def _array(schema: Schema, value: list[Any], definitions: Schema) -> str:
    if len(value) < schema.get("minItems", 0):
        return f"{value!r} is too short"
    if schema.get("uniqueItems") and any(each in value[:number] for number, each in enumerate(value)):
        return f"{value!r} has non-unique elements"
    return next((complaint for each in value if (complaint := wrong(schema.get("items", {}), each, definitions))), "")


def _object(schema: Schema, value: dict[str, Any], definitions: Schema) -> str:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{name!r} is a required property"
    for name, needed in schema.get("dependentRequired", {}).items():
        if name in value and any(other not in value for other in needed):
            return f"{needed[0]!r} is a dependency of {name!r}"
    more = schema.get("additionalProperties", True)
    for name, each in value.items():
        rule = schema.get("properties", {}).get(name, more)
        if rule is False:
            return f"Additional properties are not allowed ({name!r} was unexpected)"
        if rule is not True and (complaint := wrong(rule, each, definitions)):
            return f"{name}: {complaint}"
    return ""


def collection(name: str, item: Schema, *, whole: bool = True) -> dict[str, Any]:
    """The schema of a list of `item`; `whole`: with the members by which pages are found."""
    inner = {key: value for key, value in item.items() if key != "definitions" and (whole or key != "additionalProperties")}
    pages = {"first": {"type": "string"}, "next": {"type": "string"}} if whole else {}
    links = [{"rel": rel, "href": f"{{{rel}}}"} for rel in pages] + [{"rel": "describedby", "href": "{schema}"}]
    found = {"name": name, "properties": {name: {"type": "array", "items": inner}, **pages, "schema": {"type": "string"}}, "links": links}
    return found | ({"definitions": item["definitions"]} if "definitions" in item else {})
