"""Subnet pools."""

from typing import Any

from nacre.core.http import Call
from nacre.network.api import Wire
from nacre.network.bodies import changed
from nacre.network.bodies import pools as bodies
from nacre.network.service import pools
from nacre.network.service.kinds import POOL

POOLS = Wire(POOL, "subnetpools", bodies.pool)


def create_pools(call: Call) -> dict[str, Any]:
    return POOLS.create(call, pools.create)


def update_pool(call: Call) -> dict[str, Any]:
    return POOLS.one(call, pools.update(call.caller, call.path["id"], changed(call.body)))


def delete_pool(call: Call) -> None:
    pools.delete(call.caller, call.path["id"])
