"""Lists of servers: upstream's filters, and what a page of servers needs besides its rows.

Filters become SQL, except addresses, which are the network's: then the project's servers are read, matched by their ports, and paged by
id. `Detail` is everything that rendering needs, read with one query a kind for the whole page.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre import network
from nacre.compute import states, tables
from nacre.compute.service import hosts, servers
from nacre.compute.tables import server_tags
from nacre.compute.tables import servers as table
from nacre.core import db, paging
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Forbidden

_SAME = ("access_ip_v4", "access_ip_v6", "availability_zone", "config_drive", "created_at", "description", "host", "hostname", "key_name",
         "launch_index",
         "launched_at", "locked_by", "project_id", "reservation_id", "root_device_name", "task_state", "terminated_at", "updated_at", "user_id",
         "vm_state", "disk_config")  # fmt: skip
SORTABLE = {name: name for name in _SAME} | {
    "id": "id", "uuid": "id", "display_name": "name", "name": "name", "display_description": "description", "image_ref": "image_id",
    "instance_type_id": "flavor_id", "node": "host", "auto_disk_config": "disk_config", "locked": "locked_by", "created": "created_at",
}  # fmt: skip
_EXACT = {"reservation_id": "reservation_id", "image": "image_id", "flavor": "flavor_id", "user_id": "user_id", "uuid": "id", "key_name": "key_name",
          "host": "host", "node": "host", "availability_zone": "availability_zone", "task_state": "task_state", "vm_state": "vm_state",
          "hostname": "hostname", "root_device_name": "root_device_name", "locked_by": "locked_by"}  # fmt: skip
_REGEX = {"name": "name", "display_name": "name", "description": "description", "display_description": "description"}


@dataclass(frozen=True)
class Detail:
    """A server and what is shown with it. `power`: as seen; `ports` from the network; `host_alive` None: it has no host."""

    row: db.Row
    power: str | None
    tags: Sequence[str]
    ports: Sequence[network.Port]
    host_alive: bool | None
    hypervisor: str | None


def listed(caller: Caller, page: paging.Page, filters: Mapping[str, Any], all_projects: bool, columns: Iterable[str]) -> tuple[list[db.Row], bool]:
    """`columns` of the servers that match `filters` (wire names, values as decoded by the api) of the caller's project, or of all."""
    caller.require({"project_id": caller.project_id, "user_id": caller.user_id})
    if all_projects:
        caller.require({}, rule=f"{caller.rule}:get_all_tenants")
    query = sa.select(*(table.c[name] for name in columns))
    if not all_projects:
        mine = table.c.project_id == caller.project_id if caller.project_id else table.c.user_id == caller.user_id
        query = query.where(mine)
    with caller.read() as conn:
        for name, value in filters.items():
            query = query.where(_condition(caller, name, value))
        if "changes-since" not in filters and "changes-before" not in filters and "deleted" not in filters and not _deleted_only(filters):
            query = query.where(table.c.deleted_at.is_(None))
        query = _by_address(conn, query, filters)
        return paging.take(conn, query, table, page)


def _deleted_only(filters: Mapping[str, Any]) -> bool:
    return {pair[0] for pair in filters.get("status", ())} == {states.DELETED}


def _condition(caller: Caller, name: str, value: Any) -> Any:
    if name in _EXACT:
        return table.c[_EXACT[name]].in_(value if isinstance(value, list) else [value])
    if name in _REGEX:
        try:
            re.compile(value)
        except re.error as error:
            raise BadRequest(f"Invalid input for query parameters {name}. Value: {value}. '{value}' is not a 'regex'") from error
        return table.c[_REGEX[name]].regexp_match(value)
    match name:
        case "status":
            if any(pair[0] == states.DELETED for pair in value) and not caller.is_admin:
                raise Forbidden("Only administrators may list deleted instances")
            return sa.or_(sa.false(), *(sa.and_(table.c.vm_state == vm, table.c.task_state.is_not_distinct_from(task)) for vm, task in value))
        case "changes-since":
            return table.c.updated_at >= value
        case "changes-before":
            return table.c.updated_at <= value
        case "deleted":
            return table.c.deleted_at.is_not(None) if value else table.c.deleted_at.is_(None)
        case "locked":
            return table.c.locked_by.is_not(None) if value else table.c.locked_by.is_(None)
        case "project_id":
            return table.c.project_id == value
        case "config_drive":
            return table.c.config_drive == ("True" if value else "")
        case "launch_index" | "created_at" | "launched_at" | "terminated_at":
            return table.c[name] == value
        case "power_state":
            seen = sa.select(tables.server_seen.c.server_id).where(tables.server_seen.c.power.in_([p for p, n in states.POWER.items() if n == value]))
            return table.c.id.in_(seen)
        case "tags" | "tags-any" | "not-tags" | "not-tags-any":
            return _tagged(name, value)
        case "progress":
            return sa.true() if value == 0 else sa.false()
    return sa.true()


def _tagged(name: str, wanted: Sequence[str]) -> sa.ColumnElement[bool]:
    having = [sa.exists().where(server_tags.c.server_id == table.c.id, server_tags.c.tag == tag) for tag in wanted]
    whole: sa.ColumnElement[bool] = sa.or_(*having) if name.endswith("any") else sa.and_(*having)
    return ~whole if name.startswith("not") else whole


def _by_address(conn: db.Conn, query: sa.Select[Any], filters: Mapping[str, Any]) -> sa.Select[Any]:
    wanted = [(4 if name == "ip" else 6, filters[name]) for name in ("ip", "ip6") if name in filters]
    if not wanted:
        return query
    try:
        patterns = [(version, re.compile(text)) for version, text in wanted]
    except re.error as error:
        raise BadRequest("Invalid input for query parameters ip. It is not a 'regex'") from error
    found = [row.id for row in conn.execute(query)]
    ports = network.ports_of(conn, found)
    matching = [server_id for server_id in found if all(
        any(pattern.match(address) for address in _addresses(ports.get(server_id, ()), version)) for version, pattern in patterns)]  # fmt: skip
    return query.where(table.c.id.in_(matching))


def _addresses(ports: Iterable[network.Port], version: int) -> list[str]:
    both = [address for port in ports for fixed in port.fixed_ips for address in (fixed["ip_address"], port.floating_ips.get(fixed["ip_address"]))]
    return [address for address in both if address and (":" in address) == (version == 6)]


def details(conn: db.Conn, rows: Sequence[db.Row]) -> list[Detail]:
    found = [row.id for row in rows]
    powers, tags, ports = tables.powers(conn, found), tables.tags_of(conn, found), network.ports_of(conn, found)
    alive = hosts.alive(conn, {row.host for row in rows if row.host})
    return [
        Detail(row, powers.get(row.id), tags.get(row.id, ()), ports.get(row.id, ()), *alive.get(row.host or "", (None, None)))
        for row in rows
    ]  # fmt: skip


def detail(caller: Caller, server_id: str) -> Detail:
    with caller.read() as conn:
        return details(conn, [servers.visible(conn, caller, server_id)])[0]


def detailed(caller: Caller, rows: Sequence[db.Row]) -> list[Detail]:
    with caller.read() as conn:
        return details(conn, rows)

