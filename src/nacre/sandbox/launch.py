"""Makes the namespaces of a sandbox host and leaves its process 1 in them.

Run by `SandboxHost.ensure` as a process of its own (threads of a threaded program cannot change their mount namespace, and process 1
must not be the child of `nacre up`). It reads a Spec as JSON from stdin, unshares, forks; the child is process 1 of the new pid
namespace, waits until its identity is on disk, mounts the private folders and becomes init.py. A failure before that is written to
stderr, the status is 1 and nothing of the host is left.

Only the mount table of the new namespace is changed; mounts made on the machine later are seen in the sandbox, never the reverse.
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import msgspec

from nacre.node import commands
from nacre.sandbox import cables, namespaces, processes

PYTHON = "/usr/bin/python3"
INIT = Path(__file__).with_name("init.py")
SANDBOX = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWPID


class Daemon(msgspec.Struct, frozen=True):
    role: str
    argv: list[str]


class Spec(msgspec.Struct, frozen=True):
    """`home` is shown at `reach`; `binds` are (private folder or file, place) pairs; `identity` is the file that names process 1; `held` is the
    fabric's namespace file in another host, without which `fabric` makes a new one (cables.py)."""

    home: str
    reach: str
    folder: str
    hostname: str
    binds: list[tuple[str, str]]
    daemons: list[Daemon]
    identity: str
    fabric: bool
    held: str | None = None


def _mounted_below(places: Iterable[Path]) -> list[Path]:
    """Mount points at or below `places`, the deepest last."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if any(point == place or place in point.parents for place in places):
            found.append(point)
    return found


def _mount_all(spec: Spec) -> None:
    namespaces.mount("none", Path("/"), flags=namespaces.MS_REC | namespaces.MS_SLAVE)
    places = [Path(place) for _, place in spec.binds]
    for point in reversed(_mounted_below(places)):
        namespaces.detach(point)
    for source, place in spec.binds:
        namespaces.bind(Path(source), Path(place))
    reach = Path(spec.reach)
    reach.mkdir(parents=True, exist_ok=True)
    namespaces.bind(Path(spec.home), reach)
    # The old trees are taken away, not covered: libvirt believes every cgroup mount listed in /proc/mounts.
    for place, kind in (("/sys", "sysfs"), ("/proc", "proc")):
        namespaces.detach(Path(place))
        namespaces.mount(kind, Path(place), kind)


def _become_init(spec: Spec) -> None:
    held = os.open(spec.held, os.O_RDONLY | os.O_CLOEXEC) if spec.held else None  # by a path of the /proc that goes
    _mount_all(spec)
    socket.sethostname(spec.hostname)
    commands.run(["ip", "link", "set", "lo", "up"])
    if held is not None:
        cables.pin_fabric(held)
    elif spec.fabric:
        cables.make_fabric()
    logs = Path(spec.reach) / "hosts" / Path(spec.folder).name / "log"
    null, log = os.open("/dev/null", os.O_RDONLY), os.open(logs / "init.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    order = {"state": str(logs.parent / "daemons.json"), "logs": str(logs), "daemons": msgspec.to_builtins(spec.daemons)}
    os.execv(PYTHON, [PYTHON, "-I", "-S", "-E", str(INIT), json.dumps(order)])


def _child(spec: Spec, go: int, trouble: int) -> None:
    try:
        if os.read(go, 1):
            _become_init(spec)
    except BaseException:
        os.write(trouble, traceback.format_exc().encode())
    finally:
        os._exit(1)


def launch(spec: Spec) -> str:
    """Start process 1. Returns what went wrong, empty if nothing."""
    os.setsid()
    namespaces.unshare(SANDBOX)
    go_read, go_write = os.pipe()
    trouble_read, trouble_write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(go_write)
        os.close(trouble_read)
        _child(spec, go_read, trouble_write)
    os.close(trouble_write)
    processes.write_identity(Path(spec.identity), processes.identify(pid))
    os.write(go_write, b"g")
    with os.fdopen(trouble_read) as trouble:
        return trouble.read()


if __name__ == "__main__":
    if complaint := launch(msgspec.json.decode(sys.stdin.buffer.read(), type=Spec)):
        sys.exit(complaint)
