"""What must stay true.

*power*: while nothing is being done to a server, its vm_state agrees with what its host last saw: destroyed behind our back is SHUTOFF,
started behind our back is ACTIVE. A report counts only if it came after the server's last move, since a node composes a report after
the one that carried the result of that move was answered.
*inventory*: placement knows of each host what it reported, with the configured ratios and reserves.
*consoles*: tokens that nobody used go.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre import placement
from nacre.compute import states, tables
from nacre.compute.fronts import INVENTORY, POWER
from nacre.compute.tables import compute_hosts, console_tokens, server_seen, servers
from nacre.core import clock, db, journal, nodes, tasks
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.config import Default
from nacre.core.loops import Loop


def inventories(seen: Mapping[str, Any], options: Default) -> dict[str, dict[str, Any]]:
    """What a host offers (wanted) from what it reported (seen)."""
    if not seen:
        return {}
    ratios = {"VCPU": options.cpu_allocation_ratio, "MEMORY_MB": options.ram_allocation_ratio, "DISK_GB": options.disk_allocation_ratio}
    totals = {"VCPU": int(seen["vcpus"]), "MEMORY_MB": int(seen["memory_mb"]), "DISK_GB": int(seen["disk_gb"])}
    reserved = {"VCPU": options.reserved_host_cpus, "MEMORY_MB": options.reserved_host_memory_mb,
                "DISK_GB": -(-options.reserved_host_disk_mb // 1024)}
    return {
        name: {"total": total, "reserved": min(reserved[name], total), "allocation_ratio": ratios[name], "min_unit": 1, "max_unit": total,
               "step_size": 1}
        for name, total in totals.items()
    }  # fmt: skip


def offer(cloud: Cloud, who: System) -> None:
    with cloud.db.read() as conn:
        told = tables.disabled_hosts(conn)
        rows = [(row, inventories(row.seen, cloud.config.DEFAULT)) for row in nodes.all_hosts(conn) if row.name in told]
    for row, wanted in rows:
        if wanted and told[row.name].offered != wanted:
            with cloud.db.write(who) as tx:
                placement.set_inventory(tx, row.id, str(row.seen.get("hypervisor_hostname") or row.name), wanted)
                tx.update(compute_hosts, {"host": row.name}, offered=wanted)


_POWERS = ((states.ACTIVE, "running"), (states.STOPPED, "shutdown"), (states.PAUSED, "paused"), (states.SUSPENDED, "suspended"))


def disagreeing(conn: db.Conn) -> list[db.Row]:
    """Servers at rest whose host saw, after their last move, something else than their vm_state says."""
    join = servers.join(server_seen, sa.and_(server_seen.c.server_id == servers.c.id, server_seen.c.host == servers.c.host)).join(
        compute_hosts, compute_hosts.c.host == servers.c.host)  # fmt: skip
    query = sa.select(servers, server_seen.c.power).select_from(join).where(
        servers.c.deleted_at.is_(None), servers.c.task_state.is_(None), servers.c.vm_state.in_(states.KEPT),
        compute_hosts.c.reports > servers.c.moved_after,
        sa.or_(*(sa.and_(servers.c.vm_state == vm, server_seen.c.power != power) for vm, power in _POWERS)))  # fmt: skip
    return [row for row in conn.execute(query) if states.reconciled(row.vm_state, row.power) != row.vm_state]


def agree(cloud: Cloud, who: System) -> None:
    with cloud.db.read() as conn:
        found = [row.id for row in disagreeing(conn) if not tasks.is_open(conn, f"server:{row.id}")]
    for server_id in found:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, server_id)
            power = tables.powers(tx, [server_id]).get(server_id)
            if row is None or power is None or row.task_state is not None or tasks.is_open(tx, f"server:{server_id}"):
                continue
            vm_state = states.reconciled(row.vm_state, power)
            if vm_state != row.vm_state:
                tables.move(tx, row, vm_state, None)
                journal.changed(tx, "server", row.id, "power_seen", ("vm_state",), {"vm_state": vm_state, "power": power})


def forget_tokens(cloud: Cloud, who: System) -> None:
    late = console_tokens.c.expires_at < clock.utcnow()
    with cloud.db.read() as conn:
        if conn.execute(sa.select(console_tokens.c.digest).where(late).limit(1)).first() is None:
            return
    with cloud.db.write(who) as tx:
        tx.execute(console_tokens.delete().where(late))


LOOPS: tuple[Loop, ...] = (
    Loop("compute-inventory", 15, offer, topic=INVENTORY),
    Loop("compute-power", 15, agree, topic=POWER),
    Loop("compute-consoles", 300, forget_tokens),
)
