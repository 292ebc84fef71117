"""The openvswitch mechanism: how a host with Open vSwitch and our agent wires ports.

    bind(conn, port, host)     whether and how the host can plug the port
    DOCUMENTS                  what its agent is told (mechanisms/documents.py)
    status(conn, port_id)      what its agent reported
    agents(conn)               the agents that upstream would show for it
    reported(tx, host, seen)   a node's report: its address in the tunnels' mesh

A host's address may change; then the `host` documents of all change (they are each other's peers) and the `forwarding` of the networks
on it. That is written in the report's transaction and only when the address differs from the row's.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.core import db, nodes
from nacre.network.mechanisms.documents import DOCUMENTS, mappings_of
from nacre.network.plan.segments import TUNNELS
from nacre.network.tables.routing import floating_ips, interfaces, router_hosts, routers
from nacre.network.tables.wires import dhcp_servers, networks, port_status, ports, subnets, switches

__all__ = ["DOCUMENTS", "agents", "bind", "reported", "status"]


@dataclass(frozen=True)
class Binding:
    """`vif_type` "ovs", or "binding_failed"."""

    vif_type: str
    details: Mapping[str, Any] = field(default_factory=dict)


def bind(conn: db.Conn, port: Mapping[str, Any], host: str) -> Binding:
    network = conn.execute(sa.select(networks).where(networks.c.id == port["network_id"])).one()
    row = conn.execute(sa.select(switches).where(switches.c.host == host)).first()
    if row is None or (network.network_type in TUNNELS and not row.tunnel_ip):
        return Binding("binding_failed")
    if network.physical_network and network.physical_network not in mappings_of(row):
        return Binding("binding_failed")
    return Binding("ovs", {"connectivity": "l2", "port_filter": True, "ovs_hybrid_plug": False, "datapath_type": "system",
                           "bridge_name": "br-int", "bound_drivers": {"0": "openvswitch"}})  # fmt: skip


def status(conn: db.Conn, port_id: str) -> str:
    return str(conn.execute(sa.select(port_status()).where(ports.c.id == port_id)).scalar() or "DOWN")


def reported(tx: db.Tx, host: str, seen: Mapping[str, Any]) -> None:
    row = tx.first(sa.select(switches).where(switches.c.host == host))
    address = seen.get("address")
    if row is not None and row.tunnel_ip == address:
        return
    if row is None:
        tx.insert(switches, host=host, tunnel_ip=address, options={})
        for physical in mappings_of(None):
            nodes.hold(tx, host, "outside", physical)
    else:
        tx.update(switches, {"host": host}, tunnel_ip=address)
    for (name,) in tx.all(sa.select(switches.c.host)):
        nodes.bump(tx, "host", name)
    held = sa.select(nodes.holders.c.id).where(nodes.holders.c.host == host, nodes.holders.c.kind == "forwarding")
    for network_id in tx.conn.execute(held).scalars().all():
        nodes.bump(tx, "forwarding", network_id)
    tx.ring("network-hosts")


@dataclass(frozen=True)
class _Agent:
    key: str
    kind: str
    binary: str
    topic: str
    zone: str | None


_AGENTS = (
    _Agent("openvswitch", "Open vSwitch agent", "neutron-openvswitch-agent", "N/A", None),
    _Agent("dhcp", "DHCP agent", "neutron-dhcp-agent", "dhcp_agent", "nova"),
    _Agent("l3", "L3 agent", "neutron-l3-agent", "l3_agent", "nova"),
    _Agent("metadata", "Metadata agent", "neutron-metadata-agent", "N/A", None),
)


def agent_id(host_id: str, key: str) -> str:
    return str(uuid.uuid5(uuid.UUID(host_id), key))


def _time(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else None


def agents(conn: db.Conn) -> list[dict[str, Any]]:
    """In upstream's shape, from the hosts and their reports."""
    counts = _counts(conn)
    rows = {row.host: row for row in conn.execute(sa.select(switches))}
    found = []
    for host in nodes.all_hosts(conn):
        for agent in _AGENTS:
            if agent.key not in host.agents:
                continue
            found.append({
                "id": agent_id(host.id, agent.key), "agent_type": agent.kind, "binary": agent.binary, "topic": agent.topic, "host": host.name,
                "availability_zone": agent.zone, "admin_state_up": True, "alive": nodes.alive(host) and bool(host.agents[agent.key]),
                "created_at": _time(host.created_at), "started_at": _time(host.created_at), "heartbeat_timestamp": _time(host.last_seen),
                "description": None, "resources_synced": None, "configurations": _configuration(agent.key, rows.get(host.name), counts),
            })  # fmt: skip
    return found


def _configuration(key: str, row: db.Row | None, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    def count(name: str) -> int:
        return counts[name].get(row.host, 0) if row is not None else 0

    if key == "openvswitch":
        return {"bridge_mappings": mappings_of(row), "tunnel_types": list(TUNNELS), "tunneling_ip": row.tunnel_ip if row else None,
                "datapath_type": "system", "integration_bridge": "br-int", "devices": count("ports"), "l2_population": True,
                "arp_responder_enabled": False, "in_distributed_mode": False}  # fmt: skip
    if key == "dhcp":
        return {"dhcp_driver": "neutron.agent.linux.dhcp.Dnsmasq", "networks": count("networks"), "subnets": count("subnets"),
                "ports": count("ports"), "dhcp_lease_duration": 86400}  # fmt: skip
    if key == "l3":
        return {"agent_mode": "legacy", "routers": count("routers"), "interfaces": count("interfaces"), "ex_gw_ports": count("gateways"),
                "floating_ips": count("floating_ips"), "handle_internal_only_routers": True}  # fmt: skip
    return {}


def _counts(conn: db.Conn) -> dict[str, dict[str, int]]:
    """What is where: name -> host -> how many."""
    def by(column: sa.Column[Any], source: Any) -> dict[str, int]:
        query = sa.select(column, sa.func.count()).select_from(source).where(column.is_not(None), column != "").group_by(column)
        return {row[0]: row[1] for row in conn.execute(query)}

    placed = router_hosts.join(routers, routers.c.id == router_hosts.c.router_id)
    return {
        "ports": by(ports.c.host, ports),
        "networks": by(dhcp_servers.c.host, dhcp_servers),
        "subnets": by(dhcp_servers.c.host, dhcp_servers.join(subnets, subnets.c.network_id == dhcp_servers.c.network_id)),
        "routers": by(router_hosts.c.host, router_hosts),
        "interfaces": by(router_hosts.c.host, router_hosts.join(interfaces, interfaces.c.router_id == router_hosts.c.router_id)),
        "gateways": by(router_hosts.c.host, placed.join(networks, networks.c.id == routers.c.gateway_network_id)),
        "floating_ips": by(router_hosts.c.host, router_hosts.join(floating_ips, floating_ips.c.router_id == router_hosts.c.router_id)),
    }  # fmt: skip
