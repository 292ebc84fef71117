"""Metadata definitions."""

from typing import Any
from urllib.parse import urlencode

from nacre.core.http import Call
from nacre.image.bodies import metadefs as bodies
from nacre.image.schema import metadefs as schema
from nacre.image.service.metadefs import entries, namespaces, resource_types

_OF = {"objects": (entries.OBJECT, schema.OBJECT), "properties": (entries.PROPERTY, schema.PROPERTY), "tags": (entries.TAG, schema.TAG)}


def list_namespaces(call: Call) -> dict[str, Any]:
    rows, more = namespaces.listed(call.caller, call.query)
    path = "/v2/metadefs/namespaces"
    pairs = [(name, value) for name, value in call.query.multi_items() if name != "marker"]
    body = {"namespaces": [bodies.namespace(row, types, {}) for row, types in rows], "schema": "/v2/schemas/metadefs/namespaces",
            "first": path + (f"?{urlencode(pairs)}" if pairs else "")}  # fmt: skip
    if more and rows:
        body["next"] = f"{path}?{urlencode([*pairs, ('marker', rows[-1][0].namespace)])}"
    return body


def create_namespace(call: Call) -> dict[str, Any]:
    row = namespaces.create(call.caller, bodies.read(call.body, schema.NAMESPACE))
    said = {name: call.body[name] for name in ("resource_type_associations", "objects", "properties", "tags") if call.body.get(name)}
    return bodies.namespace(row, [], {}) | said


def show_namespace(call: Call) -> dict[str, Any]:
    row, types, held = namespaces.show(call.caller, call.path["namespace"])
    prefix = next((each.prefix for each in types if each.name == call.query.get("resource_type")), None)
    return bodies.namespace(row, types, held, prefix or "")


def update_namespace(call: Call) -> dict[str, Any]:
    return bodies.namespace(namespaces.update(call.caller, call.path["namespace"], bodies.read(call.body, schema.NAMESPACE)), [], {})


def delete_namespace(call: Call) -> None:
    namespaces.delete(call.caller, call.path["namespace"])


def _shown(call: Call, word: str, row: bodies.Row) -> dict[str, Any]:
    if word == "objects":
        return bodies.object_(call.path["namespace"], row)
    return bodies.property_(row) if word == "properties" else bodies.tag(row)


def _word(call: Call) -> str:
    return call.route.path.split("/")[5]


def create_entry(call: Call) -> dict[str, Any]:
    kind, shape = _OF[_word(call)]
    body = bodies.read(call.body, shape)
    return _shown(call, _word(call), entries.create(call.caller, kind, call.path["namespace"], body))


def create_tag(call: Call) -> dict[str, Any]:
    body = bodies.read({"name": call.path["name"]}, schema.TAG)
    return bodies.tag(entries.create(call.caller, entries.TAG, call.path["namespace"], body))


def create_tags(call: Call) -> dict[str, Any]:
    tags = [each["name"] for each in bodies.read(call.body, schema.TAGS).get("tags", ())]
    append = call.headers.get("x-openstack-append", "").strip().lower() in ("true", "1", "yes", "on", "t", "y")
    entries.replace_tags(call.caller, call.path["namespace"], tags, append=append)
    return {"tags": [{"name": name} for name in tags]}


def list_entries(call: Call) -> dict[str, Any]:
    word = _word(call)
    rows = entries.listed(call.caller, _OF[word][0], call.path["namespace"], call.query)
    if word == "tags":
        return {"tags": [{"name": row.name} for row in rows]}
    return {word: [_shown(call, word, row) for row in rows], "schema": f"/v2/schemas/metadefs/{word}"}


def list_properties(call: Call) -> dict[str, Any]:
    return {"properties": bodies.properties(entries.every(call.caller, entries.PROPERTY, call.path["namespace"]))}


def show_entry(call: Call) -> dict[str, Any]:
    word = _word(call)
    resource_type = call.query.get("resource_type") if word == "properties" else None
    return _shown(call, word, entries.show(call.caller, _OF[word][0], call.path["namespace"], call.path["name"], resource_type))


def update_entry(call: Call) -> dict[str, Any]:
    kind, shape = _OF[_word(call)]
    return _shown(call, _word(call), entries.update(call.caller, kind, call.path["namespace"], call.path["name"], bodies.read(call.body, shape)))


def delete_entry(call: Call) -> None:
    entries.delete(call.caller, _OF[_word(call)][0], call.path["namespace"], call.path.get("name"))


def list_resource_types(call: Call) -> dict[str, Any]:
    return {"resource_types": [{"name": name} for name in resource_types.names(call.caller)]}


def list_associations(call: Call) -> dict[str, Any]:
    return {"resource_type_associations": [bodies.association(row) for row in resource_types.listed(call.caller, call.path["namespace"])]}


def create_association(call: Call) -> dict[str, Any]:
    return bodies.association(resource_types.create(call.caller, call.path["namespace"], bodies.read(call.body, schema.ASSOCIATION)))


def delete_association(call: Call) -> None:
    resource_types.delete(call.caller, call.path["namespace"], call.path["name"])
