"""Server groups: servers that are to be together or apart. A server is in the group that its create named, until it is deleted; the
scheduler decides with the group's row locked, so two members cannot both take the last host that suits one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.compute.service import quotas
from nacre.compute.tables import server_groups, servers
from nacre.core import db, ids, journal, quota
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, NotFound, OverQuota


@dataclass(frozen=True)
class Group:
    row: db.Row
    members: Sequence[str]


def _visible(conn: db.Conn, caller: Caller, group_id: str) -> db.Row:
    row = conn.execute(sa.select(server_groups).where(server_groups.c.id == group_id)).first()
    if row is None or (row.project_id != caller.project_id and not caller.allowed(caller.rule, {"project_id": row.project_id})):
        caller.asked.add(caller.rule)
        raise NotFound(f"Instance group {group_id} could not be found.")
    caller.require({"project_id": row.project_id})
    return row


def _members(conn: db.Conn, group_ids: Sequence[str]) -> dict[str, list[str]]:
    query = sa.select(servers.c.id, servers.c.group_id).where(servers.c.group_id.in_(group_ids), servers.c.deleted_at.is_(None))
    found: dict[str, list[str]] = {group_id: [] for group_id in group_ids}
    for row in conn.execute(query.order_by(servers.c.number)):
        found[row.group_id].append(row.id)
    return found


def create(caller: Caller, name: str, policy: str, rules: Mapping[str, Any]) -> Group:
    caller.require({"project_id": caller.project_id})
    project = caller.project_id or ""
    with caller.write() as tx:
        quota.lock(tx, project)
        allowed = quotas.limits(tx, project)["server_groups"]
        have = tx.scalar(sa.select(sa.func.count()).where(server_groups.c.project_id == project))
        if 0 <= allowed <= have:
            raise OverQuota("Quota exceeded, too many server groups.", kind="ServerGroupLimitExceeded", status=403)
        group_id = ids.uuid()
        tx.insert(server_groups, id=group_id, project_id=project, user_id=caller.user_id, name=name, policy=policy, rules=dict(rules),
                  created_at=tx.now)  # fmt: skip
        journal.changed(tx, "server_group", group_id, "create", ("name", "policy"), {"name": name})
        return Group(_visible(tx, caller, group_id), ())


def listed(caller: Caller, all_projects: bool) -> list[Group]:
    caller.require({"project_id": caller.project_id})
    if all_projects:
        caller.require({}, rule="os_compute_api:os-server-groups:index:all_projects")
    query = sa.select(server_groups).order_by(server_groups.c.created_at, server_groups.c.id)
    with caller.read() as conn:
        rows = list(conn.execute(query if all_projects else query.where(server_groups.c.project_id == caller.project_id)))
        members = _members(conn, [row.id for row in rows])
    return [Group(row, members[row.id]) for row in rows]


def show(caller: Caller, group_id: str) -> Group:
    with caller.read() as conn:
        row = _visible(conn, caller, group_id)
        return Group(row, _members(conn, [group_id])[group_id])


def delete(caller: Caller, group_id: str) -> None:
    """Its servers stay as they are."""
    with caller.write() as tx:
        tx.lock(sa.select(server_groups.c.id).where(server_groups.c.id == group_id))
        row = _visible(tx, caller, group_id)
        tx.execute(servers.update().where(servers.c.group_id == row.id).values(group_id=None))
        tx.delete(server_groups, id=row.id)
        journal.changed(tx, "server_group", row.id, "delete")


def joining(tx: db.Tx, caller: Caller, hint: Any, more: int) -> str | None:
    """The group that a create names, if it takes `more` servers. Raises BadRequest, OverQuota."""
    if hint is None:
        return None
    row = tx.lock(sa.select(server_groups).where(server_groups.c.id == str(hint)))
    if row is None or row.project_id != caller.project_id:
        raise BadRequest(f"Instance group {hint} could not be found.", kind="InstanceGroupNotFound")
    allowed = quotas.limits(tx, row.project_id)["server_group_members"]
    if 0 <= allowed < len(_members(tx, [row.id])[row.id]) + more:
        raise OverQuota("Quota exceeded, too many servers in group", kind="ServerGroupMemberLimitExceeded", status=403)
    return str(row.id)
