"""Networks: a name, a segment, and who may use it."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.config import Config
from nacre.network.faults import fault, refused
from nacre.network.plan import addresses as choice
from nacre.network.plan import segments as plan
from nacre.network.plan.segments import Segment
from nacre.network.service import floating_ips as floating
from nacre.network.service import groups, placing, quotas, records, wiring
from nacre.network.service.addressing import DICE
from nacre.network.service.kinds import NETWORK
from nacre.network.service.records import Record
from nacre.network.tables.routing import floating_ips, routers
from nacre.network.tables.wires import DHCP_PORT, networks, ports, segments, subnets

Wanted = Mapping[str, Any]
_PROVIDER = ("provider:network_type", "provider:physical_network", "provider:segmentation_id")
_DEFAULTS = {"admin_state_up": True, "shared": False, "router:external": False, "is_default": False, "port_security_enabled": True,
             **dict.fromkeys(_PROVIDER)}  # fmt: skip
_COLUMNS = {"name": "name", "description": "description", "admin_state_up": "admin_state_up", "shared": "shared",
            "router:external": "external", "is_default": "is_default", "mtu": "mtu", "port_security_enabled": "port_security_enabled",
            "dns_domain": "dns_domain"}  # fmt: skip


def create(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none. Raises OverQuota, InvalidInput, the segment's InUse."""
    projects = [records.project_of(caller, one) for one in wanted]
    for project, one in zip(projects, wanted, strict=True):
        target = {"project_id": project, "tenant_id": project, "shared": one.get("shared", False)}
        records.permit(caller, "create_network", target, one, _DEFAULTS)
    with caller.write() as tx:
        for project in sorted(set(projects)):
            quotas.check(tx, caller.cloud.config, project, {"network": projects.count(project)})
            groups.ensure_default(tx, project)
        made = [_create(tx, caller, project, one) for project, one in zip(projects, wanted, strict=True)]
        return records.by_ids(tx, NETWORK, made)


def _create(tx: db.Tx, caller: Caller, project: str, wanted: Wanted) -> str:
    config = caller.cloud.config
    row = records.new(tx, project, wanted)
    segment = _segment(tx, row["id"], _choices(caller, wanted))
    mtu = _mtu(config, segment.network_type, wanted.get("mtu") or 0)
    if wanted.get("is_default"):
        _only_default(tx)
    external = wanted.get("router:external", False)
    tx.insert(networks, **row, admin_state_up=wanted.get("admin_state_up", True), shared=wanted.get("shared", False),
              external=external, is_default=external and wanted.get("is_default", False), mtu=mtu,
              port_security_enabled=wanted.get("port_security_enabled", True), dns_domain=wanted.get("dns_domain") or "",
              availability_zone_hints=wanted.get("availability_zone_hints") or [], network_type=segment.network_type,
              physical_network=segment.physical_network, segmentation_id=segment.number or None)  # fmt: skip
    journal.changed(tx, "network", row["id"], "create")
    return str(row["id"])


def _choices(caller: Caller, wanted: Wanted) -> list[Segment]:
    kind, physical, number = (wanted.get(name) for name in _PROVIDER)
    if kind:
        return [plan.provider(caller.cloud.config, kind, physical, number)]
    if physical or number is not None:
        raise refused("network_type required")
    return plan.tenant_choices(caller.cloud.config)


def _segment(tx: db.Tx, network_id: str, choices: Sequence[Segment]) -> Segment:
    """Takes the first segment that can be had. Raises upstream's refusals."""
    for wanted in choices:
        if wanted.network_type == "local":
            return wanted
        number = wanted.number if wanted.number is not None else _free(tx, wanted)
        if number is None:
            continue
        key = {"network_type": wanted.network_type, "physical_network": wanted.physical_network or "", "segmentation_id": number}
        if _taken(tx, wanted, [number]):
            raise _in_use(wanted, number)
        tx.insert(segments, **key, network_id=network_id)
        return Segment(wanted.network_type, wanted.physical_network, number)
    raise fault("NoNetworkAvailable")


def _in_use(wanted: Segment, number: int) -> Exception:
    if wanted.network_type == "flat":
        return fault("FlatNetworkInUse", physical_network=wanted.physical_network)
    if wanted.network_type == "vlan":
        return fault("VlanIdInUse", vlan_id=number, physical_network=wanted.physical_network)
    return fault("TunnelIdInUse", tunnel_id=number)


def _of(wanted: Segment) -> list[sa.ColumnElement[bool]]:
    return [segments.c.network_type == wanted.network_type, segments.c.physical_network == (wanted.physical_network or "")]


def _taken(tx: db.Tx, wanted: Segment, numbers: Sequence[int]) -> list[int]:
    query = sa.select(segments.c.segmentation_id).where(*_of(wanted), segments.c.segmentation_id.in_(numbers))
    return list(tx.conn.execute(query).scalars())


def _free(tx: db.Tx, wanted: Segment) -> int | None:
    def following(first: int, last: int, limit: int) -> list[int]:
        number = segments.c.segmentation_id
        window = sa.select(number).where(*_of(wanted), number.between(first, last)).order_by(number).limit(limit)
        return list(tx.conn.execute(window).scalars())

    return choice.choose(list(wanted.ranges), DICE, lambda numbers: _taken(tx, wanted, numbers), following)


def _only_default(tx: db.Tx) -> None:
    """The index decides: who meets it is run anew and finds the other here."""
    other = tx.scalar(sa.select(networks.c.id).where(networks.c.is_default))
    if other:
        raise fault("DefaultExternalNetworkExists", net_id=other)


def _mtu(config: Config, network_type: str, wanted: int) -> int:
    """`wanted` if a guest can use it, the largest for 0. Raises InvalidInput."""
    most, least = plan.mtu(network_type, config.DEFAULT.global_physnet_mtu), plan.LEAST_MTU
    if wanted > most:
        raise refused(f"Requested MTU is too big, maximum is {most}")
    if 0 < wanted < least:
        raise refused(f"Requested MTU is too small, minimum is {least}")
    return wanted or most


def update(caller: Caller, network_id: str, wanted: Wanted) -> Record:
    """Raises InvalidSharedSetting, ExternalNetworkInUse, InvalidInput."""
    with caller.write() as tx:
        network = records.held(tx, caller, NETWORK, network_id)
        records.permit(caller, "update_network", NETWORK.target(network), wanted)
        _may_become(tx, caller, network, wanted)
        values = {_COLUMNS[name]: value for name, value in wanted.items() if name in _COLUMNS}
        if "mtu" in values:
            values["mtu"] = _mtu(caller.cloud.config, network["network_type"], values["mtu"])
        if values.get("is_default") or network["is_default"]:
            values["is_default"] = values.get("external", network["external"]) and values.get("is_default", True)
        changed = {name: value for name, value in values.items() if network[name] != value}
        records.touch(tx, NETWORK, network_id, **values)
        if {"admin_state_up", "mtu"} & set(changed):
            wiring.bump(tx, "network", [network_id])
        if "external" in changed:
            wiring.outside_changed(tx, network["physical_network"])
        return records.by_ids(tx, NETWORK, [network_id])[0]


def _may_become(tx: db.Tx, caller: Caller, network: Record, wanted: Wanted) -> None:
    network_id = network["id"]
    same = {"provider:network_type": "network_type", "provider:physical_network": "physical_network", "provider:segmentation_id": "segmentation_id"}
    if any(name in wanted and wanted[name] != network[column] for name, column in same.items()):
        raise refused("Plugin does not support updating provider attributes")
    if network["shared"] and wanted.get("shared") is False:
        others = sa.select(ports.c.id).where(ports.c.network_id == network_id, ports.c.project_id.not_in([network["project_id"], ""]))
        if tx.first(others.limit(1)):
            raise fault("InvalidSharedSetting", network=network["name"] or network_id)
    if network["external"] and wanted.get("router:external") is False:
        gateway = sa.select(routers.c.id).where(routers.c.gateway_network_id == network_id)
        floating = sa.select(floating_ips.c.id).where(floating_ips.c.network_id == network_id)
        if tx.first(gateway.limit(1)) or tx.first(floating.limit(1)):
            raise fault("ExternalNetworkInUse", net_id=network_id)
    if wanted.get("is_default") and not network["is_default"]:
        _only_default(tx)


def delete(caller: Caller, network_id: str) -> None:
    """Raises NetworkInUse naming a port that uses it."""
    with caller.write() as tx:
        network = records.held(tx, caller, NETWORK, network_id, "delete")
        caller.require(NETWORK.target(network))
        if network["external"]:
            floating.remove_unled(tx, network_id)
        user = tx.first(sa.select(ports).where(ports.c.network_id == network_id, ports.c.device_owner != DHCP_PORT).limit(1))
        if user is not None:
            raise fault("NetworkInUse", net_id=network_id, reason="There are one or more ports still in use on the network, "
                        f"{used_by(user)} is one of them")  # fmt: skip
        placing.remove_dhcp(tx, network_id)
        for subnet_id in tx.conn.execute(sa.select(subnets.c.id).where(subnets.c.network_id == network_id)).scalars().all():
            tx.delete(subnets, id=subnet_id)
            journal.changed(tx, "subnet", subnet_id, "delete")
        tx.delete(segments, network_id=network_id)
        records.deleted(tx, NETWORK, network_id)
        if network["external"]:
            wiring.outside_changed(tx, network["physical_network"])


def used_by(port: db.Row) -> str:
    """A port in a message, with whose it is."""
    whose = f" ({port.device_owner or 'device'} {port.device_id})" if port.device_id else ""
    return f"port {port.id}{whose}"
