"""Statuses and moves of a server: the one table that says what may be.

`vm_state` is what a server is, `task_state` what is being done to it (upstream's values); `status` is computed from the two. VALID
lists every pair that may be stored; `tables.move` refuses any other. A verb may begin in the states of its row in VERBS, and puts the
task state there; its end (done or failed) is the final `vm_state` with `task_state` None in one write.
Upstream: nova/api/openstack/common.py, nova/compute/api.py (check_instance_state).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from nacre.core.errors import Conflict

BUILDING, ACTIVE, PAUSED, STOPPED, ERROR, DELETED = "building", "active", "paused", "stopped", "error", "deleted"
SUSPENDED, RESCUED, RESIZED = "suspended", "rescued", "resized"
_REBOOTS = ("rebooting", "rebooting_hard")
_SNAPSHOTS, _RESIZES = ("image_snapshot", "image_backup"), ("resize_prep", "resize_finish")

VALID: dict[str, tuple[str | None, ...]] = {
    BUILDING: ("scheduling", "spawning", "deleting"),
    ACTIVE: (None, "powering-off", "pausing", "suspending", *_REBOOTS, *_SNAPSHOTS, "rebuilding", *_RESIZES, "rescuing", "deleting"),
    PAUSED: (None, "unpausing", "suspending", "rebooting_hard", "powering-off", *_SNAPSHOTS, "rebuilding", "deleting"),
    SUSPENDED: (None, "resuming", "rebooting_hard", *_SNAPSHOTS, "rebuilding", "deleting"),
    STOPPED: (None, "powering-on", "rebooting_hard", *_SNAPSHOTS, "rebuilding", *_RESIZES, "rescuing", "deleting"),
    RESCUED: (None, "unrescuing", "powering-off", "rebooting_hard", "deleting"),
    RESIZED: (None, "resize_reverting", "resize_confirming", "deleting"),
    ERROR: (None, "powering-off", "rebooting_hard", "rebuilding", "rescuing", "deleting"),
    DELETED: (None,),
}
_STATUS = {BUILDING: "BUILD", ACTIVE: "ACTIVE", PAUSED: "PAUSED", SUSPENDED: "SUSPENDED", STOPPED: "SHUTOFF", RESCUED: "RESCUE",
           RESIZED: "VERIFY_RESIZE", ERROR: "ERROR", DELETED: "DELETED"}  # fmt: skip
_BUSY = {(ACTIVE, "rebooting"): "REBOOT", (RESIZED, "resize_reverting"): "REVERT_RESIZE",
         **{(vm_state, "rebooting_hard"): "HARD_REBOOT" for vm_state in (ACTIVE, PAUSED, SUSPENDED)},
         **{(vm_state, "rebuilding"): "REBUILD" for vm_state in (ACTIVE, PAUSED, SUSPENDED, STOPPED, ERROR)},
         **{(vm_state, task): "RESIZE" for vm_state in (ACTIVE, STOPPED) for task in _RESIZES}}  # fmt: skip
POWER = {"running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}
HELD = (ACTIVE, PAUSED, STOPPED)
KEPT = (*HELD, SUSPENDED)


@dataclass(frozen=True)
class Verb:
    """`method`: upstream's name of it in messages. `during` None: the state does not change while it works."""

    method: str
    vm_states: Collection[str]
    during: str | None = None
    task_states: Collection[str | None] = (None,)


_ANY = tuple(VALID)
_NOT_DELETING = tuple({task for tasks in VALID.values() for task in tasks} - {"deleting"})
VERBS = {
    verb.method: verb
    for verb in (
        Verb("start", (STOPPED,), "powering-on"),
        Verb("stop", (ACTIVE, RESCUED, ERROR), "powering-off"),
        Verb("reboot", (ACTIVE,), "rebooting"),
        Verb("reboot_hard", (*KEPT, ERROR), "rebooting_hard", (None, "rebooting", "powering-on", "pausing", "unpausing")),
        Verb("pause", (ACTIVE,), "pausing"),
        Verb("unpause", (PAUSED,), "unpausing"),
        Verb("suspend", (ACTIVE,), "suspending"),
        Verb("resume", (SUSPENDED,), "resuming"),
        Verb("snapshot", KEPT, "image_snapshot"),
        Verb("backup", KEPT, "image_backup"),
        Verb("rebuild", (*HELD, ERROR), "rebuilding"),
        Verb("resize", (ACTIVE, STOPPED), "resize_prep"),
        Verb("confirm_resize", (RESIZED,), "resize_confirming"),
        Verb("revert_resize", (RESIZED,), "resize_reverting"),
        Verb("rescue", (ACTIVE, STOPPED, ERROR), "rescuing"),
        Verb("unrescue", (RESCUED,), "unrescuing"),
        Verb("attach_interface", HELD, None),
        Verb("detach_interface", HELD, None),
        Verb("delete", _ANY, "deleting", _NOT_DELETING),
        Verb("update_instance_metadata", KEPT, None),
        Verb("delete_instance_metadata", KEPT, None),
        Verb("add_security_group", (*KEPT, RESCUED, RESIZED, ERROR), None, _NOT_DELETING),
        Verb("restore", ()),
        Verb("inject_network_info", HELD),
        Verb("reset_network", HELD),
        Verb("get_console", (ACTIVE, PAUSED, RESCUED, RESIZED), None, (None, *_REBOOTS)),
    )
}


def check(server_id: str, method: str, vm_state: str, task_state: str | None) -> Verb:
    """The verb, if it may begin now. Raises Conflict in upstream's words."""
    verb = VERBS[method]
    for attribute, value, allowed in (("vm_state", vm_state, verb.vm_states), ("task_state", task_state, verb.task_states)):
        if value not in allowed:
            named = "reboot" if method == "reboot_hard" else method
            raise Conflict(f"Cannot '{named}' instance {server_id} while it is in {attribute} {value}", kind="InstanceInvalidState")
    return verb


def status(vm_state: str, task_state: str | None) -> str:
    return _BUSY.get((vm_state, task_state or ""), _STATUS[vm_state])


def having_status(wanted: Iterable[str]) -> list[tuple[str, str | None]]:
    """The stored pairs that show as one of the statuses `wanted` (any case)."""
    names = {name.upper() for name in wanted}
    return [(vm_state, task) for vm_state, found in VALID.items() for task in found if status(vm_state, task) in names]


def wanted_power(vm_state: str, task_state: str | None) -> str:
    """What a host should keep up over a reboot of its own."""
    if task_state in ("powering-on", "unpausing", "resuming", *_REBOOTS):
        return "running"
    if task_state not in (None, "pausing", *_SNAPSHOTS):
        return "shutdown"  # on its way down, or a task starts it again
    return {ACTIVE: "running", RESCUED: "running", RESIZED: "running", PAUSED: "paused"}.get(vm_state, "shutdown")


def reconciled(vm_state: str, power: str) -> str:
    """The vm_state that agrees with what a host saw while nothing was being done (situation: `virsh destroy` behind our back)."""
    if vm_state == SUSPENDED and power == "running":
        return ACTIVE
    if vm_state not in HELD:
        return vm_state
    return {"running": ACTIVE, "paused": PAUSED if vm_state == PAUSED else vm_state, "shutdown": STOPPED, "crashed": STOPPED,
            "missing": STOPPED}.get(power, vm_state)  # fmt: skip
