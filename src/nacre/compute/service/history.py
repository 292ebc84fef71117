"""Instance actions: what was asked of a server, under upstream's names; verbs without a task are journal lines.

A task is one event, the one in which upstream's compute service does the same; who looks for our own steps asks `nacre why`. A create
that found no host is the conductor's event, as clients expect.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.compute.service import servers
from nacre.core import db, journal, nodes, tasks
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, NotFound

_VERBS = ("lock", "unlock", "resetState", "addSecurityGroup", "removeSecurityGroup")
_ACTIONS = {"confirm_resize": "confirmResize", "revert_resize": "revertResize", "snapshot": "createImage", "backup": "createBackup"}
_EVENTS = {"create": "compute__do_build_and_run_instance", "delete": "compute_terminate_instance", "createImage": "compute_snapshot_instance",
           "createBackup": "compute_backup_instance",
           "confirmResize": "compute_confirm_resize", "revertResize": "compute_revert_resize", "resize": "compute_prep_resize",
           "attach_interface": "compute_attach_interface", "detach_interface": "compute_detach_interface"}  # fmt: skip
_UNPLACED = "conductor_schedule_and_build_instances"


@dataclass(frozen=True)
class Action:
    """`task`: its row, None for a verb that took one transaction."""

    name: str
    request_id: str
    user_id: str | None
    project_id: str | None
    started: datetime
    updated: datetime
    message: str | None
    task: db.Row | None


def _actions(conn: db.Conn, server_id: str) -> list[Action]:
    """Newest first."""
    found = [
        Action(_name(row), row.request_id, row.user_id, row.project_id, row.created_at, row.updated_at,
               "Error" if row.error else None, row)
        for row in tasks.history(conn, f"server:{server_id}")
    ]  # fmt: skip
    lines = sa.select(journal.lines).where(journal.lines.c.kind == "server", journal.lines.c.resource_id == server_id,
                                           journal.lines.c.action.in_(_VERBS))
    found += [Action(row.action, row.request_id, row.user_id, row.project_id, row.at, row.at, None, None) for row in conn.execute(lines)]
    return sorted(found, key=lambda action: action.started, reverse=True)


def listed(caller: Caller, server_id: str, *, deleted: bool, between: tuple[datetime | None, datetime | None], limit: int | None,
           marker: str | None) -> tuple[db.Row, list[Action], bool]:  # fmt: skip
    """(server, actions, whether more follow)."""
    with caller.read() as conn:
        row = servers.visible(conn, caller, server_id, deleted=deleted)
        found = _actions(conn, row.id)
    since, before = between
    found = [a for a in found if (since is None or a.updated >= since) and (before is None or a.updated <= before)]
    if marker is not None:
        at = next((n for n, action in enumerate(found) if action.request_id == marker), None)
        if at is None:
            raise BadRequest(f"marker [{marker}] not found")
        found = found[at + 1 :]
    return (row, found[:limit], len(found) > limit) if limit is not None else (row, found, False)


def show(caller: Caller, server_id: str, request_id: str, *, deleted: bool) -> tuple[db.Row, Action, list[dict[str, Any]]]:
    """(server, action, its events as upstream names their fields)."""
    with caller.read() as conn:
        row = servers.visible(conn, caller, server_id, deleted=deleted)
        action = next((a for a in _actions(conn, row.id) if a.request_id == request_id), None)
        if action is None:
            raise NotFound(f"Action {request_id} not found")
        events = [] if action.task is None else [_event(conn, action.name, action.task)]
    return row, action, events


def _name(task: db.Row) -> str:
    word = str(task.kind).removeprefix("compute.").removesuffix("_server")
    return _ACTIONS.get(word, word)


def _event(conn: db.Conn, name: str, task: db.Row) -> dict[str, Any]:
    steps = [step for step in tasks.steps_of(conn, task.id) if not step.name.startswith("undo:")]
    unplaced = name == "create" and task.error and not any((step.result or {}).get("host") for step in steps if step.name.startswith("schedule"))
    host = next((step.host for step in steps if step.host), None) or task.args.get("host")
    failed = [nodes.outcome(conn, step.call_id) for step in steps if step.call_id is not None]
    told = next((f"{error}\n{trace or ''}".strip() for state, _, error, trace in failed if state == "failed"), None)
    if task.error and told is None:
        told = f"{task.error['message']}\n{task.error['detail']}".strip()
    result = "Error" if task.error else "Success" if task.finished_at is not None else None
    return {"event": _UNPLACED if unplaced else _EVENTS.get(name, f"compute_{name}_instance"), "start_time": task.created_at,
            "finish_time": task.finished_at, "result": result, "traceback": told if task.error else None, "host": host,
            "details": told.splitlines()[0] if task.error and told else None}  # fmt: skip
