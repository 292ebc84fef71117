"""Why something is as it is: the timeline of a request (timeline.py) under `GET /nacre/v1/why/<request id | resource id>`.

A resource's answer lists the requests that touched it, newest first, and has the timeline of the last (`?request=` chooses another).
Who asks sees the requests of their own project; names of hosts, commands and logs are for administrators (`nacre:why:details`). What
one may not see is not there (404), as if nobody knew of it. `nacre why` asks here, too, as the system.
"""

from typing import Any

from nacre.core import nodes, timeline
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import Error, NotFound
from nacre.core.http import Call, Route, Service

WHY, DETAILS = "nacre:why", "nacre:why:details"
RULES = {WHY: "(role:reader and project_id:%(project_id)s) or role:admin", DETAILS: "role:admin"}


def tell(cloud: Cloud, name: str, chosen: str | None = None, caller: Caller | None = None) -> dict[str, Any]:
    """The answer about a request or a resource; `caller` None sees everything. Raises NotFound."""
    with cloud.db.read() as conn:
        mine = [one for one in timeline.requests_of(conn, name) if _may(caller, one.project_id)]
        request_id = chosen if chosen is not None else mine[0].id if mine else name
        known, project = timeline.project_of(conn, request_id)
        whole = caller is None or caller.allowed(DETAILS)
        if (not known and not whole) or not _may(caller, project) or (chosen is not None and all(one.id != chosen for one in mine)):
            raise _unknown(chosen or name)
        events = timeline.of_request(conn, cloud.home.reach / "logs", request_id, everywhere=whole)
        if not events:
            raise _unknown(chosen or name)
        hosts = [row.name for row in nodes.all_hosts(conn)]
        documents = [one if whole else {"kind": one["kind"], "true": one["true"]} for one in timeline.held(conn, name)] if mine else []
    return {"id": name, "request_id": request_id, "requests": [timeline.asked(one) for one in mine], "documents": documents,
            "events": timeline.shown(events, whole=whole, hosts=hosts)}  # fmt: skip


def _may(caller: Caller | None, project_id: str | None) -> bool:
    return caller is None or caller.allowed(WHY, {"project_id": project_id})


def _unknown(name: str) -> NotFound:
    return NotFound(f"Nothing is known of {name}: it is no id of a request or resource, or what is kept of it is gone.")


def _show(call: Call) -> dict[str, Any]:
    call.caller.require()
    return {"why": tell(call.cloud, call.path["id"], call.query.get("request"), call.caller)}


def _render_error(error: Error, request_id: str) -> dict[str, Any]:
    return {"error": {"code": error.code, "title": error.name, "message": error.message}}


SERVICE = Service(
    name="nacre", type="", prefix="/nacre", rules=RULES, render_error=_render_error,
    routes=(Route("GET", "/v1/why/{id}", _show, WHY),),
)  # fmt: skip
