"""Routers and floating IPs."""

from typing import Any

from nacre.core.http import Call
from nacre.network.api import Wire
from nacre.network.bodies import changed, given
from nacre.network.bodies import routing as bodies
from nacre.network.service import floating_ips, routers
from nacre.network.service.kinds import FLOATING_IP, ROUTER

ROUTERS = Wire(ROUTER, "routers", bodies.router)
FLOATING_IPS = Wire(FLOATING_IP, "floatingips", bodies.floating_ip)


def create_routers(call: Call) -> dict[str, Any]:
    return ROUTERS.create(call, lambda caller, wanted: [routers.create(caller, bodies.with_gateway(one)) for one in wanted])


def update_router(call: Call) -> dict[str, Any]:
    return ROUTERS.one(call, routers.update(call.caller, call.path["id"], bodies.with_gateway(changed(call.body))))


def delete_router(call: Call) -> None:
    routers.delete(call.caller, call.path["id"])


def add_interface(call: Call) -> dict[str, Any]:
    return routers.add_interface(call.caller, call.path["id"], given(call.body))


def remove_interface(call: Call) -> dict[str, Any]:
    return routers.remove_interface(call.caller, call.path["id"], given(call.body))


def create_floating_ips(call: Call) -> dict[str, Any]:
    return FLOATING_IPS.create(call, lambda caller, wanted: [floating_ips.create(caller, one) for one in wanted])


def update_floating_ip(call: Call) -> dict[str, Any]:
    return FLOATING_IPS.one(call, floating_ips.update(call.caller, call.path["id"], changed(call.body)))


def delete_floating_ip(call: Call) -> None:
    floating_ips.delete(call.caller, call.path["id"])
