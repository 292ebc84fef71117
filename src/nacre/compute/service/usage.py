"""What projects used: the hours of their servers in a period, by the flavor that each has now. Read from the servers' own rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from nacre.compute.tables import servers
from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest


@dataclass(frozen=True)
class Used:
    """One server in the period: `hours` of it, from `launched_at` until `ended_at` (None: it is there)."""

    row: db.Row
    hours: float
    uptime: int


@dataclass(frozen=True)
class Period:
    """What is asked for: servers that ran between the two, a page of them (`marker`: the last server of the page before)."""

    start: datetime
    stop: datetime
    limit: int | None = None
    marker: str | None = None


def of_projects(caller: Caller, period: Period) -> tuple[dict[str, list[Used]], str | None]:
    """(project id -> its servers, the marker of the next page)."""
    caller.require({})
    return _found(caller, period, sa.true())


def of_project(caller: Caller, project_id: str, period: Period) -> tuple[list[Used], str | None]:
    caller.require({"project_id": project_id})
    found, following = _found(caller, period, servers.c.project_id == project_id)
    return found.get(project_id, []), following


def _found(caller: Caller, period: Period, where: sa.ColumnElement[bool]) -> tuple[dict[str, list[Used]], str | None]:
    c, limit = servers.c, period.limit
    there = sa.and_(c.launched_at.is_not(None), c.launched_at < period.stop, sa.or_(c.terminated_at.is_(None), c.terminated_at > period.start))
    query = sa.select(servers).where(there, where).order_by(c.number)
    with caller.read() as conn:
        if period.marker is not None:
            after = conn.execute(sa.select(c.number).where(c.id == period.marker, where)).scalar()
            if after is None:
                raise BadRequest(f"marker [{period.marker}] not found")
            query = query.where(c.number > after)
        rows = list(conn.execute(query if limit is None else query.limit(limit + 1)))
    page = rows if limit is None else rows[:limit]
    return _by_project(page, period.start, period.stop), page[-1].id if page and len(page) < len(rows) else None


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
