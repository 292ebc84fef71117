"""Port rows, made and removed as the system: by users' verbs, for DHCP servers, routers, floating IPs and servers alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.network.service import addressing, records, wiring
from nacre.network.service.addressing import Holder
from nacre.network.service.kinds import PORT
from nacre.network.service.records import Record
from nacre.network.tables import tags
from nacre.network.tables.routing import floating_ips
from nacre.network.tables.security import members
from nacre.network.tables.wires import bindings, networks, ports


@dataclass(frozen=True)
class NewPort:
    """`fixed` None: addresses by themselves; empty: none. `values`: further columns."""

    project_id: str
    device_owner: str = ""
    device_id: str = ""
    fixed: Sequence[Mapping[str, Any]] | None = None
    mac_address: str | None = None
    groups: Sequence[str] = ()
    port_security: bool = False
    host: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


_BARE: dict[str, Any] = {
    "admin_state_up": True, "allowed_address_pairs": [], "extra_dhcp_opts": [], "dns_name": "", "vnic_type": "normal", "profile": {},
    "attached": 0, "goes_with_server": False,
}  # fmt: skip


def make(tx: db.Tx, network_id: str, new: NewPort) -> Record:
    """The new port's record. The network's documents that speak of it are bumped; quota and policy are the caller's."""
    records.lock(tx, networks, [network_id], "share")
    standard = records.new(tx, new.project_id, new.values)
    mac = addressing.mac(tx, network_id, new.mac_address)
    tx.insert(ports, **{**_BARE, **new.values, **standard, "network_id": network_id, "mac_address": mac, "device_id": new.device_id,
                        "device_owner": new.device_owner, "port_security_enabled": new.port_security, "host": new.host})  # fmt: skip
    addressing.assign(tx, Holder(standard["id"], network_id, mac, new.device_owner), new.fixed)
    put_in_groups(tx, standard["id"], new.groups)
    journal.changed(tx, "port", standard["id"], "create")
    port = found(tx, standard["id"])
    wiring.port_changed(tx, port)
    return port


def found(conn: db.Conn, port_id: str) -> Record:
    """Raises PortNotFound."""
    record = records.one(conn, PORT, port_id)
    if record is None:
        raise PORT.missing(port_id)
    return record


def put_in_groups(tx: db.Tx, port_id: str, group_ids: Sequence[str]) -> None:
    tx.delete(members, port_id=port_id)
    for position, group_id in enumerate(dict.fromkeys(group_ids)):
        tx.insert(members, port_id=port_id, group_id=group_id, position=position)


def remove(tx: db.Tx, port: Record) -> None:
    """Deletes the port; floating IPs that led to it lead nowhere."""
    records.lock(tx, ports, [port["id"]], "delete")
    free_floating(tx, port["id"])
    hosts = wiring.hosts_of(tx, port["id"])
    for table in (bindings, members):
        tx.delete(table, port_id=port["id"])
    addressing.release(tx, port["id"])
    tx.delete(tags, resource_id=port["id"])
    tx.delete(ports, id=port["id"])
    journal.changed(tx, "port", port["id"], "delete")
    for host in hosts:
        wiring.unbound(tx, port, host)
    wiring.port_changed(tx, port)


def free_floating(tx: db.Tx, port_id: str, addresses_: Sequence[str] | None = None) -> None:
    """Disassociates the floating IPs of a port (of the given fixed addresses)."""
    where = [floating_ips.c.port_id == port_id] + ([floating_ips.c.fixed_ip_address.in_(addresses_)] if addresses_ is not None else [])
    records.lock(tx, floating_ips, tx.conn.execute(sa.select(floating_ips.c.id).where(*where)).scalars(), "change")
    for row in tx.all(sa.select(floating_ips.c.id, floating_ips.c.router_id).where(*where)):
        tx.update(floating_ips, {"id": row.id}, port_id=None, fixed_ip_address=None, router_id=None, updated_at=tx.now,
                  revision_number=floating_ips.c.revision_number + 1)  # fmt: skip
        journal.changed(tx, "floatingip", row.id, "update", ["port_id"])
        wiring.bump(tx, "router", [row.router_id] if row.router_id else [])


def set_addresses(tx: db.Tx, port: Record, fixed: Sequence[Mapping[str, Any]]) -> None:
    """The port, which is held, has these addresses from now on; those it had already stay as they are. Documents are the caller's."""
    had, kept, wanted = list(port["fixed_ips"]), [], []
    for one in fixed:
        same = next((have for have in had if _meant(one, have)), None)
        if same is not None:
            had.remove(same)
            kept.append(same)
        else:
            wanted.append(one)
    gone = [have["ip_address"] for have in had]
    free_floating(tx, port["id"], gone)
    addressing.release(tx, port["id"])
    holder = Holder(port["id"], port["network_id"], port["mac_address"], port["device_owner"])
    addressing.assign(tx, holder, [*kept, *wanted])


def _meant(asked: Mapping[str, Any], have: Mapping[str, str]) -> bool:
    """Whether an address asked for is the one the port has."""
    if asked.get("subnet_id") not in (None, have["subnet_id"]):
        return False
    return asked.get("ip_address") in (None, have["ip_address"]) and bool(asked.get("subnet_id") or asked.get("ip_address"))
