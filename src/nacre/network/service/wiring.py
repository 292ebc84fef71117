"""Which documents a change alters, and which hosts hold which: everything that verbs tell the hosts goes through here.

A host holds the documents of what is on it: its bound ports and their groups, the sets of the groups that those name as remote, the
networks of its ports, DHCP servers and routers with where their other ports are. `settle_*` looks anew whether a host still needs the
ids given and holds or releases just these; it is called in the transaction that bound or unbound something, and looks at its end
(core.nodes says what that decides). Address sets come last: which are needed follows from the groups that are held by then.
"""

from collections.abc import Collection, Iterable

import sqlalchemy as sa

from nacre.core import db, nodes
from nacre.core.statements import Statement, given, given_list
from nacre.network.plan.segments import TUNNELS
from nacre.network.service.records import Record
from nacre.network.tables.routing import interfaces, router_hosts, routers
from nacre.network.tables.security import members, rules
from nacre.network.tables.wires import DHCP_PORT, ROUTER_PORTS, bindings, dhcp_servers, networks, ports


def bump(tx: db.Tx, kind: str, ids: Iterable[str]) -> None:
    for id_ in ids:
        nodes.bump(tx, kind, id_)


_OWN = {"fixed_ips", "mac_address", "allowed_address_pairs", "admin_state_up", "port_security_enabled", "security_groups", "device_id",
        "device_owner"}  # fmt: skip
_LEASED, _REACHED, _ALLOWED = {"fixed_ips", "mac_address", "dns_name"}, {"fixed_ips", "mac_address"}, {"fixed_ips", "allowed_address_pairs"}
_ALL = frozenset({*_OWN, *_LEASED})


def port_changed(tx: db.Tx, port: Record, said: Collection[str] = _ALL) -> None:
    """These attributes of a port changed (all: it is new or gone): every document that says one of them does."""
    owner, changed = port["device_owner"], set(said)
    if owner in ROUTER_PORTS and changed & _OWN:
        nodes.bump(tx, "router", port["device_id"])
    elif owner == DHCP_PORT and changed & _OWN:
        nodes.bump(tx, "dhcp", port["network_id"])
    elif changed & _OWN:
        nodes.bump(tx, "port", port["id"])
    if changed & _LEASED and (port["fixed_ips"] or changed != _ALL) and not owner.startswith("network:"):
        nodes.bump(tx, "dhcp", port["network_id"])
    if changed & _ALLOWED:
        bump(tx, "address_set", port["security_groups"])
    if changed & _REACHED and port["host"]:
        nodes.bump(tx, "forwarding", port["network_id"])


def network_changed(tx: db.Tx, network_id: str) -> None:
    """Its document, and those of routers whose way out leads there (they say its gateways)."""
    nodes.bump(tx, "network", network_id)
    bump(tx, "router", tx.conn.execute(sa.select(routers.c.id).where(routers.c.gateway_network_id == network_id)).scalars().all())


def outside_changed(tx: db.Tx, physical_network: str | None) -> None:
    """What answers beyond a physical network changed."""
    if physical_network:
        nodes.bump(tx, "outside", physical_network)


def bound(tx: db.Tx, port: Record, host: str) -> None:
    """A guest's port is on `host` from now on."""
    nodes.hold(tx, host, "port", port["id"])
    settle_networks(tx, host, [port["network_id"]])
    settle_groups(tx, host, port["security_groups"])
    nodes.bump(tx, "forwarding", port["network_id"])


def unbound(tx: db.Tx, port: Record, host: str) -> None:
    """A guest's port is not on `host` any more; its binding row is gone."""
    nodes.release(tx, "port", port["id"], host)
    settle_networks(tx, host, [port["network_id"]])
    settle_groups(tx, host, port["security_groups"])
    nodes.bump(tx, "forwarding", port["network_id"])


def hosts_of(conn: db.Conn, port_id: str) -> list[str]:
    return [row.host for row in _HOSTS.rows(conn, port=port_id)]


def groups_changed(tx: db.Tx, port: Record, before: Collection[str]) -> None:
    """A port is in other groups than `before`."""
    after = set(port["security_groups"])
    for host in hosts_of(tx, port["id"]):
        settle_groups(tx, host, [*after, *before])
    bump(tx, "address_set", sorted(after ^ set(before)))


def rules_changed(tx: db.Tx, group_id: str, remotes: Collection[str | None]) -> None:
    """A group's rules changed; `remotes` are the groups that changed rules name."""
    touched = [remote for remote in remotes if remote]
    if touched:
        tx.at_end(_settle_sets, (group_id, touched), _AFTER_GROUPS)
    nodes.bump(tx, "security_group", group_id)


def settle_networks(tx: db.Tx, host: str, ids: Collection[str]) -> None:
    nodes.settle(tx, host, "network", ids, _networks_needed)
    nodes.settle(tx, host, "forwarding", ids, _forwarding_needed)


_here, _those = given("host"), given_list("ids")
_HOSTS = Statement(sa.select(bindings.c.host).where(bindings.c.port_id == given("port")))
_TUNNELLED = Statement(sa.select(networks.c.id).where(networks.c.id.in_(_those), networks.c.network_type.in_(TUNNELS)))
_NEEDED = tuple(Statement(query.distinct()) for query in (
    sa.select(ports.c.network_id).join(bindings, bindings.c.port_id == ports.c.id).where(bindings.c.host == _here, ports.c.network_id.in_(_those)),
    sa.select(dhcp_servers.c.network_id).where(dhcp_servers.c.host == _here, dhcp_servers.c.network_id.in_(_those)),
    sa.select(ports.c.network_id).join(interfaces, interfaces.c.port_id == ports.c.id)
    .join(router_hosts, router_hosts.c.router_id == interfaces.c.router_id)
    .where(router_hosts.c.host == _here, ports.c.network_id.in_(_those)),
    sa.select(routers.c.gateway_network_id).join(router_hosts, router_hosts.c.router_id == routers.c.id)
    .where(router_hosts.c.host == _here, routers.c.gateway_network_id.in_(_those)),
))  # fmt: skip
_GROUPS = Statement(sa.select(members.c.group_id).join(bindings, bindings.c.port_id == members.c.port_id)
                    .where(bindings.c.host == _here, members.c.group_id.in_(_those)).distinct())  # fmt: skip
_NAMED = Statement(sa.select(rules.c.remote_group_id).where(rules.c.security_group_id.in_(_those), rules.c.remote_group_id.is_not(None)).distinct())
_NAMING = Statement(sa.select(rules.c.remote_group_id).join(nodes.holders, nodes.holders.c.id == rules.c.security_group_id)
                    .where(nodes.holders.c.kind == "security_group", nodes.holders.c.host == _here, rules.c.remote_group_id.in_(_those))
                    .distinct())  # fmt: skip


def _networks_needed(conn: db.Conn, host: str, ids: Collection[str]) -> set[str]:
    return {row[0] for query in _NEEDED for row in query.rows(conn, host=host, ids=ids)}


def _forwarding_needed(conn: db.Conn, host: str, ids: Collection[str]) -> set[str]:
    return _networks_needed(conn, host, [row.id for row in _TUNNELLED.rows(conn, ids=ids)])


def settle_groups(tx: db.Tx, host: str, ids: Collection[str]) -> None:
    """Whether `host` needs these groups, and the sets that their rules name."""
    nodes.settle(tx, host, "security_group", ids, _groups_needed)
    tx.at_end(_settle_named_sets, (host, tuple(ids)), _AFTER_GROUPS)


def _groups_needed(conn: db.Conn, host: str, ids: Collection[str]) -> set[str]:
    return {row.group_id for row in _GROUPS.rows(conn, host=host, ids=ids)}


_AFTER_GROUPS = nodes.LATE - 1


def _settle_named_sets(tx: db.Tx, items: list[tuple[str, tuple[str, ...]]]) -> None:
    """The sets that rules of groups name, on a host where these were settled: (host, groups)."""
    for host, ids in items:
        nodes.settle(tx, host, "address_set", [row.remote_group_id for row in _NAMED.rows(tx, ids=ids)], _sets_needed)


def _settle_sets(tx: db.Tx, items: list[tuple[str, list[str]]]) -> None:
    """The sets that changed rules of a group name, on every host that has the group: (group, sets)."""
    for group_id, named in items:
        for host in nodes.holders_of(tx, "security_group", group_id):
            nodes.settle(tx, host, "address_set", named, _sets_needed)


def _sets_needed(conn: db.Conn, host: str, ids: Collection[str]) -> set[str]:
    return {row.remote_group_id for row in _NAMING.rows(conn, host=host, ids=ids)}
