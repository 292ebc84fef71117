"""What hosts are told: every kind of wanted document but `server`, rendered from rows (docs/node-contract.md has the shapes).

Each renderer takes ids and makes their bodies in a fixed number of queries, however many ids there are; an id that is gone is left out.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core.node_api import Render
from nacre.network.tables.routing import floating_ips, interfaces, router_hosts, routers
from nacre.network.tables.security import groups, members, rules
from nacre.network.tables.wires import DHCP_PORT, ROUTER_GATEWAY, addresses, bindings, dhcp_servers, networks, ports, subnets, switches

Bodies = Mapping[str, Any]
Rows = dict[str, list[Any]]
_DEFAULT_MAPPINGS = {"external": "br-ex"}
_DEFAULT_DOMAIN = "openstacklocal"


def mappings_of(row: Any) -> dict[str, str]:
    """physical network -> bridge of a host's row; before the configuration was looked at, and without a row, the usual ones."""
    return dict(row.options.get("bridge_mappings", _DEFAULT_MAPPINGS)) if row is not None else dict(_DEFAULT_MAPPINGS)


def _by(conn: sa.Connection, select: sa.Select[Any], key: str) -> Rows:
    found: Rows = defaultdict(list)
    for row in conn.execute(select):
        found[getattr(row, key)].append(row)
    return found


def _fixed(conn: sa.Connection, where: Sequence[sa.ColumnElement[bool]]) -> Rows:
    """port id -> its addresses with the prefix of their subnet; `where` is over ports and addresses."""
    query = (sa.select(addresses.c.port_id, addresses.c.address, addresses.c.subnet_id, subnets.c.cidr)
             .join(ports, ports.c.id == addresses.c.port_id).join(subnets, subnets.c.id == addresses.c.subnet_id)
             .where(*where).order_by(addresses.c.port_id, addresses.c.position))  # fmt: skip
    return _by(conn, query, "port_id")


def _plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"ip_address": row.address, "subnet_id": row.subnet_id} for row in rows]


def _with_prefix(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"ip_address": row.address, "prefixlen": int(row.cidr.partition("/")[2]), "subnet_id": row.subnet_id} for row in rows]


def hosts(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    rows = {row.host: row for row in conn.execute(sa.select(switches).order_by(switches.c.host))}
    peers = [{"host": row.host, "tunnel_ip": row.tunnel_ip} for row in rows.values() if row.tunnel_ip]
    return {id_: {
        "tunnel_ip": rows[id_].tunnel_ip if id_ in rows else None, "bridge_mappings": mappings_of(rows.get(id_)),
        "peers": [peer for peer in peers if peer["host"] != id_],
    } for id_ in ids}  # fmt: skip


def outside(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    query = (sa.select(networks.c.physical_network, subnets.c.gateway_ip, subnets.c.cidr).join(subnets, subnets.c.network_id == networks.c.id)
             .where(networks.c.external, networks.c.physical_network.in_(ids), subnets.c.gateway_ip.is_not(None)).order_by(subnets.c.id))  # fmt: skip
    found = _by(conn, query, "physical_network")
    return {id_: {"addresses": [f"{row.gateway_ip}/{row.cidr.partition('/')[2]}" for row in found[id_]]} for id_ in ids}


def guest_ports(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    fixed = _fixed(conn, [ports.c.id.in_(ids)])
    inside = _by(conn, sa.select(members).where(members.c.port_id.in_(ids)).order_by(members.c.position), "port_id")
    return {row.id: {
        "network_id": row.network_id, "mac_address": row.mac_address, "tap": f"tap{row.id[:11]}", "admin_state_up": row.admin_state_up,
        "port_security": row.port_security_enabled, "fixed_ips": _plain(fixed[row.id]),
        "allowed_address_pairs": [{"ip_address": pair["ip_address"], "mac_address": pair.get("mac_address", row.mac_address)}
                                  for pair in row.allowed_address_pairs],
        "security_groups": [member.group_id for member in inside[row.id]], "device_id": row.device_id, "device_owner": row.device_owner,
    } for row in conn.execute(sa.select(ports).where(ports.c.id.in_(ids)))}  # fmt: skip


def whole_networks(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    under = _by(conn, sa.select(subnets).where(subnets.c.network_id.in_(ids)).order_by(subnets.c.created_at, subnets.c.id), "network_id")
    names = ("id", "cidr", "ip_version", "gateway_ip", "enable_dhcp", "dns_nameservers", "host_routes", "ipv6_ra_mode", "ipv6_address_mode")
    return {row.id: {
        "network_type": row.network_type, "physical_network": row.physical_network, "segmentation_id": row.segmentation_id, "mtu": row.mtu,
        "admin_state_up": row.admin_state_up, "subnets": [{name: getattr(subnet, name) for name in names} for subnet in under[row.id]],
    } for row in conn.execute(sa.select(networks).where(networks.c.id.in_(ids)))}  # fmt: skip


def dhcp(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    on = [ports.c.network_id.in_(ids), sa.or_(ports.c.device_owner == DHCP_PORT, ~ports.c.device_owner.like("network:%"))]
    everybody = _by(conn, sa.select(ports).where(*on).order_by(ports.c.created_at, ports.c.id), "network_id")
    fixed = _fixed(conn, on)
    servers = sa.select(dhcp_servers.c.network_id, switches.c.options).outerjoin(switches, switches.c.host == dhcp_servers.c.host)
    bodies = {}
    for row in conn.execute(servers.where(dhcp_servers.c.network_id.in_(ids))):
        own = next((port for port in everybody[row.network_id] if port.device_owner == DHCP_PORT), None)
        if own is None:
            continue
        bodies[row.network_id] = {
            "network_id": row.network_id, "dns_domain": (row.options or {}).get("dns_domain", _DEFAULT_DOMAIN),
            "port": {"id": own.id, "mac_address": own.mac_address, "fixed_ips": _with_prefix(fixed[own.id])},
            "hosts": [{"port_id": port.id, "mac_address": port.mac_address, "hostname": hostname(port.dns_name, fixed[port.id]),
                       "fixed_ips": _plain(fixed[port.id])}
                      for port in everybody[row.network_id] if port.device_owner != DHCP_PORT and fixed[port.id]],
        }  # fmt: skip
    return bodies


def hostname(dns_name: str, fixed: Sequence[Any]) -> str:
    """The name by which a port's addresses are known: its own, or made of the first address."""
    return dns_name or "host-" + ipaddress.ip_address(fixed[0].address).compressed.replace(".", "-").replace(":", "-")


def whole_routers(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    rows = {row.id: row for row in conn.execute(sa.select(routers).where(routers.c.id.in_(ids)))}
    names = (ports.c.id, ports.c.network_id, ports.c.mac_address, ports.c.created_at, interfaces.c.router_id)
    inner = sa.select(*names).join(interfaces, interfaces.c.port_id == ports.c.id).where(interfaces.c.router_id.in_(ids)).distinct()
    legs = _by(conn, inner.order_by(ports.c.created_at, ports.c.id), "router_id")
    fixed = _fixed(conn, [ports.c.device_id.in_(ids)])
    outer = {row.id: row for row in conn.execute(sa.select(ports).where(ports.c.device_id.in_(ids), ports.c.device_owner == ROUTER_GATEWAY))}
    floating = _by(conn, sa.select(floating_ips).where(floating_ips.c.router_id.in_(ids)).order_by(floating_ips.c.id), "router_id")
    beyond = _by(conn, sa.select(subnets).where(subnets.c.network_id.in_([row.gateway_network_id for row in rows.values()])), "network_id")
    return {id_: {
        "admin_state_up": row.admin_state_up, "routes": row.routes,
        "interfaces": [_leg(leg, fixed) for leg in legs[id_]],
        "gateway": _gateway(row, outer.get(row.gateway_port_id), fixed, beyond[row.gateway_network_id]),
        "floating_ips": [{"id": one.id, "floating_ip_address": one.address, "fixed_ip_address": one.fixed_ip_address} for one in floating[id_]],
    } for id_, row in rows.items()}  # fmt: skip


def _leg(port: Any, fixed: Rows) -> dict[str, Any]:
    return {"port_id": port.id, "network_id": port.network_id, "mac_address": port.mac_address, "fixed_ips": _with_prefix(fixed[port.id])}


def _gateway(router: Any, port: Any, fixed: Rows, beyond: Sequence[Any]) -> dict[str, Any] | None:
    """`gateway_ips`: the way out of each subnet that the gateway's port has an address of."""
    if port is None:
        return None
    on = [one.subnet_id for one in fixed[port.id]]
    ways = {subnet.id: subnet.gateway_ip for subnet in beyond if subnet.gateway_ip}
    return {**_leg(port, fixed), "enable_snat": router.enable_snat, "gateway_ips": [ways[id_] for id_ in on if id_ in ways]}


def security_groups(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    inside = _by(conn, sa.select(rules).where(rules.c.security_group_id.in_(ids)).order_by(rules.c.created_at, rules.c.id), "security_group_id")
    names = ("id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id")
    return {row.id: {"stateful": row.stateful, "rules": [{name: getattr(rule, name) for name in names} for rule in inside[row.id]]}
            for row in conn.execute(sa.select(groups.c.id, groups.c.stateful).where(groups.c.id.in_(ids)))}  # fmt: skip


def address_sets(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    """All that members of a group may send from: their addresses and their allowed pairs."""
    here = sa.select(members.c.group_id, addresses.c.address).join(addresses, addresses.c.port_id == members.c.port_id)
    fixed = _by(conn, here.where(members.c.group_id.in_(ids)), "group_id")
    there = sa.select(members.c.group_id, ports.c.allowed_address_pairs).join(ports, ports.c.id == members.c.port_id)
    allowed = _by(conn, there.where(members.c.group_id.in_(ids)), "group_id")
    return {id_: {"addresses": sorted({row.address for row in fixed[id_]}
                                      | {pair["ip_address"] for row in allowed[id_] for pair in row.allowed_address_pairs})}
            for id_ in conn.execute(sa.select(groups.c.id).where(groups.c.id.in_(ids))).scalars()}  # fmt: skip


def forwarding(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    """Where each MAC address of a network is; a host passes over its own."""
    names = (ports.c.id, ports.c.network_id, ports.c.mac_address)
    places = sa.union_all(
        sa.select(*names, bindings.c.host).join(bindings, bindings.c.port_id == ports.c.id)
        .where(ports.c.network_id.in_(ids), bindings.c.status == "ACTIVE"),
        sa.select(*names, dhcp_servers.c.host).join(dhcp_servers, dhcp_servers.c.network_id == ports.c.network_id)
        .where(ports.c.network_id.in_(ids), ports.c.device_owner == DHCP_PORT),
        sa.select(*names, router_hosts.c.host).join(interfaces, interfaces.c.port_id == ports.c.id)
        .join(router_hosts, router_hosts.c.router_id == interfaces.c.router_id).where(ports.c.network_id.in_(ids)).distinct(),
        sa.select(*names, router_hosts.c.host).join(routers, routers.c.gateway_port_id == ports.c.id)
        .join(router_hosts, router_hosts.c.router_id == routers.c.id).where(ports.c.network_id.in_(ids)),
    ).subquery()  # fmt: skip
    query = sa.select(places, switches.c.tunnel_ip).join(switches, switches.c.host == places.c.host).where(switches.c.tunnel_ip.is_not(None))
    found, fixed = _by(conn, query.order_by(places.c.id), "network_id"), _fixed(conn, [ports.c.network_id.in_(ids)])
    return {id_: {"entries": [{
        "mac_address": row.mac_address, "ip_addresses": [one.address for one in fixed[row.id]], "tunnel_ip": row.tunnel_ip, "host": row.host,
    } for row in found[id_]]} for id_ in ids}  # fmt: skip


DOCUMENTS: dict[str, Render] = {
    "host": hosts, "outside": outside, "port": guest_ports, "network": whole_networks, "dhcp": dhcp, "router": whole_routers,
    "security_group": security_groups, "address_set": address_sets, "forwarding": forwarding,
}  # fmt: skip
