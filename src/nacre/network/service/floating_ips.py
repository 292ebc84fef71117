"""Floating IPs: an address of an external network, and the fixed address it leads to.

A unique index keeps one floating IP of an external network on a fixed address. The router that translates it is the one with a leg on
the fixed address' subnet and its way out on the floating IP's network; it is kept in the row, so the router's document knows it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.network.faults import fault
from nacre.network.service import addressing, making, quotas, records, wiring
from nacre.network.service.kinds import FLOATING_IP, NETWORK, PORT, SUBNET
from nacre.network.service.making import NewPort
from nacre.network.service.records import Record
from nacre.network.tables.routing import floating_ips, interfaces, routers
from nacre.network.tables.wires import FLOATING_PORT, addresses, subnets

Wanted = Mapping[str, Any]


def bad(message: str) -> Exception:
    return fault("BadRequest", resource="floatingip", msg=message)


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises OverQuota, ExternalIpAddressExhausted, IpAddressAlreadyAllocated and what association refuses."""
    project = records.project_of(caller, wanted)
    records.permit(caller, "create_floatingip", {"project_id": project, "tenant_id": project}, wanted, {"floating_ip_address": None})
    with caller.write() as tx:
        network = records.visible(tx, caller, NETWORK, wanted["floating_network_id"])
        if not network["external"]:
            raise bad(f"Network {network['id']} is not a valid external network")
        quotas.check(tx, caller.cloud.config, project, {"floatingip": 1})
        if wanted.get("port_id"):
            _hold_way(tx, wanted["port_id"])
        row = records.new(tx, project, {"description": wanted.get("description")})
        port = making.make(tx, network["id"], NewPort("", FLOATING_PORT, row["id"], _address(tx, caller, network, wanted)))
        address = next((fixed["ip_address"] for fixed in port["fixed_ips"] if ":" not in fixed["ip_address"]), None)
        if address is None:
            raise fault("ExternalIpAddressExhausted", net_id=network["id"])
        tx.insert(floating_ips, **row, network_id=network["id"], address=address, own_port_id=port["id"], port_id=None,
                  fixed_ip_address=None, router_id=None,
                  dns_name=wanted.get("dns_name") or "", dns_domain=wanted.get("dns_domain") or "")  # fmt: skip
        journal.changed(tx, "floatingip", row["id"], "create")
        if wanted.get("port_id"):
            _associate(tx, caller, _reload(tx, row["id"]), wanted)
        elif wanted.get("fixed_ip_address"):
            raise bad("fixed_ip_address cannot be specified without a port_id")
        return _reload(tx, row["id"])


def _address(tx: db.Tx, caller: Caller, network: Record, wanted: Wanted) -> Sequence[Mapping[str, Any]]:
    """Where on the external network: the address or the subnet asked for, else any IPv4 subnet with a free address."""
    asked = {name: wanted[key] for name, key in (("ip_address", "floating_ip_address"), ("subnet_id", "subnet_id")) if wanted.get(key)}
    if wanted.get("subnet_id"):
        subnet = records.visible(tx, caller, SUBNET, wanted["subnet_id"])
        if subnet["network_id"] != network["id"]:
            raise bad(f"no subnet {subnet['id']} found on external network {network['id']}")
    if asked:
        return [asked]
    under = tx.all(sa.select(subnets).where(subnets.c.network_id == network["id"], subnets.c.ip_version == 4).order_by(subnets.c.created_at))
    for row in under:
        address = addressing.free(tx, row)
        if address is not None:
            return [{"subnet_id": row.id, "ip_address": address}]
    if under:
        raise fault("IpAddressGenerationFailure", net_id=network["id"])
    raise bad(f"Network {network['id']} does not contain any IPv4 subnet")


def _reload(tx: db.Tx, id_: str) -> Record:
    return records.by_ids(tx, FLOATING_IP, [id_])[0]


def update(caller: Caller, id_: str, wanted: Wanted) -> Record:
    """`port_id` associates, None disassociates. Raises what association refuses."""
    with caller.write() as tx:
        lead(tx, caller, id_, wanted)
        if "description" in wanted:
            tx.update(floating_ips, {"id": id_}, description=wanted["description"] or "")
        return _reload(tx, id_)


def lead(tx: db.Tx, caller: Caller, id_: str, wanted: Wanted) -> None:
    """`update` in an open transaction. Raises Forbidden, and what association refuses."""
    if wanted.get("port_id"):
        _hold_way(tx, wanted["port_id"])
    floating = records.held(tx, caller, FLOATING_IP, id_)
    records.permit(caller, "update_floatingip", FLOATING_IP.target(floating), wanted)
    if wanted.get("port_id"):
        _associate(tx, caller, floating, wanted)
    elif "port_id" in wanted or set(wanted) <= {"fixed_ip_address"}:
        if wanted.get("fixed_ip_address"):
            raise bad("fixed_ip_address cannot be specified without a port_id")
        _lead(tx, floating, None, None, None)
    records.touch(tx, FLOATING_IP, floating["id"])


def _hold_way(tx: db.Tx, port_id: str) -> None:
    """The routers with a leg where the port is keep their legs and their ways out, and the port its addresses."""
    reaching = (sa.select(interfaces.c.router_id).join(addresses, addresses.c.subnet_id == interfaces.c.subnet_id)
                .where(addresses.c.port_id == port_id))  # fmt: skip
    had = set[str]()
    while not tx.alone and (more := set(tx.conn.execute(reaching).scalars()) - had):
        records.lock(tx, routers, more, "share")
        had |= more
    records.lock(tx, PORT.table, [port_id], "share")


def _associate(tx: db.Tx, caller: Caller, floating: Record, wanted: Wanted) -> None:
    port = records.visible(tx, caller, PORT, wanted["port_id"])
    if port["project_id"] != floating["project_id"] and not caller.is_admin:
        raise bad(f"Port {port['id']} is associated with a different project than Floating IP {floating['id']} and therefore cannot be bound")
    fixed = _fixed_of(port, wanted.get("fixed_ip_address"))
    other = sa.select(floating_ips.c.id).where(
        floating_ips.c.port_id == port["id"], floating_ips.c.fixed_ip_address == fixed["ip_address"],
        floating_ips.c.network_id == floating["network_id"], floating_ips.c.id != floating["id"])  # fmt: skip
    if tx.first(other):
        raise fault("FloatingIPPortAlreadyAssociated", floating_ip_address=floating["address"], fip_id=floating["id"], port_id=port["id"],
                    fixed_ip=fixed["ip_address"], net_id=floating["network_id"])  # fmt: skip
    router = (sa.select(routers.c.id).join(interfaces, interfaces.c.router_id == routers.c.id)
              .where(interfaces.c.subnet_id == fixed["subnet_id"], routers.c.gateway_network_id == floating["network_id"])
              .order_by(routers.c.created_at))  # fmt: skip
    router_id = tx.scalar(router)
    if router_id is None:
        raise fault("ExternalGatewayForFloatingIPNotFound", external_network_id=floating["network_id"], subnet_id=fixed["subnet_id"],
                    port_id=port["id"])  # fmt: skip
    _lead(tx, floating, port["id"], fixed["ip_address"], router_id)


def _fixed_of(port: Record, wanted: str | None) -> Mapping[str, str]:
    four: list[Mapping[str, str]] = [fixed for fixed in port["fixed_ips"] if ":" not in fixed["ip_address"]]
    if wanted is not None:
        found = next((fixed for fixed in four if fixed["ip_address"] == wanted), None)
        if found is None:
            raise bad(f"Port {port['id']} does not have fixed ip {wanted}")
        return found
    if not four:
        raise bad(f"Cannot add floating IP to port {port['id']} that has no fixed IPv4 addresses")
    if len(four) > 1:
        raise bad(f"Port {port['id']} has multiple fixed IPv4 addresses. Must provide a specific IPv4 address when assigning a floating IP")
    return four[0]


def _lead(tx: db.Tx, floating: Record, port_id: str | None, fixed: str | None, router_id: str | None) -> None:
    """To where the floating IP leads from now on; both routers hear of it."""
    values = {"port_id": port_id, "fixed_ip_address": fixed, "router_id": router_id}
    if all(floating[name] == value for name, value in values.items()):
        return
    tx.update(floating_ips, {"id": floating["id"]}, **values)
    wiring.bump(tx, "router", {id_ for id_ in (floating["router_id"], router_id) if id_})


def delete(caller: Caller, id_: str) -> None:
    with caller.write() as tx:
        floating = records.held(tx, caller, FLOATING_IP, id_, "delete")
        caller.require(FLOATING_IP.target(floating))
        _lead(tx, floating, None, None, None)
        _remove(tx, floating)


def remove_unled(tx: db.Tx, network_id: str) -> None:
    """Those of an external network that lead nowhere go with it, whosever they are; as the system."""
    query = sa.select(floating_ips.c.id).where(floating_ips.c.network_id == network_id, floating_ips.c.port_id.is_(None))
    found = list(tx.conn.execute(query).scalars())
    records.lock(tx, floating_ips, found, "delete")
    for floating in records.by_ids(tx, FLOATING_IP, found):
        if floating["port_id"] is None:
            _remove(tx, floating)


def _remove(tx: db.Tx, floating: Record) -> None:
    records.deleted(tx, FLOATING_IP, floating["id"])
    making.remove(tx, making.found(tx, floating["own_port_id"]))
