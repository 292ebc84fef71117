"""How much a project may have, counted from live rows (core.quota says how two creators meet)."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core import db, quota
from nacre.core.caller import Caller
from nacre.core.config import Config
from nacre.core.errors import BadRequest
from nacre.network.faults import fault, over_quota
from nacre.network.tables.routing import floating_ips, routers
from nacre.network.tables.security import groups, rules
from nacre.network.tables.wires import networks, ports, subnets

_TABLES = {
    "network": networks, "subnet": subnets, "port": ports, "router": routers, "floatingip": floating_ips,
    "security_group": groups, "security_group_rule": rules,
}  # fmt: skip


def defaults(config: Config) -> dict[str, int]:
    return {name: int(getattr(config.QUOTAS, f"quota_{name}")) for name in _TABLES}


def used(conn: db.Conn, project_id: str, resource: str) -> int:
    table = _TABLES[resource]
    return int(conn.execute(sa.select(sa.func.count()).select_from(table).where(table.c.project_id == project_id)).scalar_one())


def check(tx: db.Tx, config: Config, project_id: str, wanted: Mapping[str, int]) -> None:
    """Locks the project. Raises OverQuota (409) if `wanted` more would pass a limit."""
    allowed = quota.limits_of(tx, project_id, "network", defaults(config))
    quota.check(tx, project_id, allowed, wanted, lambda resource: used(tx, project_id, resource), over_quota)


def _target(project_id: str) -> dict[str, Any]:
    return {"project_id": project_id, "tenant_id": project_id}


def show(caller: Caller, project_id: str) -> dict[str, int]:
    caller.asked.add("get_quota")
    if project_id != caller.project_id:
        caller.require(_target(project_id), "get_quota")
    with caller.read() as conn:
        return quota.limits_of(conn, project_id, "network", defaults(caller.cloud.config))


def details(caller: Caller, project_id: str) -> dict[str, dict[str, int]]:
    """resource -> {"limit", "used", "reserved"}."""
    limits = show(caller, project_id)
    with caller.read() as conn:
        return {name: {"limit": limit, "used": used(conn, project_id, name), "reserved": 0} for name, limit in limits.items()}


def default(caller: Caller, project_id: str) -> dict[str, int]:
    caller.asked.add("get_quota")
    if project_id != caller.project_id:
        caller.require(_target(project_id), "get_quota")
    return defaults(caller.cloud.config)


def listed(caller: Caller) -> list[dict[str, Any]]:
    """Every project that has limits of its own."""
    caller.require(_target(""), "get_quota")
    with caller.read() as conn:
        asked = sa.select(quota.limits.c.project_id).where(quota.limits.c.service == "network").distinct().order_by("project_id")
        projects = list(conn.execute(asked).scalars())
        base = defaults(caller.cloud.config)
        return [{**quota.limits_of(conn, id_, "network", base), "project_id": id_, "tenant_id": id_} for id_ in projects]


def update(caller: Caller, project_id: str, wanted: Mapping[str, int], force: bool) -> dict[str, int]:
    """Raises BadRequest for a limit below what is used."""
    caller.require(_target(project_id), "update_quota")
    with caller.write() as tx:
        quota.lock(tx, project_id)
        for name, limit in wanted.items():
            have = used(tx, project_id, name)
            if 0 <= limit < have and not force:
                raise BadRequest(f"Quota limit {limit} for {name} must be greater than or equal to already used {have}",
                                 kind="HTTPBadRequest")  # fmt: skip
        quota.set_limits(tx, project_id, "network", wanted)
    return show(caller, project_id)


def reset(caller: Caller, project_id: str) -> None:
    """Back to the defaults. Raises ProjectQuotaNotFound when the project has no limits of its own."""
    caller.require(_target(project_id), "delete_quota")
    with caller.write() as tx:
        own = sa.select(quota.limits.c.resource).where(quota.limits.c.project_id == project_id, quota.limits.c.service == "network")
        if tx.first(own.limit(1)) is None:
            raise fault("ProjectQuotaNotFound", project_id=project_id)
        quota.reset(tx, project_id, "network")
