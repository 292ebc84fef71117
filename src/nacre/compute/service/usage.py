"""What projects used: the hours of their servers in a period, by the flavor that each has now. Read from the servers' own rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from nacre.compute.tables import servers
from nacre.core import db
from nacre.core.caller import Caller


@dataclass(frozen=True)
class Used:
    """One server in the period: `hours` of it, from `launched_at` until `ended_at` (None: it is there)."""

    row: db.Row
    hours: float
    uptime: int


def of_projects(caller: Caller, start: datetime, stop: datetime) -> dict[str, list[Used]]:
    """Project id -> its servers."""
    caller.require({})
    with caller.read() as conn:
        return _by_project(list(conn.execute(_query(start, stop))), start, stop)


def of_project(caller: Caller, project_id: str, start: datetime, stop: datetime) -> list[Used]:
    caller.require({"project_id": project_id})
    with caller.read() as conn:
        rows = list(conn.execute(_query(start, stop).where(servers.c.project_id == project_id)))
    return _by_project(rows, start, stop).get(project_id, [])


def _query(start: datetime, stop: datetime) -> sa.Select[tuple[object, ...]]:
    there = sa.and_(servers.c.launched_at.is_not(None), servers.c.launched_at < stop)
    return sa.select(servers).where(there, sa.or_(servers.c.terminated_at.is_(None), servers.c.terminated_at > start)).order_by(servers.c.number)


def _by_project(rows: Sequence[db.Row], start: datetime, stop: datetime) -> dict[str, list[Used]]:
    found: dict[str, list[Used]] = {}
    for row in rows:
        found.setdefault(row.project_id, []).append(used(row, start, stop))
    return found


def used(row: db.Row, start: datetime, stop: datetime) -> Used:
    """The part of a server's life that lies between the two."""
    ended = row.terminated_at or stop
    hours = max(0.0, (min(ended, stop) - max(row.launched_at, start)).total_seconds() / 3600)
    return Used(row, hours, int((ended - row.launched_at).total_seconds()))
