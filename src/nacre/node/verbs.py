"""The verbs of docs/node-contract.md, each as a function on the hypervisor's contract.

`reboot_server` is no `ensure`: before it does anything it notes which start of the guest it means to end, once per fence, so a repeat
after kill -9 goes on from wherever the first one stopped and never reboots twice.
"""

from collections.abc import Callable
from typing import IO, Any

import msgspec

from nacre.node.calls import Call, Verb
from nacre.node.console import Far, open_console, pipe
from nacre.node.deadline import Deadline
from nacre.node.fences import Fences
from nacre.node.hypervisor.driver import ConsoleKind, Hypervisor, ImageSpec, PortSpec, Power, ServerSpec, Wanted


class _EnsureServer(msgspec.Struct):
    spec: ServerSpec
    power: Wanted = "running"


class _EnsurePower(msgspec.Struct):
    server_id: str
    power: Wanted
    hard: bool = False
    timeout: float = 60


class _Reboot(msgspec.Struct):
    server_id: str
    hard: bool = False
    timeout: float = 60


class _UploadImage(msgspec.Struct):
    """`power`: what the guest is, and is afterwards."""

    server_id: str
    image_id: str
    power: Power


class _ConvertImage(msgspec.Struct):
    """`size`: bytes of what was staged; `to`: the format that is wanted."""

    image_id: str
    disk_format: str
    size: int
    to: str


class _Interface(msgspec.Struct):
    server_id: str
    port: PortSpec


class _ConsoleLog(msgspec.Struct):
    server_id: str
    lines: int | None = None


class _EnsureConsole(msgspec.Struct):
    server_id: str
    kind: ConsoleKind
    rendezvous: str


def verbs(hypervisor: Hypervisor, fences: Fences, dial: Callable[[str], Far], upload: Callable[[str, IO[bytes]], None]) -> dict[str, Verb]:
    """The table by which calls are run. `dial(rendezvous)` reaches the far end of a console, `upload(image id, file)` gives an image
    to the control plane."""

    def ensure_image(call: Call, deadline: Deadline) -> dict[str, Any]:
        return {"virtual_size": hypervisor.ensure_image(msgspec.convert(call.args, ImageSpec), deadline)}

    def convert_image(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _ConvertImage)
        with hypervisor.converted(ImageSpec(args.image_id, args.disk_format, args.size), args.to, deadline) as file:
            upload(args.image_id, file)
        return {}

    def ensure_server(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _EnsureServer)
        seen = hypervisor.ensure_server(args.spec, args.power, deadline)
        return {"power": seen.power, "domain": seen.domain}

    def ensure_power(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _EnsurePower)
        return {"power": hypervisor.ensure_power(args.server_id, args.power, deadline, hard=args.hard, timeout=args.timeout)}

    def reboot_server(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _Reboot)
        before = fences.note(args.server_id, call.fence, "rebooted", hypervisor.incarnation(args.server_id))
        return {"power": hypervisor.reboot(args.server_id, before, deadline, hard=args.hard, timeout=args.timeout)}

    def absent_server(call: Call, deadline: Deadline) -> dict[str, Any]:
        hypervisor.absent_server(str(call.args["server_id"]), deadline)
        return {}

    def console_log(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _ConsoleLog)
        return {"output": hypervisor.console_log(args.server_id, args.lines)}

    def diagnostics(call: Call, deadline: Deadline) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(hypervisor.diagnostics(str(call.args["server_id"])))
        return found

    def ensure_copies(call: Call, deadline: Deadline) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(hypervisor.ensure_copies(str(call.args["server_id"]), deadline))
        return found

    def absent_copies(call: Call, deadline: Deadline) -> dict[str, Any]:
        hypervisor.absent_copies(str(call.args["server_id"]))
        return {}

    def ensure_console(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _EnsureConsole)
        found = hypervisor.console(args.server_id, args.kind)
        far = dial(args.rendezvous)
        try:
            pipe(open_console(found.at, found.log), far)
        except BaseException:
            far.close()
            raise
        return {}

    return {
        "ensure_image": Verb(ensure_image, "image_id", change=False),
        "convert_image": Verb(convert_image, "image_id", change=False),
        "ensure_server": Verb(ensure_server, "server_id"),
        "ensure_power": Verb(ensure_power, "server_id"),
        "reboot_server": Verb(reboot_server, "server_id"),
        "absent_server": Verb(absent_server, "server_id"),
        **_changes(hypervisor, upload),
        "console_log": Verb(console_log, "server_id", change=False),
        "diagnostics": Verb(diagnostics, "server_id", change=False),
        "ensure_copies": Verb(ensure_copies, "server_id", change=False),
        "absent_copies": Verb(absent_copies, "server_id", change=False),
        "ensure_console": Verb(ensure_console, "server_id", change=False),
    }


def _changes(hypervisor: Hypervisor, upload: Callable[[str, IO[bytes]], None]) -> dict[str, Verb]:
    """What a guest is made of."""

    def upload_image(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _UploadImage)
        with hypervisor.snapshot(args.server_id, args.power, deadline) as file:
            upload(args.image_id, file)
        return {}

    def interface(call: Call, deadline: Deadline) -> dict[str, Any]:
        args = msgspec.convert(call.args, _Interface)
        if call.verb == "ensure_interface":
            hypervisor.ensure_interface(args.server_id, args.port)
        else:
            hypervisor.absent_interface(args.server_id, args.port.mac_address, deadline)
        return {}

    def plain(act: Callable[[str], None]) -> Verb:
        def run(call: Call, deadline: Deadline) -> dict[str, Any]:
            act(str(call.args["server_id"]))
            return {}

        return Verb(run, "server_id")

    def ensure_backup(call: Call, deadline: Deadline) -> dict[str, Any]:
        hypervisor.ensure_backup(str(call.args["server_id"]), deadline)
        return {}

    return {
        "upload_image": Verb(upload_image, "server_id"),
        "ensure_backup": Verb(ensure_backup, "server_id"),
        "restore_backup": plain(hypervisor.restore_backup),
        "absent_backup": plain(hypervisor.absent_backup),
        "absent_disks": plain(hypervisor.absent_disks),
        "ensure_interface": Verb(interface, "server_id"),
        "absent_interface": Verb(interface, "server_id"),
    }
