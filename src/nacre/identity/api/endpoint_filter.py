"""Handlers of what projects' catalogs show."""

from collections.abc import Callable
from typing import Any

from nacre.core.caller import Caller
from nacre.core.http import Call
from nacre.identity.api.directory import many
from nacre.identity.service import endpoint_filter
from nacre.identity.service.directory import ENDPOINTS, PROJECTS
from nacre.identity.service.endpoint_filter import GROUPS


def doer(verb: Callable[[Caller, str, str, str], None], what: str) -> Callable[[Call], None]:
    """`verb` is add, check or remove; `what` is endpoint or group."""

    def do(call: Call) -> None:
        verb(call.caller, call.path["project_id"], what, call.path["id"])

    return do


def show_group_of_project(call: Call) -> dict[str, Any]:
    endpoint_filter.check(call.caller, call.path["project_id"], "group", call.path["id"])
    both = {"endpoint_group_id": call.path["id"], "project_id": call.path["project_id"]}
    address = f"{call.url}{GROUPS.address}/{both['endpoint_group_id']}/projects/{both['project_id']}"
    return {"project_endpoint_group": {**both, "links": {"self": address}}}


def projects_of(what: str) -> Callable[[Call], dict[str, Any]]:
    return lambda call: many(call, PROJECTS, endpoint_filter.projects_of(call.caller, what, call.path["id"]))


def groups_of_project(call: Call) -> dict[str, Any]:
    return many(call, GROUPS, endpoint_filter.groups_of(call.caller, call.path["id"]))


def endpoints_of_group(call: Call) -> dict[str, Any]:
    return many(call, ENDPOINTS, endpoint_filter.endpoints_of_group(call.caller, call.path["id"]))


def endpoints_of_project(call: Call) -> dict[str, Any]:
    return many(call, ENDPOINTS, endpoint_filter.endpoints_of(call.caller, call.path["id"]))
