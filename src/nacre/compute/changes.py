"""Tasks that change what a server is made of: snapshot, rebuild, resize, rescue, interfaces.

Each turns the guest off, changes its disk or its definition, and starts it from the new ServerSpec; every step before the point of no
return has its undo, which ends with the guest as it was. A resize keeps a copy of the disk until it is confirmed: reverting throws
away what the guest wrote since. A copy from a resize that was neither (a reset took the server out of it) goes before the next one is
made. A rebuild has no way back: what fails after its disks are gone leaves ERROR, and may be asked again.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from nacre import image as images
from nacre import network, placement
from nacre.compute import plan, scheduling, states, tables
from nacre.compute.scheduling import resources
from nacre.compute.tasks import GUEST_SECONDS, IMAGE_SECONDS, POWER_SECONDS, UNDO_SECONDS, as_before, ended_badly, finish, spec
from nacre.core import db, journal, nodes
from nacre.core.tasks import Run, StepFailed, task

UPLOAD_SECONDS = 1800.0


def _broken(tx: db.Tx, run: Run, error: Exception) -> None:
    ended_badly(tx, run, error, states.ERROR)


def _now(run: Run, **instead: Any) -> tuple[Any, str, dict[str, Any]]:
    """(row with `instead` in it, host, ServerSpec of that)."""
    with run.cloud.db.read() as conn:
        row = tables.by_id(conn, run.args["server_id"])
        ports = network.ports_of(conn, [run.args["server_id"]])[run.args["server_id"]]
    if row is None or row.host is None:
        raise StepFailed("The server is not on a host.")
    seen = SimpleNamespace(**{**row._mapping, **instead})
    return seen, row.host, spec(seen, ports)  # type: ignore[arg-type]


def _power_of(vm_state: str) -> str:
    return "running" if vm_state in (states.ACTIVE, states.RESCUED, states.PAUSED) else "shutdown"


def _call(verb: str, server_id: str, seconds: float = POWER_SECONDS, **args: Any) -> nodes.NewCall:
    return nodes.NewCall(verb, {"server_id": server_id, **args}, seconds)


def _start(guest: Mapping[str, Any], power: str, seconds: float = GUEST_SECONDS) -> nodes.NewCall:
    return nodes.NewCall("ensure_server", {"spec": guest, "power": power}, seconds)


# snapshot


def _no_image(tx: db.Tx, run: Run, error: Exception) -> None:
    images.discard_snapshot(tx, run.args["image_id"])
    as_before(tx, run, error)


@task("compute.snapshot_server", failed=_no_image)
def snapshot(run: Run) -> None:
    _upload(run)
    run.last("finish", lambda tx: finish(tx, run, run.args["before"], None))


def _upload(run: Run) -> None:
    row, host, _ = _now(run)
    power = {states.ACTIVE: "running", states.PAUSED: "paused", states.SUSPENDED: "suspended"}.get(run.args["before"], "shutdown")
    run.node("upload_image", host, _call("upload_image", row.id, UPLOAD_SECONDS, image_id=run.args["image_id"], power=power))


@task("compute.backup_server", failed=_no_image)
def backup(run: Run) -> None:
    """A snapshot after which the oldest of its kind go."""
    _upload(run)
    alike = {"image_type": "backup", "backup_type": run.args["backup_type"], "instance_uuid": run.args["server_id"]}
    run.here("rotate", lambda tx: images.keep_newest(tx, run.args["project_id"], alike, run.args["rotation"]))
    run.last("finish", lambda tx: finish(tx, run, run.args["before"], None))


# rebuild


@task("compute.rebuild_server", failed=_broken)
def rebuild(run: Run) -> None:
    row, host, guest = _now(run)
    after = states.STOPPED if run.args["before"] == states.STOPPED else states.ACTIVE
    run.node("ensure_image", host, nodes.NewCall("ensure_image", guest["image"], IMAGE_SECONDS))
    run.node("off", host, _call("ensure_power", row.id, power="shutdown", hard=True))
    run.node("absent_disks", host, _call("absent_disks", row.id))
    done = run.node("ensure_server", host, _start(guest, _power_of(after)))
    run.last("finish", lambda tx: finish(tx, run, after, done, launched_at=tx.now))


# resize


def _claim(tx: db.Tx, run: Run, flavor: Mapping[str, Any]) -> dict[str, Any]:
    """Both flavors' room is held until the resize is confirmed or reverted."""
    row = tables.locked(tx, run.args["server_id"])
    if row is None or row.host is None:
        raise StepFailed("The server is not on a host.")
    before, after = resources(row), resources(SimpleNamespace(flavor=flavor))  # type: ignore[arg-type]
    both = {name: max(before[name], after[name]) for name in after}
    host = scheduling.host_named(tx, row.host, {name: both[name] - before[name] for name in both})
    if host is None or not placement.claim(tx, row.id, host.provider_id, host.generation, both, project_id=row.project_id, user_id=row.user_id):
        missing = "; ".join(host.missing) if host is not None and host.missing else "there is not enough room for the new flavor"
        raise StepFailed(plan.no_valid_host(plan.Choice((), {row.host: ("ResourcesFilter", missing)})))
    kept = {"flavor": row.flavor, "before": run.args["before"]}
    tables.move(tx, row, row.vm_state, "resize_finish", resized_from=kept, **_columns(flavor))
    nodes.bump(tx, "server", row.id)
    return kept


def _columns(flavor: Mapping[str, Any]) -> dict[str, Any]:
    return {"flavor": dict(flavor), "flavor_id": flavor["id"], "vcpus": flavor["vcpus"], "memory_mb": flavor["memory_mb"]}


def _unclaim(tx: db.Tx, run: Run, flavor: Mapping[str, Any]) -> None:
    """The flavor is this one, and no other's room is held."""
    row = tables.locked(tx, run.args["server_id"])
    if row is None or row.host is None:
        return
    _hold(tx, row, flavor)
    tables.move(tx, row, row.vm_state, row.task_state, resized_from=None, **_columns(flavor))
    nodes.bump(tx, "server", row.id)


def _hold(tx: db.Tx, row: db.Row, flavor: Mapping[str, Any]) -> None:
    wanted = resources(SimpleNamespace(flavor=flavor))  # type: ignore[arg-type]
    host = scheduling.host_named(tx, row.host, wanted)
    assert host is not None
    placement.claim(tx, row.id, host.provider_id, host.generation, wanted, project_id=row.project_id, user_id=row.user_id)


def _not_resized(tx: db.Tx, run: Run, error: Exception) -> None:
    tables.migrated(tx, run.args["server_id"], "migrating", "error")
    as_before(tx, run, error)


def _finished(tx: db.Tx, run: Run, done: Mapping[str, Any] | None) -> None:
    tables.migrated(tx, run.args["server_id"], "migrating", "finished")
    finish(tx, run, states.RESIZED, done)


@task("compute.resize_server", failed=_not_resized)
def resize(run: Run) -> None:
    flavor, power = run.args["flavor"], _power_of(run.args["before"])
    kept = run.here("claim", lambda tx: _claim(tx, run, flavor), undo=lambda tx, kept: _unclaim(tx, run, kept["flavor"]))
    row, host, old = _now(run, flavor=kept["flavor"])
    _, _, new = _now(run, flavor=flavor)
    run.node("off", host, _call("ensure_power", row.id, power="shutdown", timeout=60), undo=_start(old, power, UNDO_SECONDS))
    run.node("absent_backup", host, _call("absent_backup", row.id))
    run.node("ensure_backup", host, _call("ensure_backup", row.id, GUEST_SECONDS), undo=_call("restore_backup", row.id, UNDO_SECONDS))
    done = run.node("ensure_server", host, _start(new, power), undo=_call("ensure_power", row.id, UNDO_SECONDS, power="shutdown", hard=True))
    run.last("finish", lambda tx: _finished(tx, run, done))


@task("compute.confirm_resize", failed=as_before)
def confirm_resize(run: Run) -> None:
    row, host, _ = _now(run)
    run.node("absent_backup", host, _call("absent_backup", row.id))
    run.last("finish", lambda tx: _confirmed(tx, run))


def _confirmed(tx: db.Tx, run: Run) -> None:
    row = tables.locked(tx, run.args["server_id"])
    if row is not None and row.host is not None:
        _hold(tx, row, row.flavor)
        tables.migrated(tx, row.id, "finished", "confirmed")
        before = (row.resized_from or {}).get("before", states.ACTIVE)
        finish(tx, run, before, None, resized_from=None)


@task("compute.revert_resize", failed=_broken)
def revert_resize(run: Run) -> None:
    kept = run.args["resized_from"]
    row, host, old = _now(run, flavor=kept["flavor"])
    run.node("off", host, _call("ensure_power", row.id, power="shutdown", hard=True))
    run.node("restore_backup", host, _call("restore_backup", row.id))
    run.here("unclaim", lambda tx: _unclaim(tx, run, kept["flavor"]))
    done = run.node("ensure_server", host, _start(old, _power_of(kept["before"])))
    run.last("finish", lambda tx: _reverted(tx, run, done))


def _reverted(tx: db.Tx, run: Run, done: Mapping[str, Any] | None) -> None:
    tables.migrated(tx, run.args["server_id"], "finished", "reverted")
    finish(tx, run, run.args["resized_from"]["before"], done)


# rescue


def _rescued_with(tx: db.Tx, run: Run, value: Mapping[str, Any] | None) -> None:
    row = tables.locked(tx, run.args["server_id"])
    if row is not None:
        tables.move(tx, row, row.vm_state, row.task_state, rescued_with=value)
        nodes.bump(tx, "server", row.id)


@task("compute.rescue_server", failed=as_before)
def rescue(run: Run) -> None:
    kept = {"image": run.args["image"], "before": run.args["before"]}
    run.here("keep", lambda tx: _rescued_with(tx, run, kept), undo=lambda tx, _: _rescued_with(tx, run, None))
    row, host, old = _now(run, rescued_with=None)
    _, _, new = _now(run, rescued_with=kept)
    run.node("ensure_image", host, nodes.NewCall("ensure_image", new["rescue"], IMAGE_SECONDS))
    run.node("off", host, _call("ensure_power", row.id, power="shutdown", timeout=60),
             undo=_start(old, _power_of(run.args["before"]), UNDO_SECONDS))  # fmt: skip
    done = run.node("ensure_server", host, _start(new, "running"), undo=_call("ensure_power", row.id, UNDO_SECONDS, power="shutdown", hard=True))
    run.last("finish", lambda tx: finish(tx, run, states.RESCUED, done))


@task("compute.unrescue_server", failed=_broken)
def unrescue(run: Run) -> None:
    row, host, guest = _now(run, rescued_with=None)
    run.node("off", host, _call("ensure_power", row.id, power="shutdown", hard=True))
    run.here("forget", lambda tx: _rescued_with(tx, run, None))
    done = run.node("ensure_server", host, _start(guest, "running"))
    run.last("finish", lambda tx: finish(tx, run, states.ACTIVE, done))


# interfaces


def _not_attached(tx: db.Tx, run: Run, error: Exception) -> None:
    if run.args["port"]["id"] in {port.id for port in network.ports_of(tx, [run.args["server_id"]])[run.args["server_id"]]}:
        network.release_port(tx, run.args["server_id"], run.args["port"]["id"])
        nodes.bump(tx, "server", run.args["server_id"])
        journal.changed(tx, "server", run.args["server_id"], "attach_interface.failed", ("ports",))


@task("compute.attach_interface", failed=_not_attached)
def attach_interface(run: Run) -> None:
    server_id, host, port = run.args["server_id"], run.args["host"], run.args["port"]
    run.node("ensure_interface", host, _call("ensure_interface", server_id, port=port), undo=_call("absent_interface", server_id, port=port))


@task("compute.detach_interface", failed=lambda tx, run, error: None)
def detach_interface(run: Run) -> None:
    server_id, host, port = run.args["server_id"], run.args["host"], run.args["port"]
    run.node("absent_interface", host, _call("absent_interface", server_id, port=port))
    run.here("release", lambda tx: _release(tx, server_id, port["id"]))


def _release(tx: db.Tx, server_id: str, port_id: str) -> None:
    if port_id in {port.id for port in network.ports_of(tx, [server_id])[server_id]}:
        network.release_port(tx, server_id, port_id)
        nodes.bump(tx, "server", server_id)
        journal.changed(tx, "server", server_id, "detach_interface", ("ports",))
