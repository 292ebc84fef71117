"""What imports are under way: the tasks of this service, read only. They are made by imports; nobody makes one by itself."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from starlette.datastructures import QueryParams

from nacre.core import db, paging, tasks
from nacre.core.caller import Caller
from nacre.core.errors import NotFound
from nacre.image import filters
from nacre.image.service import access

KINDS = {"image.import": "api_image_import", "image.locate": "location_import"}
_STATES = {"pending": ("queued",), "processing": ("running", "parked"), "success": ("done",), "failure": ("failed",)}
STATUS = {state: status for status, states in _STATES.items() for state in states}


def _ours() -> sa.Select[Any]:
    return sa.select(tasks.tasks).where(tasks.tasks.c.kind.in_(KINDS))


def listed(caller: Caller, query: QueryParams) -> tuple[list[db.Row], bool]:
    """The page's tasks, and whether more follow. Raises BadRequest."""
    caller.require({})
    page = filters.tasks_page(query, caller.cloud.config.DEFAULT)
    wanted = _ours()
    for name in ("status", "type"):
        if query.get(name):
            filters.task_filter(name, query[name])
            inner = tasks.tasks.c.state.in_(_STATES.get(query[name], ())) if name == "status" else sa.false()
            wanted = wanted.where(inner)
    with caller.read() as conn:
        return paging.take(conn, wanted, tasks.tasks, page)


def show(caller: Caller, task_id: str) -> db.Row:
    caller.require({})
    with caller.read() as conn:
        row = conn.execute(_ours().where(tasks.tasks.c.id == task_id)).first()
    if row is None:
        raise NotFound(f"No task found with ID {task_id}")
    return row


def of_image(caller: Caller, image_id: str) -> Sequence[db.Row]:
    """The image's tasks, the newest first."""
    with caller.read() as conn:
        _, whole = access.load(conn, caller, image_id)
        caller.require(whole)
        return list(conn.execute(_ours().where(tasks.tasks.c.resource == f"image:{image_id}").order_by(tasks.tasks.c.seq.desc())))
