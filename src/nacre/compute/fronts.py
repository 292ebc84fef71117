"""What other services and the node API ask of compute, as the system."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre import network
from nacre.compute import metadata as about
from nacre.compute import states, tables, vendordata
from nacre.compute.tables import compute_hosts, server_seen, servers
from nacre.compute.tasks import spec
from nacre.core import db, ids, journal, nodes, tasks
from nacre.core.cloud import Cloud
from nacre.core.node_api import Render
from nacre.core.statements import Statement, given, given_list

INVENTORY, POWER = "compute:inventory", "compute:power"


_PLACED = Statement(sa.select(servers).where(
    servers.c.id.in_(given_list("ids")), servers.c.deleted_at.is_(None), servers.c.host.is_not(None)))  # fmt: skip
_FLAGS = Statement(sa.select(compute_hosts).where(compute_hosts.c.host == given("host")))
_SEEN = Statement(sa.select(server_seen).where(server_seen.c.host == given("host")))
_HERE = Statement(sa.select(servers.c.id).where(servers.c.host == given("host"), servers.c.deleted_at.is_(None)))


def render_servers(conn: sa.Connection, server_ids: Sequence[str]) -> dict[str, Any]:
    """Wanted documents of kind `server`."""
    rows = _PLACED.rows(conn, ids=server_ids)
    ports = network.ports_of(conn, [row.id for row in rows])
    return {
        row.id: {"host": row.host, "power": states.wanted_power(row.vm_state, row.task_state), "spec": spec(row, ports.get(row.id, ()))}
        for row in rows
    }  # fmt: skip


DOCUMENTS: dict[str, Render] = {"server": render_servers}


def reported(tx: db.Tx, host: str, seen: Mapping[str, Any]) -> None:
    """A host told what it saw: which guests in what power, and what it has."""
    flag = _FLAGS.first(tx, host=host)
    if flag is None:
        tx.insert(compute_hosts, host=host, service_id=ids.uuid(), disabled=False, forced_down=False, reported_at=tx.now, reports=0, offered={})
    elif "servers" in seen:
        tx.update(compute_hosts, {"host": host}, reported_at=tx.now, reports=compute_hosts.c.reports + 1)
    resources = seen.get("resources")
    offered = flag.offered if flag is not None else {}
    totals = {"VCPU": "vcpus", "MEMORY_MB": "memory_mb", "DISK_GB": "disk_gb"}
    if resources and any(offered.get(name, {}).get("total") != resources.get(key) for name, key in totals.items()):
        tx.ring(INVENTORY)
    if "servers" in seen:
        _see(tx, host, seen["servers"])


def _see(tx: db.Tx, host: str, guests: Mapping[str, Mapping[str, Any]]) -> None:
    before = {row.server_id: row.power for row in _SEEN.rows(tx, host=host)}
    here = {row.id for row in _HERE.rows(tx, host=host)}
    now = {server_id: str(guests.get(server_id, {}).get("power", "missing")) for server_id in here}
    changed = {server_id: power for server_id, power in now.items() if before.get(server_id) != power}
    for server_id, power in changed.items():
        tables.see(tx, server_id, host, power)
    if changed:
        tx.ring(POWER)


def metadata(cloud: Cloud, conn: sa.Connection, kind: str, scope_id: str, address: str) -> Mapping[str, Any] | None:
    """The metadata of the guest with `address` on the network or behind the router `scope_id`: {"server_id", "project_id", "files"}."""
    server_id = network.server_at(conn, kind, scope_id, address)
    row = tables.by_id(conn, server_id) if server_id is not None else None
    if row is None:
        return None
    return {"server_id": row.id, "project_id": row.project_id, "files": about.files(_guest(cloud, conn, row))}


def keep_password(tx: db.Tx, kind: str, scope_id: str, address: str, password: str) -> int:
    """What the guest leaves for its user, once: 200; 409 when there is one, 404 when there is no such guest."""
    server_id = network.server_at(tx, kind, scope_id, address)
    row = tables.locked(tx, server_id) if server_id is not None else None
    if row is None:
        return 404
    if row.guest_password is not None:
        return 409
    tx.update(servers, {"id": row.id}, guest_password=password)
    journal.changed(tx, "server", row.id, "set_password", ("guest_password",))
    return 200


def config_drive(cloud: Cloud, conn: sa.Connection, host: str, server_id: str) -> Mapping[str, Any] | None:
    """{"files"} of the config drive of a server on `host`; None when there is none, as when the server is deleted."""
    row = tables.by_id(conn, server_id)
    if row is None or row.host != host or not row.config_drive:
        return None
    return {"files": about.config_drive(_guest(cloud, conn, row))}


def _guest(cloud: Cloud, conn: sa.Connection, row: db.Row) -> about.Guest:
    ports = network.ports_of(conn, [row.id])[row.id]
    subnets = network.subnets_of(conn, {fixed["subnet_id"] for port in ports for fixed in port.fixed_ips})
    return about.Guest(row, ports, subnets, vendordata.static(cloud))


def port_deleted(tx: db.Tx, server_id: str, port: Mapping[str, str]) -> None:
    """The user deleted a port of the server: when nothing else is done to it, its guest lets go of the interface."""
    row = tables.by_id(tx, server_id)
    if row is not None and row.host is not None and row.task_state != "deleting":
        nodes.bump(tx, "server", row.id)
        tasks.start(tx, "compute.detach_interface", f"server:{row.id}", {"server_id": row.id, "host": row.host, "port": dict(port)})


def port_used_by(conn: db.Conn, server_id: str) -> str:
    """What a 409 calls the server that uses a port."""
    row = tables.by_id(conn, server_id)
    return f"server {row.name} ({server_id})" if row is not None else f"server {server_id}"
