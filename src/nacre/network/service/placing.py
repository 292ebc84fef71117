"""Where DHCP servers and routers run: a binding row each, written in the transaction that makes it needed when a host is alive, else by
the loop `reschedule`, which also moves off hosts that died. A network's DHCP server is needed while a subnet of it enables DHCP; a
router's place while it has an interface or a way out.
"""

import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from nacre.core import db, nodes, tasks
from nacre.network.plan import scheduling
from nacre.network.service import making, records, wiring
from nacre.network.service.making import NewPort
from nacre.network.tables.routing import interfaces, router_hosts, routers
from nacre.network.tables.wires import DHCP_PORT, ROUTER_PORTS, dhcp_servers, networks, ports, subnets


def alive_hosts(conn: db.Conn, agent: str) -> list[str]:
    """Hosts heard of lately whose `agent` ("dhcp", "l3") works."""
    return [row.name for row in nodes.all_hosts(conn) if nodes.alive(row) and row.agents.get(agent)]


def _fewest(conn: db.Conn, agent: str, table: sa.Table) -> str | None:
    load = sa.select(table.c.host, sa.func.count()).where(table.c.host.is_not(None)).group_by(table.c.host)
    return scheduling.choose(alive_hosts(conn, agent), {row[0]: row[1] for row in conn.execute(load)})


def dhcp_device(host: str | None, network_id: str) -> str:
    """device_id of a DHCP port, as upstream's agents write it."""
    return f"dhcp{uuid.uuid5(uuid.NAMESPACE_DNS, host.partition('.')[0])}-{network_id}" if host else "reserved_dhcp_port"


def dhcp_port(conn: db.Conn, network_id: str) -> str | None:
    where = sa.select(ports.c.id).where(ports.c.network_id == network_id, ports.c.device_owner == DHCP_PORT)
    return conn.execute(where.order_by(ports.c.created_at).limit(1)).scalar()


def settle_dhcp(tx: db.Tx, network_id: str) -> None:
    """After a change of a network's subnets: its DHCP server is, or is not, and has an address on each subnet that it serves."""
    served = list(tx.conn.execute(sa.select(subnets.c.id).where(subnets.c.network_id == network_id, subnets.c.enable_dhcp)
                                  .order_by(subnets.c.created_at, subnets.c.id)).scalars())  # fmt: skip
    row = tx.first(sa.select(dhcp_servers).where(dhcp_servers.c.network_id == network_id))
    if not served:
        if row is not None:
            remove_dhcp(tx, network_id)
        return
    host = row.host if row is not None else _fewest(tx, "dhcp", dhcp_servers)
    port_id, fixed = dhcp_port(tx, network_id), [{"subnet_id": id_} for id_ in served]
    if port_id is not None:
        making.set_addresses(tx, making.found(tx, port_id), fixed)
    else:
        project = tx.scalar(sa.select(networks.c.project_id).where(networks.c.id == network_id))
        making.make(tx, network_id, NewPort(project, DHCP_PORT, dhcp_device(host, network_id), fixed, host=host or ""))
    if row is not None:
        nodes.bump(tx, "dhcp", network_id)
        return
    tx.insert(dhcp_servers, network_id=network_id, host=None)
    place_dhcp(tx, network_id, None, host)


def remove_dhcp(tx: db.Tx, network_id: str) -> None:
    host = tx.scalar(sa.select(dhcp_servers.c.host).where(dhcp_servers.c.network_id == network_id))
    tx.delete(dhcp_servers, network_id=network_id)
    nodes.release(tx, "dhcp", network_id)
    for port_id in tx.conn.execute(sa.select(ports.c.id).where(ports.c.network_id == network_id, ports.c.device_owner == DHCP_PORT)).scalars().all():
        making.remove(tx, making.found(tx, port_id))
    if host is not None:
        wiring.settle_networks(tx, host, [network_id])


def place_dhcp(tx: db.Tx, network_id: str, old: str | None, new: str | None) -> bool:
    """Moves the DHCP server; False when it is not where it was thought to be."""
    records.lock(tx, networks, [network_id], "change")
    if not tx.update(dhcp_servers, {"network_id": network_id, "host": old}, host=new):
        return False
    port = {"network_id": network_id, "device_owner": DHCP_PORT}
    tx.update(ports, port, host=new or "", device_id=dhcp_device(new, network_id))
    if old is not None:
        nodes.release(tx, "dhcp", network_id, old)
        tasks.wake(tx, nodes.topic("dhcp", network_id))  # who waits for it there waits for the new one now
        wiring.settle_networks(tx, old, [network_id])
    if new is not None:
        nodes.hold(tx, new, "dhcp", network_id)
        wiring.settle_networks(tx, new, [network_id])
    nodes.bump(tx, "forwarding", network_id)
    return True


def settle_router(tx: db.Tx, router_id: str, touched: Sequence[str]) -> None:
    """After a router got or lost legs on networks `touched`: it has a place while it has legs, and that place has their networks."""
    legs = _legs(tx, router_id)
    row = tx.first(sa.select(router_hosts).where(router_hosts.c.router_id == router_id))
    if legs and row is None:
        tx.insert(router_hosts, router_id=router_id, host=None)
        place_router(tx, router_id, None, _fewest(tx, "l3", router_hosts))
        return
    if not legs and row is not None:
        remove_router(tx, router_id, touched)
        return
    nodes.bump(tx, "router", router_id)
    if row is not None and row.host is not None:
        tx.execute(ports.update().where(ports.c.device_id == router_id, ports.c.device_owner.in_(ROUTER_PORTS)).values(host=row.host))
        wiring.settle_networks(tx, row.host, touched)
    wiring.bump(tx, "forwarding", touched)


def remove_router(tx: db.Tx, router_id: str, touched: Sequence[str] = ()) -> None:
    host = tx.scalar(sa.select(router_hosts.c.host).where(router_hosts.c.router_id == router_id))
    left = [*_legs(tx, router_id), *touched]
    tx.delete(router_hosts, router_id=router_id)
    nodes.release(tx, "router", router_id)
    if host is not None:
        wiring.settle_networks(tx, host, left)
    wiring.bump(tx, "forwarding", left)


def _legs(conn: db.Conn, router_id: str) -> list[str]:
    """Networks that the router is on."""
    inner = sa.select(ports.c.network_id).join(interfaces, interfaces.c.port_id == ports.c.id).where(interfaces.c.router_id == router_id)
    outer = sa.select(routers.c.gateway_network_id).where(routers.c.id == router_id, routers.c.gateway_network_id.is_not(None))
    return [*conn.execute(inner.distinct()).scalars(), *conn.execute(outer).scalars()]


def place_router(tx: db.Tx, router_id: str, old: str | None, new: str | None) -> bool:
    """Moves the router; False when it is not where it was thought to be."""
    records.lock(tx, routers, [router_id], "change")
    if not tx.update(router_hosts, {"router_id": router_id, "host": old}, host=new):
        return False
    tx.execute(ports.update().where(ports.c.device_id == router_id, ports.c.device_owner.in_(ROUTER_PORTS)).values(host=new or ""))
    legs = _legs(tx, router_id)
    if old is not None:
        nodes.release(tx, "router", router_id, old)
        wiring.settle_networks(tx, old, legs)
    if new is not None:
        nodes.hold(tx, new, "router", router_id)
        wiring.settle_networks(tx, new, legs)
    wiring.bump(tx, "forwarding", legs)
    return True
