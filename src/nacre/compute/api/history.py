"""Handlers of os-instance-actions, and of explanations."""

import hashlib
from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies.common import micro
from nacre.compute.service import explain, history, servers
from nacre.compute.service.history import Action
from nacre.core import paging
from nacre.core.db import Row
from nacre.core.http import Call

_EVENTS = "os_compute_api:os-instance-actions:events"


def _shown(call: Call, server: Row, action: Action) -> dict[str, Any]:
    shown = {"action": action.name, "instance_uuid": server.id, "request_id": action.request_id, "user_id": action.user_id,
             "project_id": action.project_id, "start_time": micro(action.started), "message": action.message}  # fmt: skip
    return shown | ({"updated_at": micro(action.updated)} if call.version >= (2, 58) else {})


def index(call: Call) -> dict[str, Any]:
    paged = call.version >= (2, 58)
    known = ("limit", "marker", "changes-since", *(("changes-before",) if call.version >= (2, 66) else ()))
    common.strict_query(call, known, since=(2, 58))
    server, actions, more = history.listed(
        call.caller, call.path["id"], deleted=call.version >= (2, 21),
        between=(common.moment(call, "changes-since") if paged else None, common.moment(call, "changes-before") if call.version >= (2, 66) else None),
        limit=paging.limit_of(call.query, 1000) if paged else None, marker=call.query.get("marker") if paged else None)  # fmt: skip
    shown = {"instanceActions": [_shown(call, server, action) for action in actions]}
    if more:
        url = f"{call.url}/v2.1/servers/{server.id}/os-instance-actions"
        shown["links"] = [{"rel": "next", "href": paging.link(url, call.query, actions[-1].request_id)}]
    return shown


def show(call: Call) -> dict[str, Any]:
    server, action, events = history.show(call.caller, call.path["id"], call.path["request"], deleted=call.version >= (2, 21))
    shown, target = _shown(call, server, action), servers.target(server)
    whole = call.caller.allowed(_EVENTS, target)
    details = call.version >= (2, 84) and call.caller.allowed(f"{_EVENTS}:details", target)
    if whole or call.version >= (2, 51):
        shown["events"] = [_event(call, server, event, whole, details) for event in events]
    return {"instanceAction": shown}


def explanation(call: Call) -> dict[str, Any]:
    """Why the server is where it is: ours, upstream has none."""
    return {"explanation": explain.explain(call.caller, call.path["id"])}


def _event(call: Call, server: Row, event: dict[str, Any], whole: bool, details: bool) -> dict[str, Any]:
    shown = {"event": event["event"], "start_time": micro(event["start_time"]), "finish_time": micro(event["finish_time"]), "result": event["result"]}
    if whole:
        shown["traceback"] = event["traceback"]
    if call.version >= (2, 62):
        host = event["host"] or server.host
        shown["hostId"] = hashlib.sha224(f"{server.project_id}{host}".encode()).hexdigest() if host else ""
        if whole:
            shown["host"] = host or ""
    return shown | ({"details": event["details"]} if details else {})
