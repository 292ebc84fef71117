"""A server whose domain is gone from its host while its disk is there: it is defined again, off. One task, so that nothing else is done
to the server meanwhile; a server that is at work by then is left alone. Who asks is `nacre doctor --fix` (doctor.py).
"""

from typing import Any

from nacre import network
from nacre.compute import states, tables
from nacre.compute.tasks import GUEST_SECONDS, spec
from nacre.core import db, journal, nodes
from nacre.core.tasks import Run, task

TASK = "compute.repair_server"


@task(TASK, failed=lambda tx, run, error: None)
def repair(run: Run) -> None:
    server_id = run.args["server_id"]
    found = run.here("look", lambda tx: _look(tx, server_id))
    if found is not None:
        done = run.node("ensure_server", found["host"], nodes.NewCall("ensure_server", {"spec": found["spec"], "power": "shutdown"}, GUEST_SECONDS))
        run.last("finish", lambda tx: _finish(tx, server_id, done))


def _look(tx: db.Tx, server_id: str) -> dict[str, Any] | None:
    row = tables.locked(tx, server_id)
    if row is None or row.host is None or row.task_state is not None:
        return None
    return {"host": row.host, "spec": spec(row, network.ports_of(tx, [row.id])[row.id])}


def _finish(tx: db.Tx, server_id: str, done: Any) -> None:
    row = tables.locked(tx, server_id)
    if row is None or row.host is None or row.task_state is not None:
        return
    tables.see(tx, row.id, row.host, done["power"])
    if done["power"] == "shutdown" and row.vm_state in states.KEPT and row.vm_state != states.STOPPED:
        tables.move(tx, row, states.STOPPED, None)
    journal.changed(tx, "server", row.id, "repair", ("vm_state",), {"power": done["power"]})
