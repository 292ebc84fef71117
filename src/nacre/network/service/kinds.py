"""How each resource is read: its columns by wire name, what belongs to it, who may see it."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.statements import Statement, given_list
from nacre.network.faults import fault, invalid
from nacre.network.service.records import Kind, Record, Target, grouped, standard_columns, tags_of
from nacre.network.tables.pools import pools
from nacre.network.tables.routing import floating_ips, floating_status, interfaces, router_hosts, routers
from nacre.network.tables.security import groups, members, rules
from nacre.network.tables.wires import addresses, bindings, dhcp_servers, networks, port_status, ports, subnets


def _own(record: Record) -> Target:
    return {"project_id": record["project_id"], "tenant_id": record["project_id"]}


def _named(table: sa.Table, *names: str) -> dict[str, sa.ColumnElement[Any]]:
    return {**standard_columns(table), **{name: table.c[name] for name in names}}


def _ids(rows: Sequence[db.Row]) -> list[str]:
    return [row.id for row in rows]


_IDS = given_list("ids")
_SUBNETS_UNDER = Statement(sa.select(subnets.c.id, subnets.c.network_id).where(subnets.c.network_id.in_(_IDS))
                           .order_by(subnets.c.created_at, subnets.c.id))  # fmt: skip
_SERVED = Statement(sa.select(dhcp_servers.c.network_id).where(dhcp_servers.c.network_id.in_(_IDS), dhcp_servers.c.host.is_not(None)))
_FIXED = Statement(sa.select(addresses).where(addresses.c.port_id.in_(_IDS)).order_by(addresses.c.position))
_MEMBERS = Statement(sa.select(members).where(members.c.port_id.in_(_IDS)).order_by(members.c.position))
_BOUND = Statement(sa.select(bindings).where(bindings.c.port_id.in_(_IDS), bindings.c.status == "ACTIVE"))
_INTERFACES = Statement(sa.select(interfaces).where(interfaces.c.router_id.in_(_IDS)))
_PLACED = Statement(sa.select(router_hosts).where(router_hosts.c.router_id.in_(_IDS)))
_LED_TO = Statement(sa.select(ports, port_status().label("status")).where(ports.c.id.in_(_IDS)))
_RULES = Statement(sa.select(rules).where(rules.c.security_group_id.in_(_IDS)).order_by(rules.c.created_at, rules.c.id))


def _networks(conn: db.Conn, rows: Sequence[db.Row]) -> list[Record]:
    under = grouped(conn, _SUBNETS_UNDER, "network_id", _ids(rows))
    served = {row.network_id for row in _SERVED.rows(conn, ids=_ids(rows))}
    tags = tags_of(conn, _ids(rows))
    return [{**row._mapping, "subnets": [subnet.id for subnet in under[row.id]], "tags": tags[row.id],
             "availability_zones": ["nova"] if row.id in served else []} for row in rows]  # fmt: skip


def _network_target(record: Record) -> Target:
    return {**_own(record), "shared": record["shared"], "router:external": record["external"], "network:project_id": record["project_id"]}


def _on_network(column: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.exists().where(networks.c.id == column, *conditions)


NETWORK = Kind(
    "network", networks,
    {**_named(networks, "admin_state_up", "shared", "is_default", "mtu", "port_security_enabled"), "router:external": networks.c.external,
     "provider:network_type": networks.c.network_type, "provider:physical_network": networks.c.physical_network,
     "provider:segmentation_id": networks.c.segmentation_id, "status": sa.literal("ACTIVE")},
    _networks, _network_target,
    lambda project: sa.or_(networks.c.project_id == project, networks.c.shared, networks.c.external),
    lambda id_: fault("NetworkNotFound", net_id=id_),
)  # fmt: skip


def _tagged(conn: db.Conn, rows: Sequence[db.Row]) -> list[Record]:
    tags = tags_of(conn, _ids(rows))
    return [{**row._mapping, "tags": tags[row.id]} for row in rows]


def _under_network(record: Record) -> Target:
    return {**_own(record), "shared": record["network_shared"], "router:external": record["network_external"],
            "network:project_id": record["network_project_id"], "device_owner": record.get("device_owner", "")}  # fmt: skip


def _of_network(table: sa.Table) -> dict[str, sa.ColumnElement[Any]]:
    def column(name: str) -> sa.ColumnElement[Any]:
        return sa.select(networks.c[name]).where(networks.c.id == table.c.network_id).scalar_subquery()

    return {"network_shared": column("shared"), "network_external": column("external"), "network_project_id": column("project_id")}


SUBNET = Kind(
    "subnet", subnets,
    {**_named(subnets, "network_id", "ip_version", "cidr", "gateway_ip", "enable_dhcp", "ipv6_ra_mode", "ipv6_address_mode",
             "subnetpool_id"),
     "shared": _of_network(subnets)["network_shared"], "router:external": _of_network(subnets)["network_external"]},
    _tagged, _under_network,
    lambda project: sa.or_(subnets.c.project_id == project, _on_network(
        subnets.c.network_id, sa.or_(networks.c.project_id == project, networks.c.shared, networks.c.external))),
    lambda id_: fault("SubnetNotFound", subnet_id=id_),
    extra=_of_network(subnets), under=("network_id", networks, "change"),
)  # fmt: skip


POOL = Kind(
    "subnetpool", pools,
    _named(pools, "ip_version", "default_prefixlen", "min_prefixlen", "max_prefixlen", "default_quota", "shared", "is_default"),
    _tagged, lambda record: {**_own(record), "shared": record["shared"]},
    lambda project: sa.or_(pools.c.project_id == project, pools.c.shared),
    lambda id_: fault("SubnetPoolNotFound", subnetpool_id=id_),
)  # fmt: skip


def _ports(conn: db.Conn, rows: Sequence[db.Row]) -> list[Record]:
    wanted, tags = _ids(rows), tags_of(conn, _ids(rows))
    fixed, inside, bound = (grouped(conn, select, "port_id", wanted) for select in (_FIXED, _MEMBERS, _BOUND))
    return [{
        **row._mapping, "tags": tags[row.id], "binding": next(iter(bound[row.id]), None),
        "fixed_ips": [{"subnet_id": one.subnet_id, "ip_address": one.address} for one in fixed[row.id]],
        "security_groups": [one.group_id for one in inside[row.id]],
    } for row in rows]  # fmt: skip


def _fixed_ips(values: Sequence[str]) -> sa.ColumnElement[bool]:
    """`subnet_id=X`, `ip_address=Y`, `ip_address_substr=Z`, as upstream: of each sort, one must hold."""
    sorts: dict[str, list[str]] = {}
    for value in values:
        name, _, wanted = value.partition("=")
        sorts.setdefault(name, []).append(wanted)
    parts: list[sa.ColumnElement[bool]] = []
    for name, texts in sorts.items():
        if name not in ("subnet_id", "ip_address", "ip_address_substr"):
            raise invalid("fixed_ips", f"'{name}' is not a filter")
        if name == "ip_address_substr":
            parts.append(sa.or_(*(addresses.c.address.contains(text, autoescape=True) for text in texts)))
        else:
            parts.append(addresses.c["address" if name == "ip_address" else name].in_(texts))
    return sa.exists().where(addresses.c.port_id == ports.c.id, *parts)


PORT = Kind(
    "port", ports,
    {**_named(ports, "network_id", "mac_address", "admin_state_up", "device_id", "device_owner", "port_security_enabled", "dns_name"),
     "status": port_status(), "binding:host_id": ports.c.host, "binding:vnic_type": ports.c.vnic_type},
    _ports, _under_network,
    lambda project: sa.or_(ports.c.project_id == project, _on_network(ports.c.network_id, networks.c.project_id == project)),
    lambda id_: fault("PortNotFound", port_id=id_),
    special={"fixed_ips": _fixed_ips,
             "security_groups": lambda values: sa.exists().where(members.c.port_id == ports.c.id, members.c.group_id.in_(values))},
    extra={**_of_network(ports), "status": port_status()}, under=("network_id", networks, "share"),
)  # fmt: skip


def _routers(conn: db.Conn, rows: Sequence[db.Row]) -> list[Record]:
    wanted, tags = _ids(rows), tags_of(conn, _ids(rows))
    outside = [row.gateway_port_id for row in rows if row.gateway_port_id]
    fixed = grouped(conn, _FIXED, "port_id", outside)
    inside = grouped(conn, _INTERFACES, "router_id", wanted)
    placed = {row.router_id: row.host for row in _PLACED.rows(conn, ids=wanted)}
    return [{
        **row._mapping, "tags": tags[row.id], "host": placed.get(row.id), "interfaces": list(inside[row.id]),
        "external_fixed_ips": [{"subnet_id": one.subnet_id, "ip_address": one.address} for one in fixed.get(row.gateway_port_id, ())],
    } for row in rows]  # fmt: skip


ROUTER = Kind(
    "router", routers,
    {**_named(routers, "admin_state_up"), "status": sa.literal("ACTIVE"), "distributed": sa.false(), "ha": sa.false()},
    _routers, _own, lambda project: routers.c.project_id == project, lambda id_: fault("RouterNotFound", router_id=id_),
)  # fmt: skip


def _floating_ips(conn: db.Conn, rows: Sequence[db.Row]) -> list[Record]:
    tags = tags_of(conn, _ids(rows))
    wanted = [row.port_id for row in rows if row.port_id]
    found = {row.id: row for row in _LED_TO.rows(conn, ids=wanted)}
    return [{**row._mapping, "tags": tags[row.id], "port": found.get(row.port_id)} for row in rows]


FLOATING_IP = Kind(
    "floatingip", floating_ips,
    {**_named(floating_ips, "port_id", "fixed_ip_address", "router_id"), "floating_network_id": floating_ips.c.network_id,
     "floating_ip_address": floating_ips.c.address, "status": floating_status()},
    _floating_ips, _own, lambda project: floating_ips.c.project_id == project, lambda id_: fault("FloatingIPNotFound", floatingip_id=id_),
    extra={"status": floating_status()},
)  # fmt: skip


def _groups(conn: db.Conn, rows: Sequence[db.Row]) -> list[Record]:
    wanted, tags = _ids(rows), tags_of(conn, _ids(rows))
    inside = grouped(conn, _RULES, "security_group_id", wanted)
    return [{**row._mapping, "tags": tags[row.id], "rules": [_rule(rule, row.project_id) for rule in inside[row.id]]} for row in rows]


def _rule(row: db.Row, group_project: str) -> Record:
    return {**row._mapping, "group_project_id": group_project, "tags": []}


def _rules(conn: db.Conn, rows: Sequence[db.Row]) -> list[Record]:
    return [{**row._mapping, "tags": []} for row in rows]


GROUP = Kind(
    "security_group", groups, {**_named(groups, "stateful"), "shared": sa.false()},
    _groups, lambda record: {**_own(record), "shared": False, "security_group:project_id": record["project_id"]},
    lambda project: groups.c.project_id == project, lambda id_: fault("SecurityGroupNotFound", id=id_),
)  # fmt: skip
_group_project = sa.select(groups.c.project_id).where(groups.c.id == rules.c.security_group_id).scalar_subquery()
RULE = Kind(
    "security_group_rule", rules,
    _named(rules, "security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix",
           "remote_group_id"),
    _rules, lambda record: {**_own(record), "security_group:project_id": record["group_project_id"]},
    lambda project: _group_project == project, lambda id_: fault("SecurityGroupRuleNotFound", id=id_),
    extra={"group_project_id": _group_project}, under=("security_group_id", groups, "change"),
)  # fmt: skip
