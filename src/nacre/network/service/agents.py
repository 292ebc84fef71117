"""What runs where, as upstream's agents: read from hosts and their reports."""

from typing import Any

import sqlalchemy as sa

from nacre.core.caller import Caller
from nacre.network.faults import fault
from nacre.network.mechanisms import openvswitch
from nacre.network.service import records
from nacre.network.service.kinds import NETWORK, ROUTER
from nacre.network.service.records import Record
from nacre.network.tables.routing import router_hosts
from nacre.network.tables.wires import dhcp_servers

Agent = dict[str, Any]


def listed(caller: Caller) -> list[Agent]:
    """None for who may see none, as upstream's lists are."""
    caller.asked.add("get_agent")
    if not caller.allowed("get_agent", {}):
        return []
    with caller.read() as conn:
        return openvswitch.agents(conn)


def show(caller: Caller, agent_id: str) -> Agent:
    for agent in listed(caller):
        if agent["id"] == agent_id:
            return agent
    raise fault("AgentNotFound", id=agent_id)


def of_network(caller: Caller, network_id: str) -> list[Agent]:
    """The DHCP agents that serve it."""
    caller.require({})
    with caller.read() as conn:
        records.visible(conn, caller, NETWORK, network_id)
        host = conn.execute(sa.select(dhcp_servers.c.host).where(dhcp_servers.c.network_id == network_id)).scalar()
        return [agent for agent in openvswitch.agents(conn) if agent["host"] == host and agent["topic"] == "dhcp_agent"]


def of_router(caller: Caller, router_id: str) -> list[Agent]:
    """The L3 agents that hold it."""
    caller.require({})
    with caller.read() as conn:
        router = records.visible(conn, caller, ROUTER, router_id)
        return [{**agent, "ha_state": None} for agent in openvswitch.agents(conn)
                if agent["host"] == router["host"] and agent["topic"] == "l3_agent"]  # fmt: skip


def networks_on(caller: Caller, agent_id: str) -> list[Record]:
    caller.require({})
    with caller.read() as conn:
        host = _host(openvswitch.agents(conn), agent_id, "dhcp_agent")
        ids = conn.execute(sa.select(dhcp_servers.c.network_id).where(dhcp_servers.c.host == host)).scalars().all()
        return records.by_ids(conn, NETWORK, ids)


def routers_on(caller: Caller, agent_id: str) -> list[Record]:
    caller.require({})
    with caller.read() as conn:
        host = _host(openvswitch.agents(conn), agent_id, "l3_agent")
        ids = conn.execute(sa.select(router_hosts.c.router_id).where(router_hosts.c.host == host)).scalars().all()
        return records.by_ids(conn, ROUTER, ids)


def _host(agents: list[Agent], agent_id: str, topic: str) -> str:
    for agent in agents:
        if agent["id"] == agent_id and agent["topic"] == topic:
            return str(agent["host"])
    raise fault("AgentNotFound", id=agent_id)


def zones(caller: Caller) -> list[dict[str, str]]:
    """One availability zone, for networks and for routers."""
    caller.require({})
    return [{"name": "nova", "resource": resource, "state": "available"} for resource in ("network", "router")]
