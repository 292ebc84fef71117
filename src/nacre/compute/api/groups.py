"""Handlers of os-server-groups."""

from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies import groups as bodies
from nacre.compute.service import groups
from nacre.core import paging
from nacre.core.errors import BadRequest
from nacre.core.http import Call


def index(call: Call) -> dict[str, Any]:
    common.strict_query(call, ("all_projects", "limit", "offset"))
    text = call.query.get("offset") or "0"
    if not text.isdecimal():
        raise BadRequest(f"Invalid input for query parameters offset. Value: {text}. '{text}' is not a non-negative integer")
    found = groups.listed(call.caller, "all_projects" in call.query and call.caller.is_admin)
    offset = int(text)
    limit = paging.limit_of(call.query, 1000) if "limit" in call.query else len(found)
    return {"server_groups": [bodies.view(group, call.version) for group in found[offset : offset + (limit or len(found))]]}


def show(call: Call) -> dict[str, Any]:
    return {"server_group": bodies.view(groups.show(call.caller, call.path["id"]), call.version)}


def create(call: Call) -> dict[str, Any]:
    return {"server_group": bodies.view(groups.create(call.caller, *bodies.wanted(call.body, call.version)), call.version)}


def delete(call: Call) -> None:
    groups.delete(call.caller, call.path["id"])
