"""Servers in a backup (theory: core/backup.py).

One that something was being done to stays what it was before, or is ERROR where its guest may be half of one thing and half of another;
its fault says so. One whose disk is not there is SHUTOFF, with a fault that is shown until it is rebuilt. Guests that should run are
started by their hosts, as after a reboot. Hosts may have guests that are newer than the backup and bear the numbers that would come next, by
which domains are named: new servers go on with the epoch's number, which is higher with every restore.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from nacre import image
from nacre.compute import states, tables, tasks
from nacre.core import db, nodes
from nacre.core import tasks as durable
from nacre.core.tasks import StepFailed

_WHOLE = ("powering-on", "powering-off", "pausing", "unpausing", "suspending", "resuming", "rebooting", "rebooting_hard", "image_snapshot",
          "image_backup", "deleting")  # fmt: skip
_HAVE_DISKS = (*states.KEPT, states.RESCUED, states.RESIZED)


def on_hosts(conn: sa.Connection) -> list[dict[str, Any]]:
    """{"id", "host"} of every server that a host has."""
    c = tables.servers.c
    query = sa.select(c.id, c.host).where(c.deleted_at.is_(None), c.host.is_not(None)).order_by(c.number)
    return [{"id": row.id, "host": row.host} for row in conn.execute(query)]


def restored(tx: db.Tx, when: str, without: Collection[str]) -> None:
    for row in tx.all(sa.select(tables.servers).where(tables.servers.c.deleted_at.is_(None))):
        lost = row.host is not None and row.id in without and row.vm_state in _HAVE_DISKS
        if lost:
            why = StepFailed(f"The cloud was restored from a backup of {when} that has no disk of this server: rebuild it.")
            tasks.fault(tx, row, states.STOPPED, why, stands=True, rescued_with=None, resized_from=None)
        elif row.task_state is not None:
            whole = row.task_state in _WHOLE and row.vm_state != states.BUILDING
            why = StepFailed(f"The cloud was restored from a backup of {when}, taken while the server was {row.task_state}.")
            kept: dict[str, Any] = {} if whole else {"rescued_with": None, "resized_from": None}
            tasks.fault(tx, row, row.vm_state if whole else states.ERROR, why, **kept)
    unfinished = sa.select(durable.tasks.c.args).where(durable.tasks.c.kind == "compute.snapshot_server", durable.tasks.c.state.in_(durable.OPEN))
    for args in [row.args for row in tx.all(unfinished)]:
        image.discard_snapshot(tx, args["image_id"])
    nodes.set_fact(tx, tables.NUMBERS, max(tx.scalar(sa.select(sa.func.max(tables.servers.c.number))) or 0, nodes.epoch(tx)) + 1)
    tx.execute(tables.server_seen.delete())
    tx.execute(tables.console_tokens.delete())
