"""Subnet pools, and the ranges that are cut of them.

Races: who cuts locks the pool's row first, so two never see the same range free (on SQLite writers queue anyway).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.network.faults import fault, refused
from nacre.network.plan import pools as plan
from nacre.network.plan import subnets as subnet_plan
from nacre.network.service import records
from nacre.network.service.kinds import POOL
from nacre.network.service.records import Record
from nacre.network.tables.pools import pools
from nacre.network.tables.wires import subnets

Wanted = Mapping[str, Any]
_DEFAULTS: dict[str, Any] = {"shared": False, "is_default": False}
_LENGTHS = ("min_prefixlen", "max_prefixlen", "default_prefixlen")


def create(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none. Raises what `plan.pools` refuses."""
    made = []
    with caller.write() as tx:
        for one in wanted:
            project = records.project_of(caller, one)
            target = {"project_id": project, "tenant_id": project, "shared": one.get("shared", False)}
            records.permit(caller, "create_subnetpool", target, one, _DEFAULTS)
            prefixes = plan.prefixes(one["prefixes"])
            version = 6 if ":" in prefixes[0] else 4
            if one.get("is_default"):
                _only_default(tx, version)
            row = records.new(tx, project, one)
            tx.insert(pools, **row, ip_version=version, prefixes=prefixes, **plan.lengths(version, one), default_quota=one.get("default_quota"),
                      shared=one.get("shared", False), is_default=one.get("is_default", False))  # fmt: skip
            journal.changed(tx, "subnetpool", row["id"], "create")
            made.append(row["id"])
        return records.by_ids(tx, POOL, made)


def _only_default(tx: db.Tx, version: int) -> None:
    """The index decides: who meets it is run anew and finds the other here."""
    if _default(tx, version) is not None:
        raise refused("A default subnetpool for this IP family has already been set. Only one default may exist per IP family")


def _default(tx: db.Tx, version: int) -> str | None:
    return tx.scalar(sa.select(pools.c.id).where(pools.c.ip_version == version, pools.c.is_default))  # type: ignore[no-any-return]


def update(caller: Caller, pool_id: str, wanted: Wanted) -> Record:
    """Raises IllegalSubnetPoolPrefixUpdate when it would not hold all that it did, and what `plan.pools` refuses."""
    with caller.write() as tx:
        pool = records.held(tx, caller, POOL, pool_id)
        records.permit(caller, "update_subnetpool", POOL.target(pool), wanted)
        values = {name: wanted[name] for name in ("name", "description", "default_quota", "is_default") if name in wanted}
        if wanted.get("prefixes") is not None:
            values["prefixes"] = plan.prefixes(wanted["prefixes"])
            plan.grown(pool["prefixes"], values["prefixes"])
        if values.get("is_default") and not pool["is_default"]:
            _only_default(tx, pool["ip_version"])
        lengths = {name: wanted[name] for name in _LENGTHS if wanted.get(name) is not None}
        values |= plan.lengths(pool["ip_version"], {**pool, **lengths}) if lengths else {}
        records.touch(tx, POOL, pool_id, **values)
        return records.by_ids(tx, POOL, [pool_id])[0]


def delete(caller: Caller, pool_id: str) -> None:
    """Raises SubnetPoolDeleteError while subnets are cut of it."""
    with caller.write() as tx:
        pool = records.held(tx, caller, POOL, pool_id, "delete")
        caller.require(POOL.target(pool))
        if tx.first(sa.select(subnets.c.id).where(subnets.c.subnetpool_id == pool_id).limit(1)) is not None:
            raise fault("SubnetPoolDeleteError", reason="Subnet pool has existing allocations")
        records.deleted(tx, POOL, pool_id)


def cut(tx: db.Tx, caller: Caller, project_id: str, wanted: Wanted) -> tuple[str | None, str | None]:
    """(pool, range) of a subnet to be; (None, what was said) for one of no pool. Raises upstream's refusals."""
    pool_id, version = wanted.get("subnetpool_id"), wanted["ip_version"]
    if wanted.get("use_default_subnetpool") and not pool_id:
        pool_id = _default(tx, version)
        if pool_id is None:
            raise refused(f"No default subnetpool found for IPv{version}")
    if not pool_id:
        return None, wanted.get("cidr")
    pool = records.held(tx, caller, POOL, pool_id)
    if pool["ip_version"] != version:
        raise refused("Cannot allocate IPv{} subnet from IPv{} subnet pool".format(version, pool["ip_version"]))
    cuts = tx.all(sa.select(subnets.c.cidr, subnets.c.project_id).where(subnets.c.subnetpool_id == pool_id))
    taken = [row.cidr for row in cuts]
    if wanted.get("cidr"):
        asked = subnet_plan.cidr(wanted["cidr"], version)
        plan.fits(asked.prefixlen, pool)
        plan.check_free(asked, pool["prefixes"], taken)
        found = str(asked)
    else:
        length = pool["default_prefixlen"] if wanted.get("prefixlen") is None else wanted["prefixlen"]
        plan.fits(length, pool)
        found = plan.free(pool["prefixes"], taken, length)
    used = sum(plan.weight(row.cidr) for row in cuts if row.project_id == project_id)
    if pool["default_quota"] is not None and used + plan.weight(found) > pool["default_quota"]:
        raise fault("SubnetPoolQuotaExceeded")
    return str(pool_id), found
