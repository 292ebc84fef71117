"""Handlers of os-security-groups and os-security-group-rules (until 2.35): the network's groups in compute's words."""

from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies import old_groups as bodies
from nacre.compute.service import old_groups
from nacre.core import paging
from nacre.core.http import Call


def index(call: Call) -> dict[str, Any]:
    common.strict_query(call, ("limit", "offset", "all_tenants"))
    found = old_groups.listed(call.caller, call.flag("all_tenants"))
    offset = int(text) if (text := call.query.get("offset") or "0").isdecimal() else 0
    limit = paging.limit_of(call.query, 1000) if "limit" in call.query else None
    return {"security_groups": found[offset:][:limit]}


def show(call: Call) -> dict[str, Any]:
    return {"security_group": old_groups.show(call.caller, call.path["id"])}


def create(call: Call) -> dict[str, Any]:
    return {"security_group": old_groups.create(call.caller, call.body.name, call.body.description)}


def update(call: Call) -> dict[str, Any]:
    return {"security_group": old_groups.update(call.caller, call.path["id"], call.body.name, call.body.description)}


def delete(call: Call) -> None:
    old_groups.delete(call.caller, call.path["id"])


def create_rule(call: Call) -> dict[str, Any]:
    return {"security_group_rule": old_groups.create_rule(call.caller, call.body.parent_group_id, bodies.wanted(call.body))}


def delete_rule(call: Call) -> None:
    old_groups.delete_rule(call.caller, call.path["id"])
