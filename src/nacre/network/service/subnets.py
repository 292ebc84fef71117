"""Subnets: ranges of addresses on a network."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.network.faults import fault, refused
from nacre.network.plan import addresses as choice
from nacre.network.plan import subnets as plan
from nacre.network.service import making, placing, pools, quotas, records, wiring
from nacre.network.service.addressing import Holder, assign
from nacre.network.service.kinds import NETWORK, SUBNET
from nacre.network.service.networks import used_by
from nacre.network.service.records import Record
from nacre.network.tables import tags
from nacre.network.tables.routing import interfaces
from nacre.network.tables.wires import DHCP_PORT, addresses, networks, ports, subnets

Wanted = Mapping[str, Any]
_DEFAULTS: dict[str, Any] = {"service_types": []}


def create(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none. Raises upstream's refusals, naming the field."""
    with caller.write() as tx:
        found = [records.visible(tx, caller, NETWORK, one["network_id"]) for one in wanted]
        for network, one in zip(found, wanted, strict=True):
            project = records.project_of(caller, one)
            target = {**NETWORK.target(network), "project_id": project, "tenant_id": project}
            records.permit(caller, "create_subnet", target, one, _DEFAULTS)
        projects = [records.project_of(caller, one) for one in wanted]
        for project in sorted(set(projects)):
            quotas.check(tx, caller.cloud.config, project, {"subnet": projects.count(project)})
        records.lock(tx, networks, [network["id"] for network in found], "change")
        made = []
        for network, one in zip(found, wanted, strict=True):
            row = _decide(tx, caller, network, one)
            standard = records.new(tx, records.project_of(caller, one), one)
            tx.insert(subnets, **standard, network_id=network["id"], **row)
            journal.changed(tx, "subnet", standard["id"], "create")
            _settle(tx, network, standard["id"])
            made.append(standard["id"])
        return records.by_ids(tx, SUBNET, made)


def _decide(tx: db.Tx, caller: Caller, network: Record, wanted: Wanted) -> dict[str, Any]:
    """The columns of the subnet to be."""
    version = wanted["ip_version"]
    if version not in (4, 6):
        raise refused(f"ip_version must be 4 or 6, not {version}")
    pool, given = pools.cut(tx, caller, records.project_of(caller, wanted), wanted)
    if not given:
        raise refused("a subnetpool must be specified in the absence of a cidr")
    cidr = plan.cidr(given, version)
    gateway = plan.gateway(cidr, wanted.get("gateway_ip", ...))
    if wanted.get("allocation_pools") is not None:
        ranges = plan.checked_pools(cidr, wanted["allocation_pools"])
        plan.gateway_outside_pools(gateway, ranges)
    else:
        ranges = choice.written(choice.default_pools(cidr, gateway), version)
    ra, mode = plan.ipv6_modes(version, cidr, wanted)
    others = tx.conn.execute(sa.select(subnets.c.id, subnets.c.cidr).where(subnets.c.network_id == network["id"])).all()
    overlap = choice.overlapping(str(cidr), [row.cidr for row in others])
    if overlap is not None:
        raise refused(f"Requested subnet with cidr: {cidr} for network: {network['id']} overlaps with another subnet "
                      f"({next(row.id for row in others if row.cidr == overlap)}, {overlap})")  # fmt: skip
    return {
        "ip_version": version, "cidr": str(cidr), "gateway_ip": gateway, "allocation_pools": ranges, "subnetpool_id": pool,
        "enable_dhcp": wanted.get("enable_dhcp", True), "dns_nameservers": plan.nameservers(wanted.get("dns_nameservers") or []),
        "host_routes": plan.routes("host_routes", wanted.get("host_routes") or [], version), "ipv6_ra_mode": ra, "ipv6_address_mode": mode,
        "service_types": wanted.get("service_types") or [], "dns_publish_fixed_ip": wanted.get("dns_publish_fixed_ip") or False,
    }  # fmt: skip


def _settle(tx: db.Tx, network: Record, subnet_id: str) -> None:
    """What a new subnet changes around it."""
    row = tx.first(sa.select(subnets).where(subnets.c.id == subnet_id))
    assert row is not None
    if plan.automatic(row.ipv6_address_mode):
        guests = sa.select(ports.c.id).where(ports.c.network_id == network["id"], ~ports.c.device_owner.like("network:%"))
        for port_id in tx.conn.execute(guests).scalars().all():
            port = making.found(tx, port_id)
            holder = Holder(port_id, network["id"], port["mac_address"], port["device_owner"])
            assign(tx, holder, [{"subnet_id": subnet_id}], kept=port["fixed_ips"])
            wiring.port_changed(tx, making.found(tx, port_id), ["fixed_ips"])
    _around(tx, network)


def _around(tx: db.Tx, network: Record) -> None:
    placing.settle_dhcp(tx, network["id"])
    wiring.network_changed(tx, network["id"])
    if network["external"]:
        wiring.outside_changed(tx, network["physical_network"])


def update(caller: Caller, subnet_id: str, wanted: Wanted) -> Record:
    """Raises upstream's refusals, naming the field."""
    with caller.write() as tx:
        subnet = records.held(tx, caller, SUBNET, subnet_id)
        records.permit(caller, "update_subnet", SUBNET.target(subnet), wanted)
        values = _changes(tx, subnet, wanted)
        changed = {name for name, value in values.items() if subnet[name] != value}
        records.touch(tx, SUBNET, subnet_id, **values)
        if changed & {"gateway_ip", "enable_dhcp", "dns_nameservers", "host_routes"}:
            network = records.by_ids(tx, NETWORK, [subnet["network_id"]])[0]
            if "enable_dhcp" in changed:
                placing.settle_dhcp(tx, subnet["network_id"])
            wiring.network_changed(tx, subnet["network_id"])
            if network["external"]:
                wiring.outside_changed(tx, network["physical_network"])
        return records.by_ids(tx, SUBNET, [subnet_id])[0]


def _changes(tx: db.Tx, subnet: Record, wanted: Wanted) -> dict[str, Any]:
    cidr = ipaddress.ip_network(subnet["cidr"])
    values = {name: wanted[name] for name in ("name", "description", "enable_dhcp", "service_types", "dns_publish_fixed_ip") if name in wanted}
    gateway = subnet["gateway_ip"]
    if "gateway_ip" in wanted:
        gateway = values["gateway_ip"] = plan.gateway(cidr, wanted["gateway_ip"])
        if gateway != subnet["gateway_ip"]:
            _gateway_unused(tx, subnet)
    ranges = subnet["allocation_pools"]
    if wanted.get("allocation_pools") is not None:
        ranges = values["allocation_pools"] = plan.checked_pools(cidr, wanted["allocation_pools"])
    if "gateway_ip" in values or "allocation_pools" in values:
        plan.gateway_outside_pools(gateway, ranges)
    if "dns_nameservers" in wanted:
        values["dns_nameservers"] = plan.nameservers(wanted["dns_nameservers"] or [])
    if "host_routes" in wanted:
        values["host_routes"] = plan.routes("host_routes", wanted["host_routes"] or [], subnet["ip_version"])
    if values.get("enable_dhcp") is False and (subnet["ipv6_ra_mode"] or subnet["ipv6_address_mode"]):
        raise refused("ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False")
    return values


def _gateway_unused(tx: db.Tx, subnet: Record) -> None:
    if subnet["gateway_ip"] is None:
        return
    used = (sa.select(ports.c.id).join(addresses, addresses.c.port_id == ports.c.id).join(interfaces, interfaces.c.port_id == ports.c.id)
            .where(addresses.c.subnet_id == subnet["id"], addresses.c.address == subnet["gateway_ip"]))  # fmt: skip
    port_id = tx.scalar(used)
    if port_id is not None:
        raise fault("GatewayIpInUse", ip_address=subnet["gateway_ip"], port_id=port_id)


def delete(caller: Caller, subnet_id: str) -> None:
    """Raises SubnetInUse naming a port that has an address of it."""
    with caller.write() as tx:
        subnet = records.held(tx, caller, SUBNET, subnet_id, "delete")
        caller.require(SUBNET.target(subnet))
        mine = sa.select(ports).join(addresses, addresses.c.port_id == ports.c.id).where(addresses.c.subnet_id == subnet_id)
        own = plan.automatic(subnet["ipv6_address_mode"])
        leaving = sa.true() if not own else ports.c.device_owner.like("network:router%")
        user = tx.first(mine.where(ports.c.device_owner != DHCP_PORT, leaving).limit(1))
        if user is not None:
            raise fault("SubnetInUse", subnet_id=subnet_id, reason=f"One or more ports have an IP allocation from this subnet, {used_by(user)} "
                        "is one of them")  # fmt: skip
        network = records.by_ids(tx, NETWORK, [subnet["network_id"]])[0]
        losing = [row.id for row in tx.all(mine)]
        tx.delete(addresses, subnet_id=subnet_id)
        tx.delete(tags, resource_id=subnet_id)
        records.deleted(tx, SUBNET, subnet_id)
        for port_id in losing:
            wiring.port_changed(tx, making.found(tx, port_id), ["fixed_ips"])
        _around(tx, network)
