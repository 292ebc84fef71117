"""The scheduling of one server, explained: the decision that was kept when it was placed or refused, and, while it has no host, what every
filter says of every host now with the smallest change that would fit.

Its owner learns how many hosts said what and what they can change; which hosts those are is an administrator's (`...:explain:details`).
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.compute import explanation, scheduling, states, tables
from nacre.compute.service import servers
from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import NotFound

DETAILS = "os_compute_api:servers:explain:details"


def explain(caller: Caller, server_id: str) -> dict[str, Any]:
    """What the caller may know of it."""
    with caller.read() as conn:
        row = servers.visible(conn, caller, server_id)
        return _told(conn, caller.cloud, row, caller.allowed(DETAILS, servers.target(row)))


def explain_all(cloud: Cloud, server_id: str) -> dict[str, Any]:
    """Everything, as the system. Raises NotFound."""
    with cloud.db.read() as conn:
        row = tables.by_id(conn, server_id)
        if row is None:
            raise NotFound(f"Instance {server_id} could not be found.")
        return _told(conn, cloud, row, True)


def _told(conn: db.Conn, cloud: Cloud, row: db.Row, whole: bool) -> dict[str, Any]:
    kept = conn.execute(sa.select(tables.server_decisions).where(tables.server_decisions.c.server_id == row.id)).first()
    told = {"server_id": row.id, "name": row.name, "status": states.status(row.vm_state, row.task_state), "placed": row.host is not None,
            "wanted": scheduling.resources(row), "decision": None if kept is None else _decision(kept, whole)}  # fmt: skip
    if whole:
        told["host"] = row.host
    return told if row.host is not None else told | {"now": _now(conn, cloud, row, whole)}


def _decision(kept: db.Row, whole: bool) -> Mapping[str, Any]:
    body = kept.body
    told = {"at": kept.at.isoformat(timespec="microseconds") + "Z", "request_id": kept.request_id, "placed": kept.host is not None,
            "wanted": body["wanted"], "could": len(body["candidates"])}  # fmt: skip
    if not whole:
        return told | {"refused": explanation.grouped(body["refused"]), "more": body["more"]}
    refused = [{"host": host, "filter": name, "reason": why} for host, name, why in body["refused"]]
    return told | {"host": kept.host, "candidates": body["candidates"], "refused": refused, "more": body["more"]}


def _now(conn: db.Conn, cloud: Cloud, row: db.Row, whole: bool) -> Mapping[str, Any]:
    request = scheduling.request_of(conn, row, {})
    hosts, filters = scheduling.hosts(conn, request.resources), cloud.config.filter_scheduler.enabled_filters
    found = {host.name: explanation.verdicts(host, request, filters) for host in hosts}
    fits = sum(all(verdict.reason is None for verdict in each) for each in found.values())
    owner, admin = explanation.smallest(hosts, request, filters, scheduling.rooms(conn, request.resources), {})
    told = {"hosts": len(hosts), "fits": fits, "change": None if fits else owner or None}
    if not whole:
        failed = [(name, verdict.filter, verdict.reason) for name, each in found.items() for verdict in each if verdict.reason is not None]
        return told | {"refused": explanation.grouped(failed)}
    verdicts = {name: [{"filter": verdict.filter, "reason": verdict.reason} for verdict in each] for name, each in sorted(found.items())}
    return told | {"verdicts": verdicts, "admin_change": None if fits else admin or None}
