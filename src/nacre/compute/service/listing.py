"""Lists of servers: upstream's filters, and what a page of servers needs besides its rows.

Filters become SQL, except addresses, which are the network's: then the project's servers are read, matched by their ports, and paged by
id. `Detail` is everything that rendering needs, read with one statement a kind for the whole page; two are equal when they look the same.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa

from nacre import network
from nacre.compute import states, tables
from nacre.compute.service import hosts, servers
from nacre.compute.tables import server_tags
from nacre.compute.tables import servers as table
from nacre.core import db, paging, patterns
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Forbidden
from nacre.core.statements import Statement, given, given_list

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

_WHOLE = tuple(table.c.keys())
_LISTED, _NOT_DELETED = sa.select(table.c.id, table.c.name), table.c.deleted_at.is_(None)
_OF_PROJECT = _LISTED.where(table.c.project_id == given("project"), _NOT_DELETED)


class Detail(msgspec.Struct, frozen=True):
    """A server and what is shown with it. `row`: its columns, and `power` as it was seen; `addresses` and `groups` from the network;
    `host_alive` None: it has no host."""

    row: db.Row
    tags: Sequence[str]
    addresses: tuple[db.Row, ...]
    groups: tuple[str, ...]
    host_alive: bool | None
    hypervisor: str | None


def listed(caller: Caller, page: paging.Page, filters: Mapping[str, Any], all_projects: bool) -> tuple[list[db.Row], bool]:
    """Id and name of the servers that match `filters` (wire names, values as decoded by the api) of the caller's project, or of all."""
    with caller.read() as conn:
        return _page(conn, caller, page, filters, all_projects)


def detailed(caller: Caller, page: paging.Page, filters: Mapping[str, Any], all_projects: bool,
             columns: tuple[str, ...]) -> tuple[list[Detail], bool]:  # fmt: skip
    """The same with `columns` of their rows, and what is shown with them."""
    with caller.read() as conn:
        found, more = _page(conn, caller, page, filters, all_projects)
        return _details(conn, [row.id for row in found], columns), more


def _page(conn: db.Conn, caller: Caller, page: paging.Page, filters: Mapping[str, Any], all_projects: bool) -> tuple[list[db.Row], bool]:
    caller.require({"project_id": caller.project_id, "user_id": caller.user_id})
    if all_projects:
        caller.require({}, rule=f"{caller.rule}:get_all_tenants")
    elif not filters and caller.project_id:
        return paging.take(conn, _OF_PROJECT, table, page, given={"project": caller.project_id})
    wanted = [_condition(caller, name, value) for name, value in filters.items()]
    if not all_projects:
        wanted.append(table.c.project_id == caller.project_id if caller.project_id else table.c.user_id == caller.user_id)
    if "changes-since" not in filters and "changes-before" not in filters and "deleted" not in filters and not _deleted_only(filters):
        wanted.append(_NOT_DELETED)
    return paging.take(conn, _by_address(conn, _LISTED.where(*wanted), filters), table, page)


@cache
def _shown(columns: tuple[str, ...]) -> Statement:
    query = sa.select(*(table.c[name] for name in columns), tables.server_seen.c.power)
    query = query.outerjoin_from(table, tables.server_seen, tables.server_seen.c.server_id == table.c.id)
    return Statement(query.where(table.c.id.in_(given_list("ids"))), lazy=True)


def _deleted_only(filters: Mapping[str, Any]) -> bool:
    return {pair[0] for pair in filters.get("status", ())} == {states.DELETED}


def _condition(caller: Caller, name: str, value: Any) -> Any:
    if name in _EXACT:
        return table.c[_EXACT[name]].in_(value if isinstance(value, list) else [value])
    if name in _REGEX:
        _pattern(name, value)
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


def _pattern(name: str, text: str) -> re.Pattern[str]:
    try:
        return patterns.checked(text)
    except ValueError as error:
        raise BadRequest(f"Invalid input for query parameters {name}. Value: {text}. '{text}' {error}") from error


def _tagged(name: str, wanted: Sequence[str]) -> sa.ColumnElement[bool]:
    having = [sa.exists().where(server_tags.c.server_id == table.c.id, server_tags.c.tag == tag) for tag in wanted]
    whole: sa.ColumnElement[bool] = sa.or_(*having) if name.endswith("any") else sa.and_(*having)
    return ~whole if name.startswith("not") else whole


def _by_address(conn: db.Conn, query: sa.Select[Any], filters: Mapping[str, Any]) -> sa.Select[Any]:
    wanted = [(4 if name == "ip" else 6, filters[name]) for name in ("ip", "ip6") if name in filters]
    if not wanted:
        return query
    sought = [(version, _pattern("ip" if version == 4 else "ip6", text)) for version, text in wanted]
    found = [row.id for row in conn.execute(query)]
    seen = network.seen_of(conn, found)
    matching = [server_id for server_id in found if all(
        any(pattern.match(address) for address in _addresses(seen.get(server_id), version)) for version, pattern in sought)]  # fmt: skip
    return query.where(table.c.id.in_(matching))


def _addresses(seen: tuple[tuple[db.Row, ...], tuple[str, ...]] | None, version: int) -> list[str]:
    both = [address for row in seen[0] for address in (row.address, row.floating)] if seen else []
    return [address for address in both if address and (":" in address) == (version == 6)]


def _details(conn: db.Conn, ids: Sequence[str], columns: tuple[str, ...]) -> list[Detail]:
    rows = {row.id: row for row in _shown(columns).rows(conn, ids=ids)}
    tags, seen = tables.tags_of(conn, ids), network.seen_of(conn, ids)
    alive = hosts.alive(conn, {row.host for row in rows.values() if row.host})
    return [
        Detail(rows[id_], tags.get(id_, ()), *seen.get(id_, ((), ())), *alive.get(rows[id_].host or "", (None, None)))
        for id_ in ids if id_ in rows
    ]  # fmt: skip


def detail(caller: Caller, server_id: str) -> Detail:
    with caller.read() as conn:
        return _details(conn, [servers.visible(conn, caller, server_id).id], _WHOLE)[0]
