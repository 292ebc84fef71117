"""Routers: legs on subnets, a way out, routes. What a router does follows from these rows; nothing is done to it."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.network.faults import fault, invalid
from nacre.network.plan import addresses as choice
from nacre.network.plan import subnets as subnet_plan
from nacre.network.service import making, placing, quotas, records, wiring
from nacre.network.service.kinds import NETWORK, PORT, ROUTER, SUBNET
from nacre.network.service.making import NewPort
from nacre.network.service.records import Record
from nacre.network.tables.routing import floating_ips, interfaces, routers
from nacre.network.tables.wires import ROUTER_GATEWAY, ROUTER_INTERFACE, addresses, ports, subnets

Wanted = Mapping[str, Any]
_DEFAULTS: dict[str, Any] = {"distributed": False, "ha": False, "external_gateway_info": None}


def bad(message: str) -> Exception:
    return fault("BadRequest", resource="router", msg=message)


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises OverQuota and what a gateway refuses."""
    project = records.project_of(caller, wanted)
    records.permit(caller, "create_router", {"project_id": project, "tenant_id": project}, wanted, _DEFAULTS)
    _plain_only(wanted)
    with caller.write() as tx:
        quotas.check(tx, caller.cloud.config, project, {"router": 1})
        row = records.new(tx, project, wanted)
        tx.insert(routers, **row, admin_state_up=wanted.get("admin_state_up", True), gateway_network_id=None, gateway_port_id=None,
                  enable_snat=True, routes=[], availability_zone_hints=wanted.get("availability_zone_hints") or [])  # fmt: skip
        journal.changed(tx, "router", row["id"], "create")
        if wanted.get("external_gateway_info"):
            _set_gateway(tx, caller, _reload(tx, row["id"]), wanted["external_gateway_info"])
        return _reload(tx, row["id"])


def _plain_only(wanted: Wanted) -> None:
    for name in ("ha", "distributed"):
        if wanted.get(name):
            raise invalid(name, "this cloud has no such routers, it must be false")


def _reload(tx: db.Tx, router_id: str) -> Record:
    return records.by_ids(tx, ROUTER, [router_id])[0]


def update(caller: Caller, router_id: str, wanted: Wanted) -> Record:
    """Raises RouterExternalGatewayInUseByFloatingIp, InvalidRoutes and what a gateway refuses."""
    with caller.write() as tx:
        router = records.held(tx, caller, ROUTER, router_id)
        records.permit(caller, "update_router", ROUTER.target(router), wanted)
        _plain_only(wanted)
        if "external_gateway_info" in wanted:
            info = wanted["external_gateway_info"] or {}
            if info.get("network_id"):
                _set_gateway(tx, caller, router, info)
            else:
                _clear_gateway(tx, router)
        values = {name: wanted[name] for name in ("name", "description", "admin_state_up") if name in wanted}
        if "routes" in wanted:
            values["routes"] = _routes(tx, router_id, wanted["routes"] or [])
        records.touch(tx, ROUTER, router_id, **values)
        if any(router[name] != values.get(name, router[name]) for name in ("admin_state_up", "routes")):
            wiring.bump(tx, "router", [router_id])
        return _reload(tx, router_id)


def _routes(tx: db.Tx, router_id: str, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Each next hop must be on a subnet of the router, and not the router itself."""
    found = subnet_plan.routes("routes", asked)
    legs = tx.all(sa.select(subnets.c.cidr).join(addresses, addresses.c.subnet_id == subnets.c.id)
                  .join(ports, ports.c.id == addresses.c.port_id).where(ports.c.device_id == router_id))  # fmt: skip
    ranges = [ipaddress.ip_network(row.cidr) for row in legs]
    own = set(tx.conn.execute(sa.select(addresses.c.address).join(ports, ports.c.id == addresses.c.port_id)
                              .where(ports.c.device_id == router_id)).scalars())  # fmt: skip
    for route in found:
        hop = ipaddress.ip_address(route["nexthop"])
        if not any(hop in one for one in ranges):
            raise fault("InvalidRoutes", routes=found, reason=f"the nexthop {hop} is not connected with router")
        if route["nexthop"] in own:
            raise fault("InvalidRoutes", routes=found, reason=f"the nexthop {hop} is used by router")
    return found


def _set_gateway(tx: db.Tx, caller: Caller, router: Record, info: Mapping[str, Any]) -> None:
    network = records.visible(tx, caller, NETWORK, info["network_id"])
    if not network["external"]:
        raise bad(f"Network {network['id']} is not an external network")
    fixed = info.get("external_fixed_ips")
    if router["gateway_network_id"] == network["id"]:
        records.lock(tx, NETWORK.table, [network["id"]], "share")
        records.lock(tx, PORT.table, [router["gateway_port_id"]], "change")
        port = making.found(tx, router["gateway_port_id"])
        if fixed:
            making.set_addresses(tx, port, fixed)
    else:
        _clear_gateway(tx, router)
        _no_overlap(tx, router["id"], [row.id for row in _under(tx, network["id"])])
        port = making.make(tx, network["id"], NewPort("", ROUTER_GATEWAY, router["id"], fixed))
        if not port["fixed_ips"]:
            raise bad(f"No IPs available for external network {network['id']}")
    snat = router["enable_snat"] if info.get("enable_snat") is None else info["enable_snat"]
    tx.update(routers, {"id": router["id"]}, gateway_network_id=network["id"], gateway_port_id=port["id"], enable_snat=snat)
    placing.settle_router(tx, router["id"], [network["id"]])


def _under(tx: db.Tx, network_id: str) -> list[db.Row]:
    return tx.all(sa.select(subnets.c.id).where(subnets.c.network_id == network_id))


def _clear_gateway(tx: db.Tx, router: Record) -> None:
    network_id = router["gateway_network_id"]
    if network_id is None:
        return
    if tx.first(sa.select(floating_ips.c.id).where(floating_ips.c.router_id == router["id"]).limit(1)):
        raise fault("RouterExternalGatewayInUseByFloatingIp", router_id=router["id"], net_id=network_id)
    tx.update(routers, {"id": router["id"]}, gateway_network_id=None, gateway_port_id=None, enable_snat=True)
    making.remove(tx, making.found(tx, router["gateway_port_id"]))
    placing.settle_router(tx, router["id"], [network_id])


def delete(caller: Caller, router_id: str) -> None:
    """Raises RouterInUse naming its ports."""
    with caller.write() as tx:
        router = records.held(tx, caller, ROUTER, router_id, "delete")
        caller.require(ROUTER.target(router))
        if router["interfaces"]:
            named = ", ".join(dict.fromkeys(row.port_id for row in router["interfaces"]))
            raise fault("RouterInUse", router_id=router_id, reason=f"still has ports: {named}")
        _clear_gateway(tx, router)
        placing.remove_router(tx, router_id)
        records.deleted(tx, ROUTER, router_id)


def add_interface(caller: Caller, router_id: str, wanted: Wanted) -> dict[str, Any]:
    """By subnet (its gateway address) or by port. Raises upstream's refusals."""
    with caller.write() as tx:
        router = records.held(tx, caller, ROUTER, router_id)
        caller.require(ROUTER.target(router))
        if bool(wanted.get("subnet_id")) == bool(wanted.get("port_id")):
            both = wanted.get("subnet_id")
            raise bad("Cannot specify both subnet-id and port-id" if both else "Either subnet_id or port_id must be specified")
        given = wanted.get("port_id")
        port = _own_port(tx, caller, router, given) if given else _port_on(tx, caller, router, wanted["subnet_id"])
        for fixed in port["fixed_ips"]:
            tx.insert(interfaces, router_id=router_id, subnet_id=fixed["subnet_id"], port_id=port["id"])
        placing.settle_router(tx, router_id, [port["network_id"]])
        records.touch(tx, ROUTER, router_id)
        return _answer(router, port, [fixed["subnet_id"] for fixed in port["fixed_ips"]])


def _answer(router: Record, port: Record, subnet_ids: Sequence[str]) -> dict[str, Any]:
    return {"id": router["id"], "tenant_id": router["project_id"], "project_id": router["project_id"], "port_id": port["id"],
            "network_id": port["network_id"], "subnet_id": subnet_ids[0], "subnet_ids": list(subnet_ids)}  # fmt: skip


def _port_on(tx: db.Tx, caller: Caller, router: Record, subnet_id: str) -> Record:
    subnet = records.visible(tx, caller, SUBNET, subnet_id)
    if subnet["network_external"] and not (caller.is_admin or subnet["network_project_id"] == caller.project_id):
        raise bad(f"Subnet {subnet_id} is of an external network, a router reaches it by its external gateway")
    if subnet["gateway_ip"] is None:
        raise bad("Subnet for router interface must have a gateway IP")
    _no_overlap(tx, router["id"], [subnet_id])
    fixed = [{"subnet_id": subnet_id, "ip_address": subnet["gateway_ip"]}]
    return making.make(tx, subnet["network_id"], NewPort(router["project_id"], ROUTER_INTERFACE, router["id"], fixed))


def _own_port(tx: db.Tx, caller: Caller, router: Record, port_id: str) -> Record:
    port = records.held(tx, caller, PORT, port_id)
    if port["device_id"] and port["device_id"] != router["id"]:
        raise fault("PortInUse", net_id=port["network_id"], port_id=port_id, device_id=port["device_id"])
    if any(row.port_id == port_id for row in router["interfaces"]):
        raise fault("PortInUse", net_id=port["network_id"], port_id=port_id, device_id=router["id"])
    if not port["fixed_ips"]:
        raise bad("Router port must have at least one fixed IP")
    versions = [":" in fixed["ip_address"] for fixed in port["fixed_ips"]]
    if versions.count(False) > 1:
        raise bad("Cannot have multiple IPv4 subnets on router port")
    _no_overlap(tx, router["id"], [fixed["subnet_id"] for fixed in port["fixed_ips"]])
    making.put_in_groups(tx, port_id, [])
    tx.update(PORT.table, {"id": port_id}, device_id=router["id"], device_owner=ROUTER_INTERFACE, port_security_enabled=False)
    after = making.found(tx, port_id)
    wiring.groups_changed(tx, after, port["security_groups"])
    wiring.bump(tx, "dhcp", [port["network_id"]])
    return after


def _no_overlap(tx: db.Tx, router_id: str, subnet_ids: Sequence[str]) -> None:
    """Subnets of one router must not share addresses."""
    legs = (sa.select(subnets.c.id, subnets.c.cidr).join(addresses, addresses.c.subnet_id == subnets.c.id)
            .join(ports, ports.c.id == addresses.c.port_id)
            .where(ports.c.device_id == router_id, ports.c.device_owner.in_((ROUTER_INTERFACE, ROUTER_GATEWAY))))  # fmt: skip
    here = {row.id: row.cidr for row in tx.all(legs)}
    for new in tx.all(sa.select(subnets.c.id, subnets.c.cidr).where(subnets.c.id.in_(subnet_ids))):
        if new.id in here:
            raise bad(f"Router already has a port on subnet {new.id}")
        other = choice.overlapping(new.cidr, here.values())
        if other is not None:
            id_ = next(id_ for id_, cidr in here.items() if cidr == other)
            raise bad(f"Cidr {new.cidr} of subnet {new.id} overlaps with cidr {other} of subnet {id_}")


def remove_interface(caller: Caller, router_id: str, wanted: Wanted) -> dict[str, Any]:
    """Raises RouterInterfaceNotFound, RouterInterfaceInUseByFloatingIP, RouterInterfaceInUseByRoute."""
    with caller.write() as tx:
        router = records.held(tx, caller, ROUTER, router_id)
        caller.require(ROUTER.target(router))
        port_id, subnet_id = wanted.get("port_id"), wanted.get("subnet_id")
        if not (port_id or subnet_id):
            raise bad("Either subnet_id or port_id must be specified")
        legs = [row for row in router["interfaces"] if port_id in (None, row.port_id)]
        if not legs:
            raise fault("RouterInterfaceNotFound", router_id=router_id, port_id=port_id)
        named = [row for row in legs if subnet_id in (None, row.subnet_id)]
        if not named:
            if port_id:
                raise fault("SubnetMismatchForPort", port_id=port_id, subnet_id=subnet_id)
            raise fault("RouterInterfaceNotFoundForSubnet", router_id=router_id, subnet_id=subnet_id)
        port = making.found(tx, named[0].port_id)
        gone = [row.subnet_id for row in router["interfaces"] if row.port_id == port["id"]]
        _leg_unused(tx, router, gone)
        tx.delete(interfaces, port_id=port["id"])
        making.remove(tx, port)
        placing.settle_router(tx, router_id, [port["network_id"]])
        records.touch(tx, ROUTER, router_id)
        return _answer(router, port, [subnet_id] if subnet_id else gone)


def _leg_unused(tx: db.Tx, router: Record, subnet_ids: Sequence[str]) -> None:
    for subnet_id in subnet_ids:
        behind = (sa.select(floating_ips.c.id).join(addresses, addresses.c.port_id == floating_ips.c.port_id)
                  .where(floating_ips.c.router_id == router["id"], addresses.c.subnet_id == subnet_id,
                         addresses.c.address == floating_ips.c.fixed_ip_address))  # fmt: skip
        if tx.first(behind.limit(1)):
            raise fault("RouterInterfaceInUseByFloatingIP", subnet_id=subnet_id, router_id=router["id"])
        cidr = ipaddress.ip_network(tx.scalar(sa.select(subnets.c.cidr).where(subnets.c.id == subnet_id)))
        if any(ipaddress.ip_address(route["nexthop"]) in cidr for route in router["routes"]):
            raise fault("RouterInterfaceInUseByRoute", subnet_id=subnet_id, router_id=router["id"])
