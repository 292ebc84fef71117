"""Imports, locations, and the tasks that they are."""

from typing import Any
from urllib.parse import urlencode

from nacre.core.errors import BadRequest, MethodNotAllowed
from nacre.core.http import Call
from nacre.image.bodies import tasks as bodies
from nacre.image.schema.check import check
from nacre.image.schema.images import LOCATION
from nacre.image.service import imports, locations, tasks


def import_image(call: Call) -> None:
    imports.begin(call.caller, call.path["image_id"], call.body, call.headers.get("x-image-meta-store"))


def add_location(call: Call) -> None:
    check(LOCATION, call.body)
    locations.add(call.caller, call.path["image_id"], call.body["url"], call.body.get("validation_data") or {})


def list_locations(call: Call) -> list[dict[str, Any]]:
    return locations.listed(call.caller, call.path["image_id"])


def tasks_of_image(call: Call) -> dict[str, Any]:
    return {"tasks": [bodies.task(row) for row in tasks.of_image(call.caller, call.path["image_id"])]}


def list_tasks(call: Call) -> dict[str, Any]:
    rows, more = tasks.listed(call.caller, call.query)
    pairs = [(name, value) for name, value in call.query.multi_items() if name != "marker"]
    first = "/v2/tasks" + (f"?{urlencode(pairs)}" if pairs else "")
    body = {"tasks": [bodies.stub(row) for row in rows], "first": first, "schema": "/v2/schemas/tasks"}
    if more:
        body["next"] = f"/v2/tasks?{urlencode([*pairs, ('marker', rows[-1].id)])}"
    return body


def show_task(call: Call) -> dict[str, Any]:
    return bodies.task(tasks.show(call.caller, call.path["task_id"]))


def no_new_task(call: Call) -> None:
    call.caller.require({})
    raise BadRequest("Tasks are made by imports: POST /v2/images/{image_id}/import makes one.")


def no_end_of_task(call: Call) -> None:
    call.caller.require({})
    raise MethodNotAllowed("Tasks are removed by themselves; they can only be read.")
