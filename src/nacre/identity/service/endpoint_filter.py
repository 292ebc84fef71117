"""Which endpoints the catalogs of a project show: all, or once it is given some (one by one, or by a group that names what they must be),
these alone. A catalog is read with what tokens are checked against, so a change counts up the identity epoch.
"""

from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import Conflict, NotFound
from nacre.identity import tables
from nacre.identity.service import directory, tags
from nacre.identity.service.directory import ENDPOINTS, PROJECTS, Kind, Record, Wanted

GROUPS = Kind("endpoint_group", tables.endpoint_groups, ("name",), path="OS-EP-FILTER/endpoint_groups")
_TABLES = {"endpoint": tables.project_endpoints, "group": tables.project_endpoint_groups}
_KINDS = {"endpoint": ENDPOINTS, "group": GROUPS}


def create(caller: Caller, wanted: Wanted) -> Record:
    caller.require(GROUPS.target(wanted))
    with caller.write() as tx:
        made = directory.insert(tx, GROUPS, {"description": None, **wanted})
        tables.bump_epoch(tx)
        return made


def update(caller: Caller, row_id: str, wanted: Wanted) -> Record:
    """What is null stays as it is: the usual client says so. Raises NotFound."""
    with caller.write() as tx:
        said = {name: value for name, value in wanted.items() if value is not None}
        return directory.update(tx, GROUPS, directory.load(tx, caller, GROUPS, row_id), said)


def delete(caller: Caller, row_id: str) -> None:
    """Raises NotFound."""
    with caller.write() as tx:
        directory.load(tx, caller, GROUPS, row_id)
        directory.delete(tx, GROUPS, row_id)


def _both(conn: db.Conn, caller: Caller, project_id: str, what: str, row_id: str) -> dict[str, Any]:
    """Raises Forbidden, NotFound."""
    caller.require({})
    for kind, wanted in ((_KINDS[what], row_id), (PROJECTS, project_id)):
        directory.existing(conn, kind, wanted)
    return {"project_id": project_id, f"{what}_id": row_id}


def _there(conn: db.Conn, what: str, key: dict[str, Any]) -> bool:
    table = _TABLES[what]
    return conn.execute(sa.select(table).where(*(table.c[name] == value for name, value in key.items()))).first() is not None


def _absent(what: str, key: dict[str, Any]) -> NotFound:
    return NotFound(f"Could not find {what} {key[f'{what}_id']} in project {key['project_id']}.")


def add(caller: Caller, project_id: str, what: str, row_id: str) -> None:
    """`what` is endpoint or group. Raises NotFound, Conflict."""
    with caller.write() as tx:
        key = _both(tx, caller, project_id, what, row_id)
        if _there(tx, what, key):
            raise Conflict(f"Conflict occurred attempting to store project_{what} - Duplicate entry of {row_id} in project {project_id}.")
        tx.insert(_TABLES[what], **key)
        _changed(tx, project_id, f"add_{what}", row_id)


def check(caller: Caller, project_id: str, what: str, row_id: str) -> None:
    """Raises NotFound."""
    with caller.read() as conn:
        key = _both(conn, caller, project_id, what, row_id)
        if not _there(conn, what, key):
            raise _absent(what, key)


def remove(caller: Caller, project_id: str, what: str, row_id: str) -> None:
    """Raises NotFound."""
    with caller.write() as tx:
        key = _both(tx, caller, project_id, what, row_id)
        if not tx.delete(_TABLES[what], **key):
            raise _absent(what, key)
        _changed(tx, project_id, f"remove_{what}", row_id)


def _changed(tx: db.Tx, project_id: str, action: str, row_id: str) -> None:
    journal.changed(tx, "project", project_id, action, values={"id": row_id})
    tables.bump_epoch(tx)


def projects_of(caller: Caller, what: str, row_id: str) -> list[Record]:
    """The projects that have an endpoint, or a group. Raises NotFound."""
    with caller.read() as conn:
        caller.require({})
        directory.existing(conn, _KINDS[what], row_id)
        inside = sa.select(_TABLES[what].c.project_id).where(_TABLES[what].c[f"{what}_id"] == row_id)
        rows = conn.execute(sa.select(tables.projects).where(tables.projects.c.id.in_(inside)).order_by(tables.projects.c.name))
        return tags.shown(conn, [directory.record(row) for row in rows])


def groups_of(caller: Caller, project_id: str) -> list[Record]:
    """Raises NotFound."""
    with caller.read() as conn:
        caller.require({})
        directory.existing(conn, PROJECTS, project_id)
        return [directory.record(row) for row in conn.execute(_groups().where(tables.project_endpoint_groups.c.project_id == project_id))]


def _groups() -> sa.Select[Any]:
    join = tables.endpoint_groups.join(tables.project_endpoint_groups, tables.project_endpoint_groups.c.group_id == tables.endpoint_groups.c.id)
    return sa.select(tables.endpoint_groups).select_from(join).order_by(tables.endpoint_groups.c.name)


def endpoints_of_group(caller: Caller, row_id: str) -> list[Record]:
    """Raises NotFound."""
    with caller.read() as conn:
        caller.require({})
        group = directory.existing(conn, GROUPS, row_id)
        return [directory.record(row) for row in conn.execute(sa.select(tables.endpoints)) if _fits(row, group.filters)]


def _fits(endpoint: db.Row, filters: dict[str, str]) -> bool:
    return all(endpoint._mapping[name] == value for name, value in filters.items())


def endpoints_of(caller: Caller, project_id: str) -> list[Record]:
    """Those given to a project, one by one or by a group. Raises NotFound."""
    with caller.read() as conn:
        caller.require({})
        directory.existing(conn, PROJECTS, project_id)
        given = restricted(conn).get(project_id, set())
        return [directory.record(row) for row in conn.execute(sa.select(tables.endpoints).where(tables.endpoints.c.id.in_(given)))]


def restricted(conn: db.Conn) -> dict[str, set[str]]:
    """Project -> the endpoints that it was given; only projects that were given some."""
    found: dict[str, set[str]] = {}
    for row in conn.execute(sa.select(tables.project_endpoints)):
        found.setdefault(row.project_id, set()).add(row.endpoint_id)
    grouped = list(conn.execute(_groups().add_columns(tables.project_endpoint_groups.c.project_id)))
    endpoints = list(conn.execute(sa.select(tables.endpoints))) if grouped else []
    for row in grouped:
        fitting = {endpoint.id for endpoint in endpoints if _fits(endpoint, row.filters)}
        if fitting:
            found.setdefault(row.project_id, set()).update(fitting)
    return found
