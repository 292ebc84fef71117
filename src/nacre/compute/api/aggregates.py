"""Handlers of host aggregates."""

from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies import aggregates as bodies
from nacre.compute.service import aggregates
from nacre.core.http import Call


def _shown(call: Call, found: aggregates.Aggregate) -> dict[str, Any]:
    return {"aggregate": bodies.view(found, call.version)}


def index(call: Call) -> dict[str, Any]:
    common.strict_query(call, ())
    return {"aggregates": [bodies.view(found, call.version) for found in aggregates.listed(call.caller)]}


def show(call: Call) -> dict[str, Any]:
    return _shown(call, aggregates.show(call.caller, call.path["id"]))


def create(call: Call) -> dict[str, Any]:
    made = aggregates.create(call.caller, call.body.name, call.body.availability_zone)
    return {"aggregate": bodies.created(made, call.version)}


def update(call: Call) -> dict[str, Any]:
    return _shown(call, aggregates.update(call.caller, call.path["id"], bodies.changes(call.body)))


def delete(call: Call) -> None:
    aggregates.delete(call.caller, call.path["id"])


def add_host(call: Call) -> dict[str, Any]:
    return _shown(call, aggregates.add_host(call.caller, call.path["id"], call.body.host))


def remove_host(call: Call) -> dict[str, Any]:
    return _shown(call, aggregates.remove_host(call.caller, call.path["id"], call.body.host))


def set_metadata(call: Call) -> dict[str, Any]:
    items = dict(call.body.metadata)
    zone = {"zone": items.pop(bodies.ZONE)} if bodies.ZONE in items else {}
    return _shown(call, aggregates.set_metadata(call.caller, call.path["id"], items, zone))
