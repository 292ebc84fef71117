"""Hosts as compute shows them: services, hypervisors, availability zones.

A host is a row of core's `hosts`; what compute adds (enabled, forced down) is in `compute_hosts`. nova-scheduler and nova-conductor are
functions of our worker: they are up while a worker holds the lease of a loop.
"""

import socket
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre import placement
from nacre.compute import tables
from nacre.compute.tables import compute_hosts
from nacre.compute.tables import servers as server_table
from nacre.core import clock, db, joining, journal, leases, nodes
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Error, NotFound

INTERNAL = "internal"


@dataclass(frozen=True)
class ComputeService:
    """A row of `openstack compute service list`. `number`: its id before microversion 2.53."""

    number: int
    id: str
    binary: str
    host: str
    zone: str
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    up: bool
    updated_at: datetime | None


@dataclass(frozen=True)
class Hypervisor:
    """A host with what it has. `resources`: docs/node-contract.md."""

    row: db.Row
    service: ComputeService
    resources: Mapping[str, Any]
    offered: Mapping[str, placement.Inventory]
    used: Mapping[str, int]
    servers: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return str(self.resources.get("hypervisor_hostname") or self.row.name)


def alive(conn: db.Conn, names: Collection[str]) -> dict[str, tuple[bool, str]]:
    """host -> (whether it is up, its hypervisor's name)."""
    rows, flags = nodes.hosts_with(conn, names=names), tables.disabled_hosts(conn, names)
    return {row.name: (_up(row, flags), str(row.seen.get("hypervisor_hostname") or row.name)) for row in rows}


def _up(row: db.Row, flags: Mapping[str, db.Row]) -> bool:
    return nodes.alive(row) and not (row.name in flags and flags[row.name].forced_down)


def _services(conn: db.Conn) -> list[ComputeService]:
    boot, now = leases.now(conn)
    working = sa.select(leases.table.c.name).where(leases.table.c.name.like("loop:%"), leases.table.c.boot == boot, leases.table.c.until > now)
    worker = conn.execute(working.limit(1)).first() is not None
    host = socket.gethostname()
    found = [
        ComputeService(n, str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{binary}.{host}")), binary, host, INTERNAL, False, None, False, worker,
                       clock.utcnow() if worker else None)
        for n, binary in ((1, "nova-conductor"), (2, "nova-scheduler"))
    ]  # fmt: skip
    flags, zoned = tables.disabled_hosts(conn), tables.zones(conn)
    for row in nodes.all_hosts(conn):
        flag = flags.get(row.name)
        if flag is not None:
            zone = zoned.get(row.name, tables.ZONE)
            found.append(ComputeService(row.number + 2, flag.service_id, "nova-compute", row.name, zone, *tables.disabled(row, flag),
                                        flag.forced_down, _up(row, flags), row.last_seen))  # fmt: skip
    return found


def services(caller: Caller, host: str | None = None, binary: str | None = None) -> list[ComputeService]:
    caller.require({})
    with caller.read() as conn:
        return [s for s in _services(conn) if (not host or s.host == host) and (not binary or s.binary == binary)]


def update_service(caller: Caller, values: Mapping[str, Any], *, service_id: str = "", host: str = "", binary: str = "") -> ComputeService:
    """`values`: disabled, disabled_reason, forced_down. Found by id, or by host and binary."""
    caller.require({})
    with caller.write() as tx:
        found = next((s for s in _services(tx) if (s.id == service_id if service_id else (s.host, s.binary) == (host, binary))), None)
        if found is None:
            raise NotFound(f"Service {service_id} could not be found." if service_id else f"Could not find binary {binary} on host {host}.")
        if found.binary != "nova-compute":
            raise BadRequest(f"Updating a {found.binary} service is not supported. Only nova-compute services can be updated.")
        tx.update(compute_hosts, {"host": found.host}, **values)
        journal.changed(tx, "compute_service", found.id, "update", values, values)
        return next(s for s in _services(tx) if s.id == found.id)


def delete_service(caller: Caller, service_id: str) -> None:
    """A host that joined with a certificate has to join anew to come back."""
    caller.require({})
    with caller.write() as tx:
        found = next((s for s in _services(tx) if service_id in (s.id, str(s.number))), None)
        if found is None:
            raise NotFound(f"Service {service_id} could not be found.")
        joining.revoke(tx, found.host)
        tx.lock(sa.select(compute_hosts.c.host).where(compute_hosts.c.host == found.host))  # who schedules shares it
        if tx.first(sa.select(server_table.c.id).where(server_table.c.host == found.host, server_table.c.deleted_at.is_(None)).limit(1)):
            raise Conflict("Unable to delete compute service that is hosting instances. Migrate or delete the instances first.")
        if found.up:
            raise Conflict(f"Host {found.host} still reports: stop its node agent first.")
        tx.delete(tables.aggregate_hosts, host=found.host)
        tx.delete(compute_hosts, host=found.host)
        journal.changed(tx, "compute_service", found.id, "delete")


def hypervisors(caller: Caller, *, pattern: str | None = None, with_servers: bool = False) -> list[Hypervisor]:
    """In the order of their numbers. Raises NotFound when none matches `pattern`."""
    caller.require({})
    with caller.read() as conn:
        services_by_host = {s.host: s for s in _services(conn) if s.binary == "nova-compute"}
        candidates = {c.provider_id: c for c in placement.candidates(conn, {"VCPU": 1, "MEMORY_MB": 1, "DISK_GB": 1})}
        rows = [row for row in nodes.all_hosts(conn) if row.name in services_by_host]
        if pattern is not None:
            rows = [row for row in rows if pattern in str(row.seen.get("hypervisor_hostname") or row.name)]
            if not rows:
                raise NotFound(f"No hypervisor matching '{pattern}' could be found.")
        there = _servers_by_host(conn, [row.name for row in rows])
        found = []
        for row in rows:
            candidate = candidates.get(row.id)
            found.append(Hypervisor(row, services_by_host[row.name], row.seen, candidate.inventories if candidate else {}, candidate.usages
                                    if candidate else {},
                                    tuple(there.get(row.name, ()))))  # fmt: skip
        return found


def _servers_by_host(conn: db.Conn, names: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    c = server_table.c
    query = sa.select(c.host, c.id, c.number).where(c.host.in_(list(names)), c.deleted_at.is_(None)).order_by(c.number)
    found: dict[str, list[tuple[str, str]]] = {}
    for row in conn.execute(query):
        found.setdefault(row.host, []).append((row.id, f"instance-{row.number:08x}"))
    return found


def zones(caller: Caller, detail: bool) -> dict[str, list[ComputeService]]:
    """Zone -> its services; `detail` shows the internal one too. A zone is available while one of its hosts is."""
    caller.require({})
    with caller.read() as conn:
        found: dict[str, list[ComputeService]] = {}
        for service in _services(conn):
            if detail or service.zone != INTERNAL:
                found.setdefault(service.zone, []).append(service)
        return found


Amounts = tuple[int, int, int]
"""CPUs, MiB of memory, GB of disk."""


def used_of(caller: Caller, host: str) -> list[tuple[str, Amounts]]:
    """What a host has, what is used, what its servers may use at most, and that by project. Raises NotFound."""
    caller.require({})
    c = server_table.c
    with caller.read() as conn:
        row = _known(conn, host)
        query = sa.select(c.project_id, c.vcpus, c.memory_mb, c.flavor).where(c.host == host, c.deleted_at.is_(None)).order_by(c.number)
        by_project: dict[str, Amounts] = {}
        for server in conn.execute(query):
            so_far = by_project.get(server.project_id, (0, 0, 0))
            mine = (server.vcpus, server.memory_mb, server.flavor["root_gb"] + server.flavor["ephemeral_gb"])
            by_project[server.project_id] = _sum([so_far, mine])
    seen, most = row.seen, _sum(list(by_project.values()))
    total = (int(seen.get("vcpus", 0)), int(seen.get("memory_mb", 0)), int(seen.get("disk_gb", 0)))
    return [("(total)", total), ("(used_now)", most), ("(used_max)", most), *by_project.items()]


def _sum(amounts: Sequence[Amounts]) -> Amounts:
    cpu, memory, disk = (sum(each[at] for each in amounts) for at in range(3))
    return cpu, memory, disk


def _known(conn: db.Conn, host: str) -> db.Row:
    row = nodes.host_named(conn, host)
    if row is None or host not in tables.disabled_hosts(conn, [host]):
        raise NotFound(f"Compute host {host} could not be found.", kind="ComputeHostNotFound")
    return row


def update_host(caller: Caller, host: str, disabled: bool | None, maintenance: bool) -> None:
    """Raises NotFound, Error 501 for a maintenance mode, which no hypervisor here has."""
    caller.require({})
    with caller.write() as tx:
        _known(tx, host)
        if maintenance:
            raise Error("Virt driver does not implement host maintenance mode.", status=501)
        tx.update(compute_hosts, {"host": host}, disabled=disabled, disabled_reason=None)
        journal.changed(tx, "compute_service", host, "update", ("disabled",), {"disabled": disabled})


def power(caller: Caller, host: str) -> None:
    """Raises NotFound, else Error 501: no hypervisor here starts or stops its host."""
    caller.require({})
    with caller.read() as conn:
        _known(conn, host)
    raise Error("Virt driver does not implement host power management.", status=501)


def not_audited(caller: Caller) -> list[str]:
    """The compute hosts, none of which writes usage by period: usage is summed when it is asked for."""
    return [s.host for s in services(caller, binary="nova-compute")]
