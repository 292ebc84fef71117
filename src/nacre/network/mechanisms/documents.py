"""What hosts are told: every kind of wanted document but `server`, rendered from rows (docs/node-contract.md has the shapes).

Each renderer takes ids and makes their bodies in a fixed number of queries, however many ids there are; an id that is gone is left out.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core.node_api import Render
from nacre.core.statements import Statement, given_list
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


def _by(conn: sa.Connection, select: Statement, key: str, ids: Collection[str]) -> Rows:
    found: Rows = defaultdict(list)
    for row in select.rows(conn, ids=ids):
        found[getattr(row, key)].append(row)
    return found


def _fixed(*where: sa.ColumnElement[bool]) -> Statement:
    """The addresses of ports with the prefix of their subnet; `where` is over ports and addresses."""
    return Statement(sa.select(addresses.c.port_id, addresses.c.address, addresses.c.subnet_id, subnets.c.cidr)
                     .join(ports, ports.c.id == addresses.c.port_id).join(subnets, subnets.c.id == addresses.c.subnet_id)
                     .where(*where).order_by(addresses.c.port_id, addresses.c.position))  # fmt: skip


_IDS = given_list("ids")


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


_OUTSIDE = Statement(
    sa.select(networks.c.physical_network, subnets.c.gateway_ip, subnets.c.cidr).join(subnets, subnets.c.network_id == networks.c.id)
    .where(networks.c.external, networks.c.physical_network.in_(_IDS), subnets.c.gateway_ip.is_not(None)).order_by(subnets.c.id))  # fmt: skip


def outside(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    found = _by(conn, _OUTSIDE, "physical_network", ids)
    return {id_: {"addresses": [f"{row.gateway_ip}/{row.cidr.partition('/')[2]}" for row in found[id_]]} for id_ in ids}


_PORTS = Statement(sa.select(ports).where(ports.c.id.in_(_IDS)))
_PORTS_FIXED = _fixed(ports.c.id.in_(_IDS))
_MEMBERS = Statement(sa.select(members).where(members.c.port_id.in_(_IDS)).order_by(members.c.position))


def guest_ports(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    fixed, inside = _by(conn, _PORTS_FIXED, "port_id", ids), _by(conn, _MEMBERS, "port_id", ids)
    return {row.id: {
        "network_id": row.network_id, "mac_address": row.mac_address, "tap": f"tap{row.id[:11]}", "admin_state_up": row.admin_state_up,
        "port_security": row.port_security_enabled, "fixed_ips": _plain(fixed[row.id]),
        "allowed_address_pairs": [{"ip_address": pair["ip_address"], "mac_address": pair.get("mac_address", row.mac_address)}
                                  for pair in row.allowed_address_pairs],
        "security_groups": [member.group_id for member in inside[row.id]], "device_id": row.device_id, "device_owner": row.device_owner,
    } for row in _PORTS.rows(conn, ids=ids)}  # fmt: skip


_NETWORKS = Statement(sa.select(networks).where(networks.c.id.in_(_IDS)))
_SUBNETS = Statement(sa.select(subnets).where(subnets.c.network_id.in_(_IDS)).order_by(subnets.c.created_at, subnets.c.id))


def whole_networks(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    under = _by(conn, _SUBNETS, "network_id", ids)
    names = ("id", "cidr", "ip_version", "gateway_ip", "enable_dhcp", "dns_nameservers", "host_routes", "ipv6_ra_mode", "ipv6_address_mode")
    return {row.id: {
        "network_type": row.network_type, "physical_network": row.physical_network, "segmentation_id": row.segmentation_id, "mtu": row.mtu,
        "admin_state_up": row.admin_state_up, "subnets": [{name: getattr(subnet, name) for name in names} for subnet in under[row.id]],
    } for row in _NETWORKS.rows(conn, ids=ids)}  # fmt: skip


_leased = (ports.c.network_id.in_(_IDS), sa.or_(ports.c.device_owner == DHCP_PORT, ~ports.c.device_owner.like("network:%")))
_LEASED = Statement(sa.select(ports).where(*_leased).order_by(ports.c.created_at, ports.c.id))
_LEASED_FIXED = _fixed(*_leased)
_DHCP_SERVERS = Statement(sa.select(dhcp_servers.c.network_id, switches.c.options)
                          .outerjoin(switches, switches.c.host == dhcp_servers.c.host).where(dhcp_servers.c.network_id.in_(_IDS)))  # fmt: skip


def dhcp(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    everybody, fixed = _by(conn, _LEASED, "network_id", ids), _by(conn, _LEASED_FIXED, "port_id", ids)
    bodies = {}
    for row in _DHCP_SERVERS.rows(conn, ids=ids):
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


_ROUTERS = Statement(sa.select(routers).where(routers.c.id.in_(_IDS)))
_LEGS = Statement(
    sa.select(ports.c.id, ports.c.network_id, ports.c.mac_address, ports.c.created_at, interfaces.c.router_id)
    .join(interfaces, interfaces.c.port_id == ports.c.id).where(interfaces.c.router_id.in_(_IDS)).distinct()
    .order_by(ports.c.created_at, ports.c.id))  # fmt: skip
_ROUTERS_FIXED = _fixed(ports.c.device_id.in_(_IDS))
_GATEWAYS = Statement(sa.select(ports).where(ports.c.device_id.in_(_IDS), ports.c.device_owner == ROUTER_GATEWAY))
_FLOATING = Statement(sa.select(floating_ips).where(floating_ips.c.router_id.in_(_IDS)).order_by(floating_ips.c.id))


def whole_routers(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    rows = {row.id: row for row in _ROUTERS.rows(conn, ids=ids)}
    legs, fixed = _by(conn, _LEGS, "router_id", ids), _by(conn, _ROUTERS_FIXED, "port_id", ids)
    outer = {row.id: row for row in _GATEWAYS.rows(conn, ids=ids)}
    floating = _by(conn, _FLOATING, "router_id", ids)
    beyond = _by(conn, _SUBNETS, "network_id", {row.gateway_network_id for row in rows.values() if row.gateway_network_id})
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


_GROUPS = Statement(sa.select(groups.c.id, groups.c.stateful).where(groups.c.id.in_(_IDS)))
_RULES = Statement(sa.select(rules).where(rules.c.security_group_id.in_(_IDS)).order_by(rules.c.created_at, rules.c.id))


def security_groups(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    inside = _by(conn, _RULES, "security_group_id", ids)
    return {row.id: {"stateful": row.stateful, "rules": [_rule(rule) for rule in inside[row.id]]} for row in _GROUPS.rows(conn, ids=ids)}


def _rule(rule: Any) -> dict[str, Any]:
    names = ("id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_group_id")
    prefix = rule.remote_ip_prefix
    return {name: getattr(rule, name) for name in names} | {"remote_ip_prefix": prefix and str(ipaddress.ip_network(prefix, strict=False))}


_GROUPS_FIXED = Statement(sa.select(members.c.group_id, addresses.c.address).join(addresses, addresses.c.port_id == members.c.port_id)
                          .where(members.c.group_id.in_(_IDS)))  # fmt: skip
_GROUPS_ALLOWED = Statement(sa.select(members.c.group_id, ports.c.allowed_address_pairs).join(ports, ports.c.id == members.c.port_id)
                            .where(members.c.group_id.in_(_IDS)))  # fmt: skip


def address_sets(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    """All that members of a group may send from: their addresses and their allowed pairs."""
    fixed, allowed = _by(conn, _GROUPS_FIXED, "group_id", ids), _by(conn, _GROUPS_ALLOWED, "group_id", ids)
    return {group.id: {"addresses": sorted({row.address for row in fixed[group.id]}
                                           | {pair["ip_address"] for row in allowed[group.id] for pair in row.allowed_address_pairs})}
            for group in _GROUPS.rows(conn, ids=ids)}  # fmt: skip


def _places() -> Statement:
    names, mine = (ports.c.id, ports.c.network_id, ports.c.mac_address), ports.c.network_id.in_(_IDS)
    places = sa.union_all(
        sa.select(*names, bindings.c.host).join(bindings, bindings.c.port_id == ports.c.id).where(mine, bindings.c.status == "ACTIVE"),
        sa.select(*names, dhcp_servers.c.host).join(dhcp_servers, dhcp_servers.c.network_id == ports.c.network_id)
        .where(mine, ports.c.device_owner == DHCP_PORT),
        sa.select(*names, router_hosts.c.host).join(interfaces, interfaces.c.port_id == ports.c.id)
        .join(router_hosts, router_hosts.c.router_id == interfaces.c.router_id).where(mine).distinct(),
        sa.select(*names, router_hosts.c.host).join(routers, routers.c.gateway_port_id == ports.c.id)
        .join(router_hosts, router_hosts.c.router_id == routers.c.id).where(mine),
    ).subquery()  # fmt: skip
    query = sa.select(places, switches.c.tunnel_ip).join(switches, switches.c.host == places.c.host).where(switches.c.tunnel_ip.is_not(None))
    return Statement(query.order_by(places.c.id))


_PLACES, _NETWORKS_FIXED = _places(), _fixed(ports.c.network_id.in_(_IDS))


def forwarding(conn: sa.Connection, ids: Sequence[str]) -> Bodies:
    """Where each MAC address of a network is; a host passes over its own."""
    found, fixed = _by(conn, _PLACES, "network_id", ids), _by(conn, _NETWORKS_FIXED, "port_id", ids)
    return {id_: {"entries": [{
        "mac_address": row.mac_address, "ip_addresses": [one.address for one in fixed[row.id]], "tunnel_ip": row.tunnel_ip, "host": row.host,
    } for row in found[id_]]} for id_ in ids}  # fmt: skip


DOCUMENTS: dict[str, Render] = {
    "host": hosts, "outside": outside, "port": guest_ports, "network": whole_networks, "dhcp": dhcp, "router": whole_routers,
    "security_group": security_groups, "address_set": address_sets, "forwarding": forwarding,
}  # fmt: skip
