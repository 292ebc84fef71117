"""Decode, one verb, render."""

from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any

from nacre.core import clock
from nacre.core.errors import Error
from nacre.core.http import Call, Reply
from nacre.core.versions import UNSET, Microversions, show
from nacre.placement import bodies, query
from nacre.placement.service import allocations, inventories, naming, providers

MICROVERSIONS = Microversions("placement", (1, 0), (1, 24))
_ALWAYS = (0, 0)


def error(error: Error, request_id: str) -> dict[str, Any]:
    code = error.name if error.name.startswith("placement.") else "placement.undefined_code"
    shown = {"status": error.code, "title": HTTPStatus(error.code).phrase, "detail": error.message, "code": code, "request_id": request_id}
    if error.code == 406:
        shown |= {"max_version": show(MICROVERSIONS.high), "min_version": show(MICROVERSIONS.low)}
    return {"errors": [shown]}


def versions(call: Call) -> dict[str, Any]:
    return {"versions": [{"id": "v1.0", "status": "CURRENT", "min_version": show(MICROVERSIONS.low), "max_version": show(MICROVERSIONS.high),
                          "links": [{"rel": "self", "href": ""}]}]}  # fmt: skip


def _dated(call: Call, body: Any, at: datetime | None = None, status: int = 0, **headers: str) -> Reply:
    if call.version >= (1, 15):
        seen = (at or clock.utcnow()).replace(tzinfo=UTC)
        headers |= {"cache-control": "no-cache", "last-modified": format_datetime(seen, usegmt=True)}
    return Reply(body, status=status, headers=headers)


def _path(call: Call, *parts: str) -> str:
    return "/".join((call.service.prefix, *parts))


def _provider(call: Call, row: Any) -> dict[str, Any]:
    return bodies.provider(row, call.service.prefix, call.version)


def create_provider(call: Call) -> Reply:
    row = providers.create_provider(call.caller, call.body.name, call.body.uuid, getattr(call.body, "parent_provider_uuid", UNSET))
    location = {"location": f"{call.url}/resource_providers/{row.id}"}
    if call.version >= (1, 20):
        return _dated(call, _provider(call, row), row.updated_at, 200, **location)
    return Reply(status=201, headers=location)


def list_providers(call: Call) -> Reply:
    query.known(call.query, (("name", _ALWAYS), ("uuid", _ALWAYS), ("member_of", (1, 3)), ("resources", (1, 4)), ("in_tree", (1, 14)),
                             ("required", (1, 18))), call.version)  # fmt: skip
    equal = {column: call.query[name] for name, column in (("name", "name"), ("uuid", "id"), ("in_tree", "in_tree")) if name in call.query}
    rows = providers.list_providers(call.caller, query.wanted(call.query, call.version), **equal)
    return _dated(call, {"resource_providers": [_provider(call, row) for row in rows]}, max((row.updated_at for row in rows), default=None))


def show_provider(call: Call) -> Reply:
    row = providers.show_provider(call.caller, call.path["uuid"])
    return _dated(call, _provider(call, row), row.updated_at)


def update_provider(call: Call) -> Reply:
    parent = getattr(call.body, "parent_provider_uuid", UNSET)
    row = providers.update_provider(call.caller, call.path["uuid"], call.body.name, parent)
    return _dated(call, _provider(call, row), row.updated_at)


def delete_provider(call: Call) -> None:
    providers.delete_provider(call.caller, call.path["uuid"])


def list_inventories(call: Call) -> Reply:
    row, found = inventories.show_inventories(call.caller, call.path["uuid"])
    return _dated(call, _offers(row, found), row.updated_at)


def _offers(row: Any, found: dict[str, Any]) -> dict[str, Any]:
    return {"resource_provider_generation": row.generation, "inventories": {name: bodies.offer(offer) for name, offer in found.items()}}


def replace_inventories(call: Call) -> Reply:
    wanted = {name: bodies.offer(offer) for name, offer in call.body.inventories.items()}
    row, found = inventories.replace_inventories(call.caller, call.path["uuid"], call.body.resource_provider_generation, wanted)
    return _dated(call, _offers(row, found), row.updated_at)


def delete_inventories(call: Call) -> None:
    inventories.replace_inventories(call.caller, call.path["uuid"], UNSET, {})


def create_inventory(call: Call) -> Reply:
    name, body = call.body.resource_class, call.body
    row, offer = inventories.set_inventory(call.caller, call.path["uuid"], body.resource_provider_generation, name, bodies.offer(body), new=True)
    shown = {"resource_provider_generation": row.generation, **bodies.offer(offer)}
    return _dated(call, shown, row.updated_at, 201, location=f"{call.url}/resource_providers/{row.id}/inventories/{name}")


def show_inventory(call: Call) -> Reply:
    row, offer = inventories.show_inventory(call.caller, call.path["uuid"], call.path["resource_class"])
    return _dated(call, {"resource_provider_generation": row.generation, **bodies.offer(offer)}, row.updated_at)


def update_inventory(call: Call) -> Reply:
    row, offer = inventories.set_inventory(call.caller, call.path["uuid"], call.body.resource_provider_generation, call.path["resource_class"],
                                           bodies.offer(call.body))  # fmt: skip
    return _dated(call, {"resource_provider_generation": row.generation, **bodies.offer(offer)}, row.updated_at)


def delete_inventory(call: Call) -> None:
    inventories.set_inventory(call.caller, call.path["uuid"], UNSET, call.path["resource_class"], None)


def provider_usages(call: Call) -> Reply:
    row, used = inventories.show_usages(call.caller, call.path["uuid"])
    return _dated(call, {"resource_provider_generation": row.generation, "usages": used})


def usages(call: Call) -> Reply:
    query.known(call.query, (("project_id", _ALWAYS), ("user_id", _ALWAYS)), call.version)
    project = call.query.get("project_id")
    if not project:
        call.caller.require({"project_id": call.caller.project_id})
        raise query.bad("project_id", "'project_id' is a required property")
    return _dated(call, {"usages": inventories.project_usages(call.caller, project, call.query.get("user_id"))})


def list_aggregates(call: Call) -> Reply:
    row, found = providers.show_set(call.caller, call.path["uuid"], "aggregates")
    return _dated(call, _aggregates(call, row, found), row.updated_at)


def _aggregates(call: Call, row: Any, found: list[str]) -> dict[str, Any]:
    return {"aggregates": found} | ({"resource_provider_generation": row.generation} if call.version >= (1, 19) else {})


def replace_aggregates(call: Call) -> Reply:
    wanted, generation = (call.body, UNSET) if isinstance(call.body, list) else (call.body.aggregates, call.body.resource_provider_generation)
    row, found = providers.replace_set(call.caller, call.path["uuid"], wanted, generation, "aggregates")
    return _dated(call, _aggregates(call, row, found), row.updated_at)


def provider_traits(call: Call) -> Reply:
    row, found = providers.show_set(call.caller, call.path["uuid"], "traits")
    return _dated(call, {"traits": found, "resource_provider_generation": row.generation}, row.updated_at)


def replace_traits(call: Call) -> Reply:
    row, found = providers.replace_set(call.caller, call.path["uuid"], call.body.traits, call.body.resource_provider_generation, "traits")
    return _dated(call, {"traits": found, "resource_provider_generation": row.generation}, row.updated_at)


def delete_traits(call: Call) -> None:
    providers.replace_set(call.caller, call.path["uuid"], (), UNSET, "traits")


def list_traits(call: Call) -> Reply:
    query.known(call.query, (("name", _ALWAYS), ("associated", _ALWAYS)), call.version)
    how, _, what = call.query.get("name", "startswith:").partition(":")
    if how not in ("startswith", "in"):
        call.caller.require({})
        raise query.bad("name", "expected 'startswith:' or 'in:'")
    limits: dict[str, Any] = {"prefix": what} if how == "startswith" else {"among": what.split(",")}
    used = call.flag("associated") if "associated" in call.query else None
    return _dated(call, {"traits": naming.list_names(call.caller, "trait", used=used, **limits)})


def show_trait(call: Call) -> Reply:
    naming.show_name(call.caller, "trait", call.path["name"])
    return _dated(call, None, status=204)


def put_trait(call: Call) -> Reply:
    new = naming.create_name(call.caller, "trait", call.path["name"], again=True)
    return _dated(call, None, status=201 if new else 204, location=f"{call.url}/traits/{call.path['name']}")


def delete_trait(call: Call) -> None:
    naming.delete_name(call.caller, "trait", call.path["name"])


def _class(call: Call, name: str) -> dict[str, Any]:
    return {"name": name, "links": [{"rel": "self", "href": _path(call, "resource_classes", name)}]}


def list_classes(call: Call) -> Reply:
    return _dated(call, {"resource_classes": [_class(call, name) for name in naming.list_names(call.caller, "class")]})


def show_class(call: Call) -> Reply:
    return _dated(call, _class(call, naming.show_name(call.caller, "class", call.path["name"])))


def create_class(call: Call) -> Reply:
    naming.create_name(call.caller, "class", call.body.name, again=False)
    return Reply(status=201, headers={"location": f"{call.url}/resource_classes/{call.body.name}"})


def put_class(call: Call) -> Reply:
    new = naming.create_name(call.caller, "class", call.path["name"], again=True)
    return Reply(status=201 if new else 204, headers={"location": f"{call.url}/resource_classes/{call.path['name']}"})


def rename_class(call: Call) -> dict[str, Any]:
    naming.rename_class(call.caller, call.path["name"], call.body.name)
    return _class(call, call.body.name)


def delete_class(call: Call) -> None:
    naming.delete_name(call.caller, "class", call.path["name"])


def show_allocations(call: Call) -> Reply:
    consumer, held, generations = allocations.show_allocations(call.caller, call.path["consumer_uuid"])
    body: dict[str, Any] = {"allocations": {each: {"generation": generations[each], "resources": resources} for each, resources in held.items()}}
    if consumer is not None and call.version >= (1, 12):
        body |= {"project_id": consumer.project_id, "user_id": consumer.user_id}
    return _dated(call, body, consumer.updated_at if consumer is not None else None)


def provider_allocations(call: Call) -> Reply:
    row, found = allocations.provider_allocations(call.caller, call.path["uuid"])
    shown = {consumer: {"resources": resources} for consumer, resources in found.items()}
    return _dated(call, {"resource_provider_generation": row.generation, "allocations": shown}, row.updated_at)


def put_allocations(call: Call) -> None:
    wanted, consumer = bodies.wanted(call.body), call.path["consumer_uuid"]
    if not query.is_id(consumer):
        call.caller.require({})
        raise query.bad("consumer_uuid", f"'{consumer}' is not a UUID")
    if not wanted[0]:
        call.caller.require({})
        raise query.bad("allocations", "{} does not have enough properties")
    allocations.set_allocations(call.caller, {consumer: wanted})


def post_allocations(call: Call) -> None:
    allocations.set_allocations(call.caller, {consumer: bodies.wanted(body) for consumer, body in call.body.items()})


def delete_allocations(call: Call) -> None:
    allocations.delete_allocations(call.caller, call.path["consumer_uuid"])


def allocation_candidates(call: Call) -> Reply:
    query.known(call.query, (("resources", _ALWAYS), ("limit", (1, 16)), ("required", (1, 17)), ("member_of", (1, 21))), call.version)
    wanted = query.wanted(call.query, call.version)
    if not wanted.resources:
        call.caller.require({})
        raise query.bad("resources", "'resources' is a required property")
    found, traits = providers.candidates(call.caller, wanted, query.limit(call.query))
    return _dated(call, bodies.candidates(found, wanted.resources, traits, call.version))


