"""What takes more than one step: create, delete, and the power verbs.

create   schedule (decided on a snapshot; claim, ports and host's document in one transaction) -> the image lies on the node (where a server
         that was launched from it is, it does, and is not asked for) -> the guest
         exists, paused -> its wires are reported true -> it runs -> ACTIVE. A host that cannot make it, or dies before the guest is told to
         run, is left for the next best one, five hosts at most. A failure takes all of it back and leaves ERROR with a fault; a guest that
         could not be taken away now gets a tombstone, which its host finds whenever it comes back.
delete   the guest is gone from its host (one that is down or whose hypervisor hangs gets a tombstone), then ports, allocation and rows.
power    one call to the node, then the final state. What the node answers is written as seen.

Races: `delete` cancels what runs; the cancelled task finds the states another's (`mine`), takes its own effects back and leaves them alone,
then the delete task, which was queued behind it, sees a server with no host or with one. A hard reboot takes over from what it may overtake.
A reset by an administrator cancels whatever runs and takes the states, too; what was undone leaves them as he said. But nobody's word makes
a guest that is not there: a task after which the server is on no host, or its guest is not whole, leaves ERROR (`ended_badly`), and a delete
that has told the host goes on to its end. That is what a reset does upstream, where the work under way finds that its task state is gone.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from nacre import network, placement
from nacre.compute import explanation, plan, scheduling, states, tables
from nacre.core import db, journal, nodes
from nacre.core.errors import Conflict
from nacre.core.statements import Statement, given
from nacre.core.tasks import Cancelled, HostDown, Run, StepFailed, steps_of, task
from nacre.core.timeline import without_hosts

IMAGE_SECONDS, GUEST_SECONDS, WIRES_SECONDS, POWER_SECONDS = 900.0, 300.0, 120.0, 120.0
UNDO_SECONDS = 60.0
ATTEMPTS, UNWIRED = 5, 25
_GROUP = Statement(sa.select(tables.server_groups.c.id).where(tables.server_groups.c.id == sa.select(tables.servers.c.group_id).where(
    tables.servers.c.id == given("server")).scalar_subquery()).with_for_update())  # fmt: skip
_HOST = Statement(sa.select(tables.compute_hosts.c.host).where(tables.compute_hosts.c.host == given("host")).with_for_update(read=True))
_BASE = Statement(sa.select(tables.servers.c.number).where(
    tables.servers.c.host == given("host"), tables.servers.c.image_id == given("image"), tables.servers.c.launched_at.is_not(None),
    tables.servers.c.deleted_at.is_(None), tables.servers.c.vm_state != states.ERROR, tables.servers.c.task_state.is_(None)).limit(1))  # fmt: skip
log = logging.getLogger("nacre.compute")


def spec(row: db.Row, ports: Any) -> dict[str, Any]:
    """ServerSpec of docs/node-contract.md."""
    flavor = row.flavor
    return {
        "id": row.id, "number": row.number, "name": row.name, "project_id": row.project_id, "vcpus": flavor["vcpus"],
        "memory_mb": flavor["memory_mb"], "root_gb": flavor["root_gb"], "ephemeral_gb": flavor["ephemeral_gb"], "swap_mb": flavor["swap_mb"],
        "image": _named_by_hash(row.image), "rescue": _named_by_hash(row.rescued_with["image"]) if row.rescued_with else None,
        "config_drive": bool(row.config_drive),
        "ports": [{"id": port.id, "mac_address": port.mac_address, "tap": port.tap, "mtu": port.mtu} for port in ports],
        "metadata": {"flavor": flavor["name"], "owner": {"user_id": row.user_id, "project_id": row.project_id}},
    }  # fmt: skip


def _named_by_hash(image: Mapping[str, Any]) -> dict[str, Any]:
    return {name: image[name] for name in ("image_id", "disk_format", "size", "hash_algo", "hash_value")}


# create


class _Again(Exception):
    """None of the best could be had: the decision is made anew. `unwired`: those to which the server's networks do not reach."""

    def __init__(self, unwired: explanation.Refused) -> None:
        super().__init__()
        self.unwired = unwired


def _placed(run: Run, mark: str, tried: explanation.Refused) -> Any:
    """What the step `schedule` says. Who finds all candidates taken since it looked decides anew, as often as that takes: each time somebody
    else was placed."""
    unwired: dict[str, tuple[str, str]] = {}
    while True:
        try:
            return run.work(f"schedule{mark}", partial(_deciding, run, tried, unwired), lambda tx, decision: _schedule(tx, run, decision),
                            undo=lambda tx, _: _unschedule(tx, run))  # fmt: skip
        except _Again as again:
            unwired |= again.unwired


@contextmanager
def _deciding(run: Run, tried: explanation.Refused, unwired: explanation.Refused) -> Iterator[scheduling.Decision | None]:
    """A decision on a snapshot, without candidates once UNWIRED hosts were out of reach; None when the server is gone."""
    left = {**tried, **unwired}
    with run.cloud.db.read() as conn:
        row = tables.by_id(conn, run.args["server_id"])
        decision = scheduling.decide(conn, row, _filters(run), left) if row is not None else None
    if decision is not None and len(unwired) >= UNWIRED:
        decision = replace(decision, choice=plan.Choice((), {**decision.choice.refused, **left}))
    yield decision


def _filters(run: Run) -> Sequence[str]:
    return run.cloud.config.filter_scheduler.enabled_filters


def _schedule(tx: db.Tx, run: Run, decision: scheduling.Decision | None) -> dict[str, Any]:
    """The best candidate is claimed if it is as it was seen, else the next; if none is, the best that still has room. Raises _Again."""
    _GROUP.first(tx, server=run.args["server_id"])  # its members decide one after another
    row = mine(tx, run)
    if row is None or decision is None:
        raise Cancelled("The server is being deleted.")
    choice, unwired = decision.choice, dict[str, tuple[str, str]]()
    if not choice.candidates:
        _decided(tx, row, None, choice)
        return {"host": None, "refused": choice.refused}
    if scheduling.group_of(tx, row) != decision.request.group:
        raise _Again({})
    for again in (False, True):
        if again:
            placement.hold(tx, [host.provider_id for host in choice.candidates])
        for host in scheduling.look_again(tx, decision, _filters(run)) if again else choice.candidates:
            if host.name in unwired:
                continue
            try:
                with tx.nested():
                    if placement.claim(tx, row.id, host.provider_id, host.generation, decision.request.resources, project_id=row.project_id,
                                       user_id=row.user_id):  # fmt: skip
                        _decided(tx, row, host.name, plan.Choice(choice.candidates, {**choice.refused, **unwired}))
                        return _take(tx, row, host)
            except Conflict as error:  # its networks do not reach there
                unwired[host.name] = ("PortBinding", error.message)
    raise _Again(unwired)


def _decided(tx: db.Tx, row: db.Row, host: str | None, choice: plan.Choice) -> None:
    """The decision is kept for who asks why; a later one takes its place."""
    body = explanation.kept(scheduling.resources(row), choice.candidates, choice.refused)
    values = {"at": tx.now, "request_id": tx.who.request_id, "host": host, "body": body}
    if not tx.update(tables.server_decisions, {"server_id": row.id}, **values):
        tx.insert(tables.server_decisions, server_id=row.id, **values)


def _no_valid_host(run: Run, server_id: str, refused: explanation.Refused) -> StepFailed:
    """What its owner is told, with what they can do; what an administrator can do is in the detail."""
    message, change = plan.no_valid_host(plan.Choice((), refused)), ("", "")
    with run.cloud.db.read() as conn:
        row = tables.by_id(conn, server_id)
        if row is not None:
            change = scheduling.smallest_change(conn, row, _filters(run), refused)
    detail = "\n".join([*(f"{host}: {name}: {why}" for host, (name, why) in sorted(refused.items())[: explanation.KEPT]), *filter(None, change)])
    return StepFailed(f"{message}{'' if message.endswith('.') else '.'} {change[0]}".strip() if change[0] else message, detail)


def _take(tx: db.Tx, row: db.Row, host: plan.Host) -> dict[str, Any]:
    if _HOST.first(tx, host=host.name) is None:
        raise Conflict(f"host {host.name} is no compute host any more")
    tables.move(tx, row, states.BUILDING, "spawning", host=host.name, availability_zone=host.zone)
    network.bind_ports(tx, row.id, host.name)
    nodes.hold(tx, host.name, "server", row.id)
    journal.changed(tx, "server", row.id, "schedule", ("host",), {"host": host.name})
    fetched = _BASE.first(tx, host=host.name, image=row.image_id) is not None
    return {"host": host.name, "spec": spec(row, network.ports_of(tx, [row.id]).get(row.id, ())), "fetched": fetched}


def _unschedule(tx: db.Tx, run: Run) -> None:
    row = tables.locked(tx, run.args["server_id"])
    if row is None or row.host is None:
        return
    _let_go(tx, row)
    network.unbind_ports(tx, row.id)
    tables.move(tx, row, row.vm_state, row.task_state, host=None)


def _let_go(tx: db.Tx, row: db.Row) -> None:
    """The host keeps nothing of the server and the room it took is free."""
    nodes.release(tx, "server", row.id)
    placement.release(tx, row.id)
    tx.delete(tables.server_seen, server_id=row.id)


def mine(tx: db.Tx, run: Run) -> db.Row | None:
    """The locked row of the server, while its states are this task's to write."""
    return tables.owned(tx, run.args["server_id"], run.id)


def _create_failed(tx: db.Tx, run: Run, error: Exception) -> None:
    begun = {step.name: step for step in steps_of(tx.conn, run.id)}
    for name, step in begun.items():
        undone = begun.get(f"undo:{name}")
        if name.startswith("ensure_server") and (undone is None or nodes.outcome(tx.conn, undone.call_id)[0] != "done"):
            nodes.call(tx, str(step.host), nodes.NewCall("absent_server", {"server_id": run.args["server_id"]}, None))
    ended_badly(tx, run, error, states.ERROR)


def ended_badly(tx: db.Tx, run: Run, error: Exception, vm_state: str | None) -> None:
    """The last word of a task that failed: what the server is now (None: what it was said to be). ERROR: its guest is not whole. After a
    reset that is all it may say, against the administrator's word; and nothing when the states are another task's."""
    row = tables.locked(tx, run.args["server_id"])
    if row is None or row.task_id not in (run.id, None):
        return
    if row.host is None:
        vm_state = states.ERROR
    if row.task_id is not None:
        fault(tx, row, vm_state or row.vm_state, error)
    elif vm_state == states.ERROR:
        fault(tx, row, vm_state, StepFailed(f"The server's state was reset while {run.kind.rpartition('.')[2]} was under way."))


def fault(tx: db.Tx, row: db.Row, vm_state: str, error: Exception, *, stands: bool = False, **values: Any) -> None:
    """Upstream's fault: what the user is told (`plain`: without names of hosts), and for administrators the cause. `stands`: it is shown
    until the server is launched again, whatever its status."""
    known = isinstance(error, StepFailed)
    message = str(error) if known else "An unexpected error: the log has its cause."
    plain = without_hosts(message, nodes.host_names(tx))
    told = {"code": 500, "message": message, "plain": plain, "created": tx.now.isoformat(),
             "details": getattr(error, "detail", "") or (repr(error) if not known else "")}  # fmt: skip
    tables.move(tx, row, vm_state, None, fault=told | ({"stands": True} if stands else {}), **values)
    journal.changed(tx, "server", row.id, "fault", ("vm_state", "fault"), {"vm_state": vm_state})


@task("compute.create_server", failed=_create_failed)
def create_server(run: Run) -> None:
    server_id = run.args["server_id"]
    tried: dict[str, str] = {}
    while True:
        host, problem = _try(run, server_id, tried)
        if problem is None:
            break
        tried[host] = str(problem)
        if len(tried) == ATTEMPTS or not _elsewhere(run, tried):
            raise problem
        _take_away(run, server_id, host, len(tried))
        run.here(f"unschedule:{len(tried)}", lambda tx: _unschedule(tx, run))
    done = run.node("ensure_power", host, nodes.NewCall("ensure_power", {"server_id": server_id, "power": "running"}, POWER_SECONDS))
    run.last("finish", lambda tx: finish(tx, run, states.ACTIVE, done, launched_at=tx.now))


def _try(run: Run, server_id: str, tried: Mapping[str, str]) -> tuple[str, StepFailed | None]:
    """(a host, why it could not make the guest)."""
    mark = f":{len(tried) + 1}" if tried else ""
    placed = _placed(run, mark, _retries(tried))
    if placed["host"] is None:
        raise _no_valid_host(run, server_id, {host: (name, why) for host, (name, why) in placed["refused"].items()})
    host, wanted = placed["host"], placed["spec"]
    try:
        if not placed.get("fetched"):
            run.node(f"ensure_image{mark}", host, nodes.NewCall("ensure_image", wanted["image"], IMAGE_SECONDS))
        run.node(f"ensure_server{mark}", host, nodes.NewCall("ensure_server", {"spec": wanted, "power": "paused"}, GUEST_SECONDS),
                 undo=nodes.NewCall("absent_server", {"server_id": server_id}, UNDO_SECONDS))  # fmt: skip
    except Cancelled:
        raise
    except StepFailed as error:
        return host, error
    try:
        run.wait(f"wired{mark}", host, lambda conn: network.wires_of(conn, host, server_id),
                 lambda conn, wires: network.unwired(conn, host, server_id, wires or {}), WIRES_SECONDS)  # fmt: skip
    except HostDown as error:
        return host, error
    return host, None


def _take_away(run: Run, server_id: str, host: str, number: int) -> None:
    """What the host has made of the guest; one that cannot now is told again, whenever it comes back."""
    try:
        run.node(f"absent_server:{number}", host, nodes.NewCall("absent_server", {"server_id": server_id}, UNDO_SECONDS))
    except Cancelled:
        raise
    except StepFailed:
        log.warning("server %s is not taken away from %s yet", server_id, host)
        run.here(f"tombstone:{number}", lambda tx: nodes.call(tx, host, nodes.NewCall("absent_server", {"server_id": server_id}, None)))


def _elsewhere(run: Run, tried: Mapping[str, str]) -> bool:
    """Whether there is a host that was not tried."""
    return bool(run.work(f"elsewhere:{len(tried)}", partial(_deciding, run, _retries(tried), {}),
                         lambda tx, decision: decision is not None and bool(decision.choice.candidates) and mine(tx, run) is not None))  # fmt: skip


def _retries(tried: Mapping[str, str]) -> explanation.Refused:
    return {host: ("RetryFilter", why) for host, why in tried.items()}


def finish(tx: db.Tx, run: Run, vm_state: str, value: Mapping[str, Any] | None, **values: Any) -> None:
    """The final write of a verb that went well."""
    row = mine(tx, run)
    if row is None:
        return  # reset by an administrator, taken over by a hard reboot, or on its way out
    tables.move(tx, row, vm_state, None, **values)
    if value and value.get("power") and row.host:
        tables.see(tx, row.id, row.host, value["power"])
    journal.changed(tx, "server", row.id, run.kind.rpartition(".")[2], ("vm_state", "task_state"), {"vm_state": vm_state})


# power


def as_before(tx: db.Tx, run: Run, error: Exception) -> None:
    """The server is what it was; what was asked has a fault."""
    ended_badly(tx, run, error, run.args["before"])


def _power(name: str, after: str, verb: str, args: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    @task(f"compute.{name}_server", failed=as_before)
    def work(run: Run) -> None:
        server_id = run.args["server_id"]
        with run.cloud.db.read() as conn:
            row = tables.by_id(conn, server_id)
        if row is None or row.host is None:
            raise StepFailed("The server is not on a host.")
        call = nodes.NewCall(verb, {"server_id": server_id, **args(run.args)}, POWER_SECONDS)
        done = run.node(verb, row.host, call)
        run.last("finish", lambda tx: finish(tx, run, after, done, **({"launched_at": tx.now} if name == "start" else {})))


_power("start", states.ACTIVE, "ensure_power", lambda args: {"power": "running"})
_power("stop", states.STOPPED, "ensure_power", lambda args: {"power": "shutdown", "timeout": 60})
_power("pause", states.PAUSED, "ensure_power", lambda args: {"power": "paused"})
_power("unpause", states.ACTIVE, "ensure_power", lambda args: {"power": "running"})
_power("suspend", states.SUSPENDED, "ensure_power", lambda args: {"power": "suspended"})
_power("resume", states.ACTIVE, "ensure_power", lambda args: {"power": "running"})
_power("reboot", states.ACTIVE, "reboot_server", lambda args: {"hard": bool(args.get("hard")), "timeout": 60})


# delete


def _delete_failed(tx: db.Tx, run: Run, error: Exception) -> None:
    """One that was cancelled had not begun."""
    ended_badly(tx, run, error, None if isinstance(error, Cancelled) else states.ERROR)


@task("compute.delete_server", failed=_delete_failed)
def delete_server(run: Run) -> None:
    server_id = run.args["server_id"]
    found = run.here("look", lambda tx: _look(tx, server_id))
    host, left = found["host"], None if found["alive"] else found["host"]
    if host is not None and left is None:
        try:
            run.node("absent_server", host, nodes.NewCall("absent_server", {"server_id": server_id}, GUEST_SECONDS), no_return=True)
        except Cancelled:
            raise
        except StepFailed:
            if run.here("look_again", lambda tx: _look(tx, server_id))["alive"]:
                raise
            left = host
    run.last("finish", lambda tx: _gone(tx, server_id, left))


def _look(tx: db.Tx, server_id: str) -> dict[str, Any]:
    row = tables.by_id(tx, server_id)
    host = nodes.host_named(tx, row.host) if row is not None and row.host else None
    able = host is not None and nodes.alive(host) and not nodes.troubled(host, tables.HYPERVISOR)
    return {"host": host.name if host is not None else None, "alive": able}


def _gone(tx: db.Tx, server_id: str, left: str | None) -> None:
    """`left`: the host that could not be told, and finds a tombstone."""
    if left is not None:
        nodes.call(tx, left, nodes.NewCall("absent_server", {"server_id": server_id}, None))
    row = tables.locked(tx, server_id)
    if row is None:
        return
    network.release_ports(tx, row.id)
    _let_go(tx, row)
    tables.move(tx, row, states.DELETED, None, deleted_at=tx.now, terminated_at=tx.now, injected_files=None)
    tx.delete(tables.server_tags, server_id=row.id)
    tx.delete(tables.console_tokens, server_id=row.id)
    tx.delete(tables.server_decisions, server_id=row.id)
    journal.changed(tx, "server", row.id, "deleted", ("vm_state", "deleted_at"))
