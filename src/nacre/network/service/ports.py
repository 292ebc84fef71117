"""Ports: what a guest, or anything of a user, is plugged in with."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.network.faults import fault, invalid
from nacre.network.mechanisms import openvswitch
from nacre.network.service import addressing, groups, making, placing, quotas, records, wiring
from nacre.network.service.kinds import NETWORK, PORT
from nacre.network.service.making import NewPort
from nacre.network.service.records import Record, Target
from nacre.network.tables.routing import floating_ips, interfaces, routers
from nacre.network.tables.wires import DHCP_PORT, ROUTER_PORTS, bindings

Wanted = Mapping[str, Any]
_DEFAULTS: dict[str, Any] = {"binding:host_id": "", "binding:profile": {}, "binding:vnic_type": "normal", "allowed_address_pairs": [],
                             "device_id": "", "device_owner": "", "mac_address": None}  # fmt: skip
_PLAIN = {"name": "name", "description": "description", "admin_state_up": "admin_state_up", "device_id": "device_id",
          "device_owner": "device_owner", "dns_name": "dns_name", "binding:vnic_type": "vnic_type"}  # fmt: skip
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(\1[0-9a-fA-F]{2}){4}")


def create(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none, without passing the quota. Raises upstream's refusals."""
    projects = [records.project_of(caller, one) for one in wanted]
    with caller.write() as tx:
        found = [records.visible(tx, caller, NETWORK, one["network_id"]) for one in wanted]
        for network, project, one in zip(found, projects, wanted, strict=True):
            target = _target(network, project, one)
            records.permit(caller, "create_port", target, one, {**_DEFAULTS, "port_security_enabled": network["port_security_enabled"]})
        for project in sorted(set(projects)):
            quotas.check(tx, caller.cloud.config, project, {"port": projects.count(project)})
        records.lock(tx, NETWORK.table, [network["id"] for network in found], "share")
        made = [_create(tx, caller, network, {**one, "project_id": project})
                for network, project, one in zip(found, projects, wanted, strict=True)]  # fmt: skip
        return records.by_ids(tx, PORT, made)


def _target(network: Record, project: str, wanted: Wanted) -> Target:
    return {"project_id": project, "tenant_id": project, "network:project_id": network["project_id"], "shared": network["shared"],
            "device_owner": wanted.get("device_owner") or ""}  # fmt: skip


def _create(tx: db.Tx, caller: Caller, network: Record, wanted: Wanted) -> str:
    project, owner = wanted["project_id"], wanted.get("device_owner") or ""
    secured = wanted.get("port_security_enabled", network["port_security_enabled"])
    fixed = wanted.get("fixed_ips")
    _device_is_free(tx, caller, wanted)
    values = {
        **{column: wanted[name] for name, column in _PLAIN.items() if name in wanted},
        "allowed_address_pairs": pairs(wanted.get("allowed_address_pairs") or [], secured),
        "extra_dhcp_opts": wanted.get("extra_dhcp_opts") or [], "profile": wanted.get("binding:profile") or {},
    }  # fmt: skip
    inside = _groups(tx, caller, project, wanted, secured)
    new = NewPort(project, owner, wanted.get("device_id") or "", fixed, _mac(wanted.get("mac_address")), inside, secured, "", values)
    port = making.make(tx, network["id"], new)
    _pairs_differ(port)
    if wanted.get("binding:host_id"):
        bind(tx, port, wanted["binding:host_id"])
    return str(port["id"])


def _groups(tx: db.Tx, caller: Caller, project: str, wanted: Wanted, secured: bool) -> list[str]:
    if wanted.get("security_groups"):
        if not secured:
            raise fault("PortSecurityAndIPRequiredForSecurityGroups")
        return groups.usable(tx, caller, project, wanted["security_groups"])
    default = groups.ensure_default(tx, project)
    trusted = not secured or "security_groups" in wanted or str(wanted.get("device_owner") or "").startswith("network:")
    return [] if trusted else [default]


def _mac(written: str | None) -> str | None:
    if written is None:
        return None
    if not _MAC.fullmatch(written):
        raise invalid("mac_address", f"'{written}' is not a valid MAC address")
    return written.lower().replace("-", ":")


def pairs(asked: Sequence[Mapping[str, Any]], secured: bool) -> list[dict[str, str]]:
    """Allowed address pairs in their usual spelling; a MAC that is not said is the port's."""
    if asked and not secured:
        raise fault("AddressPairAndPortSecurityRequired")
    found: list[dict[str, str]] = []
    for pair in asked:
        try:
            address = ipaddress.ip_network(pair.get("ip_address"), strict=False)  # type: ignore[arg-type]
        except ValueError:
            raise invalid("allowed_address_pairs", f"'{pair.get('ip_address')}' is not a valid IP address or range") from None
        text = str(pair["ip_address"]) if "/" in str(pair["ip_address"]) else str(address.network_address)
        one = {"ip_address": text} | ({"mac_address": mac} if (mac := _mac(pair.get("mac_address"))) else {})
        if one in found:
            raise fault("DuplicateAddressPairInRequest", mac_address=one.get("mac_address"), ip_address=text)
        found.append(one)
    return found


def _pairs_differ(port: Record) -> None:
    own = {one["ip_address"] for one in port["fixed_ips"]}
    for pair in port["allowed_address_pairs"]:
        if pair["ip_address"] in own and pair.get("mac_address", port["mac_address"]) == port["mac_address"]:
            raise fault("AddressPairMatchesPortFixedIPAndMac")


def _device_is_free(tx: db.Tx, caller: Caller, wanted: Wanted) -> None:
    """A user may not make a leg of a router that is not his."""
    device = wanted.get("device_id")
    if caller.is_admin or not device or wanted.get("device_owner") not in ROUTER_PORTS:
        return
    owner = tx.scalar(sa.select(routers.c.project_id).where(routers.c.id == device))
    if owner is not None and owner != caller.project_id:
        raise fault("DeviceIDNotOwnedByProject", device_id=device)


def _attachment_stays(port: Record, wanted: Wanted) -> None:
    """Whose guest a port is was decided by compute: metadata is served by it, so nobody may say otherwise while it is attached."""
    if port["attached"] and any(wanted.get(name, port[name]) != port[name] for name in ("device_id", "device_owner")):
        raise fault("PortInUse", net_id=port["network_id"], port_id=port["id"], device_id=port["device_id"])


def update(caller: Caller, port_id: str, wanted: Wanted) -> Record:
    """Raises upstream's refusals."""
    with caller.write() as tx:
        port = records.held(tx, caller, PORT, port_id)
        target = {**PORT.target(port), **({"device_owner": wanted["device_owner"]} if "device_owner" in wanted else {})}
        records.permit(caller, "update_port", target, wanted)
        _device_is_free(tx, caller, {"device_id": port["device_id"], "device_owner": port["device_owner"], **wanted})
        _attachment_stays(port, wanted)
        before = port["security_groups"]
        values = _changes(tx, caller, port, wanted)
        if "fixed_ips" in wanted:
            making.set_addresses(tx, {**port, **values}, wanted["fixed_ips"] or [])
        inside = _new_groups(tx, caller, port, wanted)
        if inside is not None:
            making.put_in_groups(tx, port_id, inside)
        records.touch(tx, PORT, port_id, **values)
        after = making.found(tx, port_id)
        _pairs_differ(after)
        _consistent(after)
        _tell(tx, port, after, before)
        if "binding:host_id" in wanted and wanted["binding:host_id"] != port["host"]:
            rebind(tx, after, wanted["binding:host_id"] or "")
        return making.found(tx, port_id)


def _changes(tx: db.Tx, caller: Caller, port: Record, wanted: Wanted) -> dict[str, Any]:
    values = {column: wanted[name] for name, column in _PLAIN.items() if name in wanted}
    secured = wanted.get("port_security_enabled", port["port_security_enabled"])
    values["port_security_enabled"] = secured
    if "allowed_address_pairs" in wanted:
        values["allowed_address_pairs"] = pairs(wanted["allowed_address_pairs"] or [], secured)
    if "extra_dhcp_opts" in wanted:
        values["extra_dhcp_opts"] = wanted["extra_dhcp_opts"] or []
    if "binding:profile" in wanted:
        values["profile"] = wanted["binding:profile"] or {}
    mac = _mac(wanted.get("mac_address"))
    if mac is not None and mac != port["mac_address"]:
        if port["binding"] is not None and not caller.is_admin:
            raise fault("PortBound", port_id=port["id"], vif_type=port["binding"].vif_type, old_mac=port["mac_address"], new_mac=mac)
        values["mac_address"] = addressing.mac(tx, port["network_id"], mac)
    return values


def _new_groups(tx: db.Tx, caller: Caller, port: Record, wanted: Wanted) -> list[str] | None:
    """The groups it is to be in, None when that stays."""
    if "security_groups" in wanted:
        return groups.usable(tx, caller, port["project_id"], wanted["security_groups"] or [])
    return None


def _consistent(port: Record) -> None:
    if port["port_security_enabled"]:
        return
    if port["security_groups"]:
        raise fault("PortSecurityPortHasSecurityGroup")
    if port["allowed_address_pairs"]:
        raise fault("AddressPairAndPortSecurityRequired")


def _tell(tx: db.Tx, before: Record, after: Record, groups_before: Sequence[str]) -> None:
    changed = {name for name in after if before[name] != after[name]}
    wiring.port_changed(tx, after, changed)
    if before["device_owner"].startswith("network:") != after["device_owner"].startswith("network:"):
        wiring.bump(tx, "dhcp", [after["network_id"]])
    if "security_groups" in changed:
        wiring.groups_changed(tx, after, groups_before)


def delete(caller: Caller, port_id: str) -> None:
    """Raises ServicePortInUse for what a router or a floating IP owns. A DHCP server's port comes again; a guest lets go of its own."""
    with caller.write() as tx:
        network_id = tx.scalar(sa.select(PORT.table.c.network_id).where(PORT.table.c.id == port_id, PORT.table.c.device_owner == DHCP_PORT))
        records.lock(tx, NETWORK.table, filter(None, [network_id]), "change")
        port = records.held(tx, caller, PORT, port_id, "delete")
        caller.require(PORT.target(port))
        if _serves(tx, port_id):
            raise fault("ServicePortInUse", port_id=port_id, reason=f"has device owner {port['device_owner']}, {port['device_id']} uses it")
        making.remove(tx, port)
        if port["device_owner"] == DHCP_PORT:
            placing.settle_dhcp(tx, port["network_id"])
        if port["attached"]:
            from nacre import compute

            compute.port_deleted(tx, port["device_id"], {"id": port_id, "mac_address": port["mac_address"], "tap": f"tap{port_id[:11]}"})


def _serves(tx: db.Tx, port_id: str) -> bool:
    """Whether a router or a floating IP is made of the port, whatever its owner says."""
    users = (sa.select(interfaces.c.port_id).where(interfaces.c.port_id == port_id),
             sa.select(routers.c.id).where(routers.c.gateway_port_id == port_id),
             sa.select(floating_ips.c.id).where(floating_ips.c.own_port_id == port_id))  # fmt: skip
    return any(tx.first(query.limit(1)) is not None for query in users)


def bind(tx: db.Tx, port: Record, host: str, status: str = "ACTIVE") -> None:
    """Wires the port on `host`, as the system. What the mechanism cannot do there shows as binding_failed."""
    binding = openvswitch.bind(tx, port, host)
    if port["host"] != host and status == "ACTIVE":
        tx.update(PORT.table, {"id": port["id"]}, host=host)
    tx.insert(bindings, port_id=port["id"], host=host, vif_type=binding.vif_type, vif_details=dict(binding.details),
              mechanism="openvswitch", status=status)  # fmt: skip
    if binding.vif_type != "binding_failed":
        wiring.bound(tx, port, host)


def rebind(tx: db.Tx, port: Record, host: str) -> None:
    """The port is wired on `host` and nowhere else; "" is nowhere."""
    for old in wiring.hosts_of(tx, port["id"]):
        if old != host:
            tx.delete(bindings, port_id=port["id"], host=old)
            wiring.unbound(tx, port, old)
    tx.update(PORT.table, {"id": port["id"]}, host=host)
    if host and host not in wiring.hosts_of(tx, port["id"]):
        bind(tx, port, host)
