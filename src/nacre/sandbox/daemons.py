"""libvirtd and Open vSwitch on the machine itself: systemd's units where it runs, else a process of ours that keeps them.

That process is init.py, the same as in a sandbox; here it is told only of those that nobody runs yet. It has no parent among ours.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from nacre.node.commands import run
from nacre.sandbox import claim, processes
from nacre.sandbox.folders import SCHEMA
from nacre.sandbox.host import DAEMONS
from nacre.sandbox.launch import INIT, PYTHON, Daemon

UNITS = ("openvswitch-switch.service", "libvirtd.service")
PATTERNS = ("libvirt*", "virt*", "ovs*", "openvswitch*")
_LIMIT = 20.0
_LOGS = (Path("/var/log/openvswitch/ovsdb-server.log"), Path("/var/log/openvswitch/ovs-vswitchd.log"))
_RUN = (Path("/run/openvswitch"), Path("/run/libvirt"))


def files() -> list[Path]:
    """What the daemons make outside `/run` when they run for the first time and we start them."""
    place = claim.database()
    return [place, place.with_name(f".{place.name}.~lock~"), *_LOGS]


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def _switch_listens() -> bool:
    with suppress(OSError, ValueError):
        pid = int(Path("/run/openvswitch/ovs-vswitchd.pid").read_text())
        return _listens(Path(f"/run/openvswitch/ovs-vswitchd.{pid}.ctl"))
    return False


_THERE: dict[str, Callable[[], bool]] = {
    "ovsdb-server": lambda: _listens(claim.SOCKET),
    "ovs-vswitchd": _switch_listens,
    "virtlogd": lambda: _listens(Path("/run/libvirt/virtlogd-sock")),
    "libvirtd": lambda: _listens(Path("/run/libvirt/libvirt-sock")),
}


class Keeper:
    """`folder` is the host's: `log/` and `daemons.json` are the keeper's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "daemons.json"

    def ensure(self, pid: int | None) -> int:
        """The pid of the keeper, `pid` if that one runs. Raises OSError, CommandFailed."""
        if pid is not None:
            return pid
        wanted = [_here(daemon) for daemon in DAEMONS if not _THERE[daemon.role]()]
        for place in (*_RUN, self.folder / "log"):
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        if any(daemon.role == "ovsdb-server" for daemon in wanted):
            _database()
        self.state.unlink(missing_ok=True)
        order = {"state": str(self.state), "logs": str(self.folder / "log"), "daemons": msgspec.to_builtins(wanted)}
        with (self.folder / "log" / "init.log").open("ab") as log:
            started = subprocess.Popen([PYTHON, "-I", "-S", "-E", str(INIT), json.dumps(order)], stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, cwd="/", start_new_session=True)  # fmt: skip
        return started.pid

    def stop(self, pid: int | None) -> None:
        """End the keeper, then the daemons that it started. Raises OSError when one does not end."""
        ours = self._kept()
        for one, number in ((pid, signal.SIGKILL), *((one, signal.SIGTERM) for one in ours)):
            if one is not None:
                _end(one, number)
        for path in (place for folder in _RUN for place in folder.glob("*.pid") if ours):
            path.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def _kept(self) -> list[int]:
        """Pids of the daemons that run by its state file, the last started first."""
        try:
            state: dict[str, dict[str, int]] = json.loads(self.state.read_bytes())
        except (OSError, ValueError):
            return []
        found = [entry["pid"] for role, entry in state.items() if entry["pid"] and processes.name(entry["pid"]) == role]
        return found[::-1]


def _here(daemon: Daemon) -> Daemon:
    """With the database where this machine has it."""
    return Daemon(daemon.role, [str(claim.database()) if word == str(claim.DATABASES[-1]) else word for word in daemon.argv])


def _database() -> None:
    place = claim.database()
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not place.exists():
        run(["ovsdb-tool", "create", str(place), str(SCHEMA)])
    elif run(["ovsdb-tool", "needs-conversion", str(place), str(SCHEMA)]).strip() == "yes":
        run(["ovsdb-tool", "convert", str(place), str(SCHEMA)])


def _end(pid: int, number: int) -> None:
    """Signals a process and waits until it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        deadline = time.monotonic() + _LIMIT
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        while processes.pid_namespace(pid) is not None:
            if time.monotonic() > deadline:
                raise OSError(f"process {pid} does not end")
            time.sleep(0.02)
    finally:
        os.close(descriptor)
