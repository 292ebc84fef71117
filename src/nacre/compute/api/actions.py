"""Handlers of `POST /servers/{id}/action`, and of the consoles."""

from collections.abc import Callable
from typing import Any

from nacre.compute.bodies import common
from nacre.compute.bodies import diagnostics as diagnostics_bodies
from nacre.compute.bodies import servers as bodies
from nacre.compute.service import consoles, interfaces, servers
from nacre.core import node_api, nodes
from nacre.core.errors import Conflict
from nacre.core.http import Call
from nacre.core.tasks import StepFailed
from nacre.core.versions import UNSET


def power(method: str) -> Callable[[Call], None]:
    """start, stop, pause, unpause."""

    def act(call: Call) -> None:
        servers.begin(call.caller, call.path["id"], method, f"compute.{method}_server")

    return act


def reboot(call: Call) -> None:
    hard = call.body.type.upper() == "HARD"
    servers.begin(call.caller, call.path["id"], "reboot_hard" if hard else "reboot", "compute.reboot_server", {"hard": hard})


def lock(call: Call) -> None:
    servers.lock(call.caller, call.path["id"], bodies.lock_reason(call.body["lock"]) if call.version >= (2, 73) else None)


def unlock(call: Call) -> None:
    servers.unlock(call.caller, call.path["id"])


def restore(call: Call) -> None:
    """A server that is deleted is gone at once, so there is never one to restore."""
    servers.check(call.caller, call.path["id"], "restore")


def network_again(method: str) -> Callable[[Call], None]:
    """inject_network_info, reset_network: a guest asks for it itself, and its wires are kept true anyway."""

    def act(call: Call) -> None:
        servers.check(call.caller, call.path["id"], method)

    return act


def reset_state(call: Call) -> None:
    servers.reset_state(call.caller, call.path["id"], call.body.state)


def force_delete(call: Call) -> None:
    servers.delete(call.caller, call.path["id"])


def add_security_group(call: Call) -> None:
    servers.security_group(call.caller, call.path["id"], call.body.name, True)


def remove_security_group(call: Call) -> None:
    servers.security_group(call.caller, call.path["id"], call.body.name, False)


def add_fixed_ip(call: Call) -> None:
    interfaces.add_fixed_ip(call.caller, call.path["id"], str(call.body.networkId))


def remove_fixed_ip(call: Call) -> None:
    interfaces.remove_fixed_ip(call.caller, call.path["id"], common.address("address", call.body.address))


def add_floating_ip(call: Call) -> None:
    fixed = None if call.body.fixed_address is UNSET else common.address("fixed_address", call.body.fixed_address)
    interfaces.add_floating_ip(call.caller, call.path["id"], common.address("address", call.body.address), fixed)


def remove_floating_ip(call: Call) -> None:
    interfaces.remove_floating_ip(call.caller, call.path["id"], common.address("address", call.body.address))


async def console_output(call: Call) -> dict[str, Any]:
    """Waits for the guest's host, without a thread."""
    import anyio.to_thread

    row = await anyio.to_thread.run_sync(servers.show, call.caller, call.path["id"])
    if row.host is None:
        raise Conflict(f"Instance {row.id} is not ready", kind="InstanceNotReady")
    lines = call.body.length if call.body.length is not None and call.body.length >= 0 else None
    try:
        value = await node_api.ask(call.cloud, call.caller, row.host, nodes.NewCall("console_log", {"server_id": row.id, "lines": lines}, 30))
    except StepFailed as error:
        raise Conflict(f"Unable to get console log of instance {row.id}: {error}", kind="ConsoleLogUnavailable") from error
    return {"output": value["output"]}


async def diagnostics(call: Call) -> dict[str, Any]:
    """Waits for the guest's host, without a thread."""
    import anyio.to_thread

    row = await anyio.to_thread.run_sync(servers.show, call.caller, call.path["id"])
    if row.host is None:
        raise Conflict(f"Instance {row.id} is not ready", kind="InstanceNotReady")
    try:
        found = await node_api.ask(call.cloud, call.caller, row.host, nodes.NewCall("diagnostics", {"server_id": row.id}, 30))
    except StepFailed as error:
        raise Conflict(f"Cannot 'get_diagnostics' instance {row.id}: {error}", kind="InstanceInvalidState") from error
    return diagnostics_bodies.new(found, row) if call.version >= (2, 48) else diagnostics_bodies.old(found)


def _console(call: Call, protocol: str, kind: str) -> str:
    return consoles.grant(call.caller, call.path["id"], protocol, kind)


def vnc(call: Call) -> dict[str, Any]:
    kind = call.body.type
    return {"console": {"type": kind, "url": _console(call, "vnc", kind)}}


def spice(call: Call) -> dict[str, Any]:
    kind = call.body.type
    return {"console": {"type": kind, "url": _console(call, "spice", kind)}}


def serial(call: Call) -> dict[str, Any]:
    kind = call.body.type
    return {"console": {"type": kind, "url": _console(call, "serial", kind)}}


def remote_console(call: Call) -> dict[str, Any]:
    body = call.body
    return {"remote_console": {"protocol": body.protocol, "type": body.type, "url": _console(call, body.protocol, body.type)}}
