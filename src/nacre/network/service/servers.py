"""Ports of servers: what compute asks for, as the system.

A server's ports are rows from the moment the server is (addresses included), unbound until it has a host. Ports made here belong to
the server and go with it; ports that were given are only detached. Refusals are in the words that compute's users know.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.core import db, nodes
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Error, Forbidden, NotFound, OverQuota
from nacre.core.statements import Statement, given, given_list
from nacre.network.service import groups, making, quotas, records, wiring
from nacre.network.service import ports as port_verbs
from nacre.network.service.kinds import NETWORK, PORT
from nacre.network.service.making import NewPort
from nacre.network.service.records import Record
from nacre.network.tables import security
from nacre.network.tables.routing import floating_ips, interfaces
from nacre.network.tables.security import members
from nacre.network.tables.wires import addresses, bindings, dhcp_servers, networks, port_status, ports, subnets

OWNER = "compute:nova"
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
ATTACHED = ports.c.attached > 0
"""A port is a server's only because compute attached it: anybody may write any device_id into a port of his own."""


@dataclass(frozen=True)
class Port:
    """`fixed_ips`: {"ip_address", "subnet_id"} each; `floating_ips`: by fixed address; `security_groups`: names."""

    id: str
    network_id: str
    network_name: str
    mac_address: str
    tap: str
    mtu: int
    fixed_ips: tuple[Mapping[str, str], ...]
    floating_ips: Mapping[str, str]
    status: str
    security_groups: tuple[str, ...]
    admin_state_up: bool
    device_id: str
    device_tag: str | None = None


Requested = str | Sequence[Mapping[str, Any]] | None
"""`"auto"`, `"none"`, None (not said) or a list of {"uuid", "port", "fixed_ip", "tag"}; one that names neither network
nor port means the project's only network."""


def ports_for_server(tx: db.Tx, caller: Caller, server_id: str, requested: Requested, security_groups: Sequence[str],
                     hostname: str) -> list[Port]:  # fmt: skip
    """Makes or takes the ports of a new server, or of one that gets more. `security_groups`: names or ids, none is the default group.
    Raises BadRequest, Conflict, Forbidden, OverQuota in compute's words."""
    project = caller.project_id or ""
    wanted = _wanted(tx, caller, requested)
    made = sum(1 for one in wanted if not one.get("port"))
    try:
        if made:
            quotas.check(tx, caller.cloud.config, project, {"port": made})
    except OverQuota:
        raise OverQuota("Maximum number of ports exceeded", kind="PortLimitExceeded", status=403) from None
    inside = _groups(tx, project, security_groups) if made else []
    _hold(tx, [one["port"] for one in wanted if one.get("port")], [one["uuid"] for one in wanted if one.get("uuid")])
    position = tx.scalar(sa.select(sa.func.max(ports.c.attached)).where(ports.c.device_id == server_id)) or 0
    found = []
    for number, one in enumerate(wanted, start=position + 1):
        device = {"attached": number, "device_tag": one.get("tag"), "dns_name": hostname.lower() if _LABEL.fullmatch(hostname) else ""}
        if one.get("port"):
            found.append(_take(tx, caller, one["port"], {**device, "device_id": server_id}))
        else:
            network = _network(tx, caller, one["uuid"])
            secured = network["port_security_enabled"]
            new = NewPort(project, OWNER, server_id, _fixed(one), None, inside if secured else [], secured, "", {**device, "goes_with_server": True})
            found.append(_make(tx, network, new))
    ready = _ports(tx, _CHOSEN.rows(tx, ids=found))
    return sorted(ready, key=lambda port: found.index(port.id))


def _hold(tx: db.Tx, port_ids: Collection[str], network_ids: Collection[str] = ()) -> None:
    """The ports stay as they are, and their networks and these have no other subnets."""
    if not tx.alone:
        over = tx.conn.execute(sa.select(ports.c.network_id).where(ports.c.id.in_(port_ids))).scalars()
        records.lock(tx, networks, [*over, *network_ids], "share")
        records.lock(tx, ports, port_ids, "change")


def _wanted(tx: db.Tx, caller: Caller, requested: Requested) -> Sequence[Mapping[str, Any]]:
    if requested == "none":
        return []
    if requested is None or isinstance(requested, str):
        return _only_network(tx, caller, requested)
    return [{**found, **one} for one in requested for found in ([{}] if one.keys() & {"port", "uuid"} else _only_network(tx, caller))]


def _only_network(tx: db.Tx, caller: Caller, requested: str | None = None) -> list[dict[str, Any]]:
    mine = sa.select(networks.c.id).where(sa.or_(networks.c.project_id == caller.project_id, networks.c.shared), ~networks.c.external)
    there = tx.conn.execute(mine.limit(2)).scalars().all()
    if len(there) > 1:
        raise Conflict("Multiple possible networks found, use a Network ID to be more specific.", kind="NetworkAmbiguous")
    if not there and requested == "auto":
        raise BadRequest(f"Unable to automatically allocate a network for project {caller.project_id}", kind="UnableToAutoAllocateNetwork")
    return [{"uuid": id_} for id_ in there]


def _groups(tx: db.Tx, project: str, wanted: Sequence[str]) -> list[str]:
    default = groups.ensure_default(tx, project)
    try:
        return groups.named(tx, project, wanted) if wanted else [default]
    except NotFound as error:
        raise BadRequest(error.message.replace("does not exist", "not found."), kind="SecurityGroupNotFound") from error


def _network(tx: db.Tx, caller: Caller, network_id: str) -> Record:
    network = records.one(tx, NETWORK, network_id)
    own = network is not None and (caller.is_admin or network["project_id"] == caller.project_id)
    if network is None or not (own or network["shared"] or network["external"]):
        raise BadRequest(f"Network {network_id} could not be found.", kind="NetworkNotFound")
    if not own and not network["shared"]:
        raise Forbidden(f"It is not allowed to create an interface on external network {network_id}", kind="ExternalNetworkAttachForbidden")
    if not network["subnets"]:
        raise BadRequest(f"Network {network_id} requires a subnet in order to boot instances on.", kind="NetworkRequiresSubnet")
    return network


def _fixed(one: Mapping[str, Any]) -> list[dict[str, str]] | None:
    return [{"ip_address": one["fixed_ip"]}] if one.get("fixed_ip") else None


def _make(tx: db.Tx, network: Record, new: NewPort) -> str:
    try:
        return str(making.make(tx, network["id"], new)["id"])
    except Error as error:
        if error.name == "IpAddressAlreadyAllocated":
            address = (new.fixed or [{}])[0].get("ip_address")
            raise BadRequest(f"Fixed IP address {address} is already in use.", kind="FixedIpAlreadyInUse") from error
        if error.name == "IpAddressGenerationFailure":
            raise BadRequest(f"No fixed IP addresses available for network: {network['id']}", kind="NoMoreFixedIps") from error
        raise


def _take(tx: db.Tx, caller: Caller, port_id: str, values: Mapping[str, Any]) -> str:
    port = records.one(tx, PORT, port_id)
    if port is None or not (caller.is_admin or port["project_id"] == caller.project_id):
        raise BadRequest(f"Port id {port_id} could not be found.", kind="PortNotFound")
    if port["device_id"]:
        raise Conflict(f"Port {port_id} is still in use.", kind="PortInUse")
    under = tx.first(sa.select(subnets.c.id).where(subnets.c.network_id == port["network_id"]).limit(1))
    if not port["fixed_ips"] and under is not None:
        raise BadRequest(f"Port {port_id} requires a FixedIP in order to be used.", kind="PortRequiresFixedIP")
    named = {**values, "dns_name": port["dns_name"] or values["dns_name"]}
    if not tx.update(ports, {"id": port_id, "device_id": ""}, **named, device_owner=OWNER, updated_at=tx.now):
        raise Conflict(f"Port {port_id} is still in use.", kind="PortInUse")
    wiring.port_changed(tx, making.found(tx, port_id), ["device_id", "dns_name"])
    return port_id


def of_server(conn: db.Conn, server_id: str) -> list[Record]:
    """Its ports in the order they were attached."""
    return records.by_ids(conn, PORT, [row.id for row in _ATTACHED.rows(conn, server=server_id)])


def held_of_server(tx: db.Tx, server_id: str) -> list[Record]:
    """The same, as they stay until the transaction ends."""
    _hold(tx, [row.id for row in _ATTACHED.rows(tx, server=server_id)])
    return of_server(tx, server_id)


def bind_ports(tx: db.Tx, server_id: str, host: str) -> None:
    """The server's ports are wired on `host` from now on (nowhere else). Raises Conflict when `host` cannot wire one of them."""
    for port in held_of_server(tx, server_id):
        port_verbs.rebind(tx, port, host)
    failed = sa.select(ports.c.id).join(bindings, bindings.c.port_id == ports.c.id)
    port_id = tx.scalar(failed.where(ports.c.device_id == server_id, ATTACHED, bindings.c.host == host, bindings.c.vif_type == "binding_failed"))
    if port_id is not None:
        raise Conflict(f"Binding failed for port {port_id}: host {host} does not reach its network.", kind="PortBindingFailed")


def unbind_ports(tx: db.Tx, server_id: str) -> None:
    """The server's ports are wired nowhere."""
    for port in held_of_server(tx, server_id):
        port_verbs.rebind(tx, port, "")


def release_ports(tx: db.Tx, server_id: str) -> None:
    """Deletes the ports made for the server, detaches given ones; harmless when there are none."""
    for port in held_of_server(tx, server_id):
        _release(tx, port)


def release_port(tx: db.Tx, server_id: str, port_id: str) -> None:
    """The same for one port. Raises NotFound when it is not the server's."""
    _hold(tx, [port_id])
    port = records.one(tx, PORT, port_id)
    if port is None or port["device_id"] != server_id or not port["attached"]:
        raise NotFound(f"Port {port_id} not found", kind="PortNotFound")
    _release(tx, port)


def _release(tx: db.Tx, port: Record) -> None:
    if port["goes_with_server"]:
        making.remove(tx, port)
        return
    port_verbs.rebind(tx, port, "")
    tx.update(ports, {"id": port["id"]}, device_id="", device_owner="", attached=0, device_tag=None, dns_name="", updated_at=tx.now)
    wiring.port_changed(tx, making.found(tx, port["id"]), ["device_id", "dns_name"])


def ports_of(conn: db.Conn, server_ids: Sequence[str]) -> dict[str, list[Port]]:
    """Server id -> its ports in the order they were attached; every asked id is a key."""
    found: dict[str, list[Port]] = {id_: [] for id_ in server_ids}
    for port in _ports(conn, _OF_SERVERS.rows(conn, ids=server_ids)):
        found[port.device_id].append(port)
    return found


def attached(conn: db.Conn) -> list[tuple[str, str, str | None]]:
    """(port id, the server that it is attached to, the host it is bound to) of every port of a server."""
    joined = ports.outerjoin(bindings, sa.and_(bindings.c.port_id == ports.c.id, bindings.c.status == "ACTIVE"))
    query = sa.select(ports.c.id, ports.c.device_id, bindings.c.host).select_from(joined).where(ATTACHED).order_by(ports.c.id)
    return [(row.id, row.device_id, row.host) for row in conn.execute(query)]


def port_of(conn: db.Conn, port_id: str) -> Port | None:
    return next(iter(_ports(conn, _CHOSEN.rows(conn, ids=[port_id]))), None)


_SHOWN = sa.select(*(ports.c[name] for name in ("id", "network_id", "mac_address", "admin_state_up", "device_id", "device_tag")),
                   networks.c.name.label("network_name"), networks.c.mtu, port_status().label("status")).join_from(
    ports, networks, networks.c.id == ports.c.network_id)  # fmt: skip
_CHOSEN = Statement(_SHOWN.where(ports.c.id.in_(given_list("ids"))))
_OF_SERVERS = Statement(_SHOWN.where(ports.c.device_id.in_(given_list("ids")), ATTACHED).order_by(ports.c.attached, ports.c.created_at, ports.c.id))
_FIXED = Statement(sa.select(addresses.c.port_id, addresses.c.subnet_id, addresses.c.address).where(
    addresses.c.port_id.in_(given_list("ids"))).order_by(addresses.c.position))  # fmt: skip
_GROUPS = Statement(sa.select(members.c.port_id, security.groups.c.name).join(security.groups, security.groups.c.id == members.c.group_id)
                    .where(members.c.port_id.in_(given_list("ids"))).order_by(members.c.position))  # fmt: skip
_FLOATING = Statement(sa.select(floating_ips.c.port_id, floating_ips.c.fixed_ip_address, floating_ips.c.address).where(
    floating_ips.c.port_id.in_(given_list("ids"))))  # fmt: skip


def _ports(conn: db.Conn, rows: Sequence[db.Row]) -> list[Port]:
    fixed, names, floating = (records.grouped(conn, select, "port_id", [row.id for row in rows]) for select in (_FIXED, _GROUPS, _FLOATING))
    return [Port(
        id=row.id, network_id=row.network_id, network_name=row.network_name, mac_address=row.mac_address, tap=f"tap{row.id[:11]}", mtu=row.mtu,
        fixed_ips=tuple({"subnet_id": one.subnet_id, "ip_address": one.address} for one in fixed[row.id]),
        floating_ips={one.fixed_ip_address: one.address for one in floating[row.id]}, status=row.status,
        security_groups=tuple(one.name for one in names[row.id]), admin_state_up=row.admin_state_up, device_id=row.device_id,
        device_tag=row.device_tag,
    ) for row in rows]  # fmt: skip


_ATTACHED = Statement(sa.select(ports.c.id, ports.c.network_id).where(ports.c.device_id == given("server"), ATTACHED)
                      .order_by(ports.c.attached, ports.c.id))  # fmt: skip
_INSIDE = Statement(sa.select(members.c.group_id).where(members.c.port_id.in_(given_list("ids"))).distinct())
_SERVED = Statement(sa.select(dhcp_servers).where(dhcp_servers.c.network_id.in_(given_list("ids")), dhcp_servers.c.host.is_not(None)))


def wires_of(conn: db.Conn, host: str, server_id: str) -> dict[str, int]:
    """The versions of the documents by which the server's ports are wired as they are now, by topic."""
    return {name: version for at, keys in _wires(conn, host, server_id) for name, version in nodes.versions(conn, at, keys).items()}


def unwired(conn: db.Conn, host: str, server_id: str, since: Mapping[str, int] = {}) -> str | None:
    """The topic of a document that the server's ports need and that is not yet reported true (`since` as `wires_of` gave it, that later
    changes for others are not waited for)."""
    waits = (nodes.missing(conn, at, keys, since) for at, keys in _wires(conn, host, server_id))
    return next(filter(None, waits), None)


def _wires(conn: db.Conn, host: str, server_id: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """What has to be true where: port, network and security groups on `host`, and DHCP where it runs (a DHCP server without a host that lives
    is not waited for)."""
    mine = [(row.id, row.network_id) for row in _ATTACHED.rows(conn, server=server_id)]
    if not mine:
        return
    here = [("port", id_) for id_, _ in mine] + [("network", id_) for id_ in {network_id for _, network_id in mine}]
    yield host, here + [("security_group", row.group_id) for row in _INSIDE.rows(conn, ids=[id_ for id_, _ in mine])]
    for row in _SERVED.rows(conn, ids={network_id for _, network_id in mine}):
        at = nodes.host_named(conn, row.host)
        if at is not None and nodes.alive(at):
            yield row.host, [("dhcp", row.network_id)]


def subnets_of(conn: db.Conn, subnet_ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """By id: what a guest with an address there may know of the subnet."""
    names = ("ip_version", "cidr", "gateway_ip", "enable_dhcp", "dns_nameservers", "host_routes", "ipv6_address_mode")
    query = sa.select(subnets.c.id, *(subnets.c[name] for name in names)).where(subnets.c.id.in_(list(subnet_ids)))
    return {row.id: {name: getattr(row, name) for name in names} for row in conn.execute(query)}


def server_at(conn: db.Conn, kind: str, scope_id: str, address: str) -> str | None:
    """The server with the fixed address, by "network" id or on any network behind "router" id."""
    query = sa.select(ports.c.device_id).join(addresses, addresses.c.port_id == ports.c.id)
    query = query.where(addresses.c.address == address, ATTACHED)
    if kind == "network":
        query = query.where(ports.c.network_id == scope_id)
    else:
        query = query.join(interfaces, interfaces.c.subnet_id == addresses.c.subnet_id).where(interfaces.c.router_id == scope_id)
    return conn.execute(query.limit(1)).scalar()


def seen_of(conn: db.Conn, server_ids: Sequence[str]) -> dict[str, tuple[tuple[db.Row, ...], tuple[str, ...]]]:
    """Server id -> what is shown of its ports, in the order they were attached: rows (network_name, mac_address, address, floating), one for
    each floating IP of an address; and the names of their security groups. Servers without ports are no keys."""
    addressed, grouped = dict[str, list[db.Row]](), dict[str, list[str]]()
    for row in _ADDRESSED.rows(conn, ids=server_ids):
        addressed.setdefault(row.device_id, []).append(row)
    for row in _GROUPED.rows(conn, ids=server_ids):
        grouped.setdefault(row.device_id, []).append(row.name)
    return {id_: (tuple(addressed.get(id_, ())), tuple(grouped.get(id_, ()))) for id_ in addressed.keys() | grouped.keys()}


_BY_ATTACHMENT = (ports.c.attached, ports.c.created_at, ports.c.id)
_ADDRESSED = Statement(
    sa.select(ports.c.device_id, networks.c.name.label("network_name"), ports.c.mac_address, addresses.c.address,
              floating_ips.c.address.label("floating"))
    .join_from(ports, networks, networks.c.id == ports.c.network_id).join(addresses, addresses.c.port_id == ports.c.id)
    .outerjoin(floating_ips, sa.and_(floating_ips.c.port_id == ports.c.id, floating_ips.c.fixed_ip_address == addresses.c.address))
    .where(ports.c.device_id.in_(given_list("ids")), ATTACHED)
    .order_by(*_BY_ATTACHMENT, addresses.c.position, floating_ips.c.created_at))  # fmt: skip
_GROUPED = Statement(
    sa.select(ports.c.device_id, security.groups.c.name).join_from(ports, members, members.c.port_id == ports.c.id)
    .join(security.groups, security.groups.c.id == members.c.group_id)
    .where(ports.c.device_id.in_(given_list("ids")), ATTACHED).order_by(*_BY_ATTACHMENT, members.c.position))  # fmt: skip


def security_groups_of(conn: db.Conn, server_ids: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Server id -> {"id", "name"} of the groups on its ports; every asked id is a key."""
    found: dict[str, list[dict[str, str]]] = {id_: [] for id_ in server_ids}
    query = (sa.select(ports.c.device_id, security.groups.c.id, security.groups.c.name).join(members, members.c.port_id == ports.c.id)
             .join(security.groups, security.groups.c.id == members.c.group_id).where(ports.c.device_id.in_(server_ids), ATTACHED).distinct()
             .order_by(security.groups.c.name, security.groups.c.id))  # fmt: skip
    for row in conn.execute(query):
        found[row.device_id].append({"id": row.id, "name": row.name})
    return found


def add_security_group(tx: db.Tx, caller: Caller, server_id: str, name: str) -> None:
    """Puts the group (name or id) on every port of the server. Raises NotFound."""
    group_id = groups.named(tx, caller.project_id or "", [name])[0]
    mine = held_of_server(tx, server_id)
    if not mine:
        raise NotFound(f"instance_id {server_id} could not be found as device id on any ports")
    for port in mine:
        if group_id not in port["security_groups"] and port["port_security_enabled"] and port["fixed_ips"]:
            _put(tx, port, [*port["security_groups"], group_id])


def remove_security_group(tx: db.Tx, caller: Caller, server_id: str, name: str) -> None:
    """Takes the group off every port of the server. Raises NotFound."""
    group_id = groups.named(tx, caller.project_id or "", [name])[0]
    mine = [port for port in held_of_server(tx, server_id) if group_id in port["security_groups"]]
    if not mine:
        raise NotFound(f"Security group {name} not associated with the instance {server_id}", kind="SecurityGroupNotExistsForInstance")
    for port in mine:
        _put(tx, port, [id_ for id_ in port["security_groups"] if id_ != group_id])


def _put(tx: db.Tx, port: Record, group_ids: Sequence[str]) -> None:
    making.put_in_groups(tx, port["id"], group_ids)
    records.touch(tx, PORT, port["id"])
    after = making.found(tx, port["id"])
    wiring.port_changed(tx, after, ["security_groups"])
    wiring.groups_changed(tx, after, port["security_groups"])
