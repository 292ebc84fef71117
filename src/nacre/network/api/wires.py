"""Networks, subnets and ports."""

from typing import Any

from nacre.core.http import Call
from nacre.network.api import Wire
from nacre.network.bodies import changed
from nacre.network.bodies import wires as bodies
from nacre.network.service import networks, ports, subnets
from nacre.network.service.kinds import NETWORK, PORT, SUBNET

NETWORKS = Wire(NETWORK, "networks", bodies.network)
SUBNETS = Wire(SUBNET, "subnets", bodies.subnet)
PORTS = Wire(PORT, "ports", bodies.port)


def create_networks(call: Call) -> dict[str, Any]:
    return NETWORKS.create(call, networks.create)


def update_network(call: Call) -> dict[str, Any]:
    return NETWORKS.one(call, networks.update(call.caller, call.path["id"], changed(call.body)))


def delete_network(call: Call) -> None:
    networks.delete(call.caller, call.path["id"])


def create_subnets(call: Call) -> dict[str, Any]:
    return SUBNETS.create(call, subnets.create)


def update_subnet(call: Call) -> dict[str, Any]:
    return SUBNETS.one(call, subnets.update(call.caller, call.path["id"], changed(call.body)))


def delete_subnet(call: Call) -> None:
    subnets.delete(call.caller, call.path["id"])


def create_ports(call: Call) -> dict[str, Any]:
    return PORTS.create(call, ports.create)


def update_port(call: Call) -> dict[str, Any]:
    return PORTS.one(call, ports.update(call.caller, call.path["id"], changed(call.body)))


def delete_port(call: Call) -> None:
    ports.delete(call.caller, call.path["id"])
