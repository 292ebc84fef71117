"""The machine itself as host 1 of a cloud (`nacre up --on-host`): the same daemons, folders and wires as in a sandbox, in no sandbox.

`ensure` claims the names of the wires (claim.py), shows the home at `home.reach`, has the daemons run, lays `eth-ext` and `ext-out` (two
ends of one cable, for what is beyond the external network is the machine) unless the operator has made the bridge to it, and shuts the
door (uplink.py). Where systemd runs, libvirtd and Open vSwitch are the distribution's units. Elsewhere init.py keeps those that nobody
runs yet, as an ordinary process here, so it does not reap guests; killed like a sandbox's, it takes nobody with it.
`running` means that this was done since the machine booted and was not undone.

`stop` gives back what was claimed: rooms, bridges, cable, tables, guests of ours. What the machine's owner has made stays and is told.
Whoever is interrupted is repeated: each step looks first, and the claim goes last.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from nacre.core.config import Home, load
from nacre.node.commands import CommandFailed, run
from nacre.sandbox import claim, daemons, namespaces, processes, systemd, uplink
from nacre.sandbox.cables import EXTERNAL, OUTSIDE
from nacre.sandbox.claim import Claim
from nacre.sandbox.face import HostError
from nacre.sandbox.host import locked, until_answers
from nacre.sandbox.processes import HostProcess

SERVED = (Path("/run/nacre/dhcp"), Path("/run/nacre/ra"))
COOKIES = "0x6e61637265000000/0xffffffffff000000"
_PATIENCE = 10.0
_FORGET = ("--managed-save", "--snapshots-metadata", "--checkpoints-metadata", "--nvram")


class MachineHost:
    """The machine as the one host of the cloud in `home`."""

    number = 1

    def __init__(self, home: Home) -> None:
        self.home = home
        self.name = "nacre-1"
        self.folder = home.path / "hosts" / "1"
        self._claim_file = self.folder / "machine.json"
        self._identity_file = self.folder / "process1.json"
        self._keeper = daemons.Keeper(self.folder)

    # What it is

    def running(self) -> bool:
        identity = processes.read_identity(self._identity_file)
        return bool(identity and processes.alive(identity))

    def pid(self) -> int:
        """Who keeps the daemons: init.py, or the machine's process 1. Raises HostError when the host is not running."""
        identity = processes.read_identity(self._identity_file)
        if not identity or not processes.alive(identity):
            raise HostError(f"host {self.name} is not running")
        return identity.pid

    def processes(self) -> list[HostProcess]:
        """The machine's daemons of these roles, and the guests and DHCP servers that are the cloud's."""
        if not self.running():
            return []
        marks = {"guest": f"{self.home.host(1)}/instances/", "dnsmasq": f"{SERVED[0]}/"}
        return processes.machine_processes(self.folder / "daemons.json", marks)

    def guests(self) -> list[str]:
        """Names of the cloud's guests that are on. Raises CommandFailed."""
        return self._ours(run(["virsh", "list", "--name"]).splitlines())

    def _ours(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name.startswith("instance-") and claim.ours(run(["virsh", "dumpxml", name]), self.home)]

    # Start

    def refuse(self) -> None:
        """Raises HostError, having changed nothing, when this machine cannot be the host."""
        known = claim.read(self._claim_file)
        if known and known.held:
            return
        try:
            found = claim.foreign(claim.look(), self.home, self._mapped())
        except (CommandFailed, OSError) as error:
            raise HostError(f"it cannot be seen what this machine has: {error}") from error
        if found:
            raise HostError(
                f"This machine has {', '.join(found)}, which the cloud in {self.home.path} did not make and would need for itself. Nothing"
                " was changed. Take that away first, or leave --on-host out: a sandbox needs nothing of the machine"
            )

    def ensure(self, *, uplink: bool = False) -> None:
        """Claim the machine if it is not claimed, make what is missing, wait until the daemons answer. Raises HostError."""
        try:
            with locked(self.folder):
                self._claim()
                self._show_home()
                self._start_daemons()
                until_answers(self, ["virsh", "--connect", "qemu:///system", "uri"])
                self._lay_outside()
                self._door(is_open=uplink)
        except (CommandFailed, LookupError, OSError) as error:
            raise HostError(f"host {self.name}: {error}") from error

    def _mapped(self) -> list[str]:
        return [entry.rpartition(":")[2] for entry in load(self.home.path / "nacre.toml").ovs.bridge_mappings]

    def _claim(self) -> None:
        for folder in (self.folder.parent, self.folder, self.folder / "instances"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(folder.stat().st_mode & 0o7777 | 0o711)
        with claim.machine_lock():
            self.refuse()
            known = claim.read(self._claim_file) or Claim()
            if not known.held:
                theirs = tuple(sorted(claim.bridges() & set(self._mapped())))
                files = known.files or tuple(str(path) for path in daemons.files() if not path.exists())
                claim.write(self._claim_file, Claim(True, theirs, files, known.units))
            claim.USER.write_text(f"{self.home.path}\n")

    def _show_home(self) -> None:
        self.home.reach.mkdir(parents=True, exist_ok=True)
        if not self._shown():
            namespaces.bind(self.home.path, self.home.reach)

    def _shown(self) -> bool:
        return self.home.reach.exists() and self.home.reach.samefile(self.home.path)

    def _start_daemons(self) -> None:
        if systemd.booted():
            before = systemd.active(daemons.PATTERNS)
            systemd.control("start", *daemons.UNITS)
            known = claim.read(self._claim_file) or Claim()
            units = {*known.units, *(systemd.active(daemons.PATTERNS) - before)}
            claim.write(self._claim_file, msgspec.structs.replace(known, units=tuple(sorted(units))))
            keeper = 1
        else:
            keeper = self._keeper.ensure(self.pid() if self.running() else None)
        processes.write_identity(self._identity_file, processes.identify(keeper))
        until_answers(self, ["ovs-vsctl", "--no-wait", "--timeout=5", "init"])
        until_answers(self, ["ovs-appctl", "-t", "ovs-vswitchd", "version"])

    def _lay_outside(self) -> None:
        """The last thing that is done to the cable is that `eth-ext` comes up."""
        if (claim.read(self._claim_file) or Claim()).theirs:
            return
        links = {link["ifname"]: link["flags"] for link in json.loads(run(["ip", "-json", "link", "show"]))}
        if OUTSIDE in links and "UP" in links.get(EXTERNAL, ()):
            return
        self._cut_outside()
        run(["ip", "link", "add", EXTERNAL, "type", "veth", "peer", "name", OUTSIDE])
        for device in (OUTSIDE, EXTERNAL):
            run(["ethtool", "-K", device, "tx", "off"])
            for setting in ("ipv6.conf.{}.accept_ra=0", "ipv4.conf.{}.arp_ignore=1"):
                run(["sysctl", "-q", "-e", "-w", f"net.{setting.format(device)}"])
        run(["ip", "link", "set", EXTERNAL, "addrgenmode", "none"])
        run(["ip", "link", "set", OUTSIDE, "up"])
        run(["ip", "link", "set", EXTERNAL, "up"])

    def _door(self, *, is_open: bool) -> None:
        if not (claim.read(self._claim_file) or Claim()).theirs:
            uplink.ensure(self.home.mark, None, is_open=is_open)

    # Stop

    def stop(self, *, wipe: bool = False) -> list[str]:
        """Give the machine back, also with `wipe` the definitions of guests and what the first start made outside the home. What is left
        because others made it, in words. Raises HostError."""
        known = claim.read(self._claim_file)
        if known is None or not (known.held or wipe):
            return []
        try:
            with locked(self.folder):
                self._start_daemons()  # libvirt and the switch have to be told
                until_answers(self, ["virsh", "--connect", "qemu:///system", "uri"])
                self._end_guests(wipe)
                if known.held:
                    self._end_rooms()
                    self._clear_switch(known)
                    self._cut_outside()
                    self._drop_tables()
                left = self._left()
                self._stop_daemons(wipe, left)
                self._give_back(wipe)
            return left
        except (CommandFailed, OSError) as error:
            raise HostError(f"host {self.name}: {error}") from error

    def _end_guests(self, forget: bool) -> None:
        for name in self.guests():
            run(["virsh", "destroy", name])
        for name in self._ours(run(["virsh", "list", "--all", "--name"]).splitlines()) if forget else ():
            run(["virsh", "undefine", name, *_FORGET])
            Path(f"/var/log/libvirt/qemu/{name}.log").unlink(missing_ok=True)

    def _end_rooms(self) -> None:
        for room in claim.rooms():
            end = time.monotonic() + _PATIENCE
            while pids := [int(word) for word in run(["ip", "netns", "pids", room]).split()]:
                late = time.monotonic() > end
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                time.sleep(0.05)
            run(["ip", "netns", "delete", room])
        for folder in SERVED:
            shutil.rmtree(folder, ignore_errors=True)

    def _clear_switch(self, known: Claim) -> None:
        """Bridges of ours go; on the operator's own only what is ours goes, and they forward as an ordinary switch does."""
        words = ["ovs-vsctl", "--timeout=10"]
        for bridge in (*claim.BRIDGES, *(name for name in self._mapped() if name not in known.theirs)):
            words += ["--", "--if-exists", "del-br", bridge]
        for bridge in known.theirs:
            words += ["--", "--if-exists", "del-port", f"phy-{bridge}"]
        run(words)
        for bridge in claim.bridges() & set(known.theirs):
            run(["ovs-ofctl", "-O", "OpenFlow14", "del-flows", bridge, f"cookie={COOKIES}"])
            run(["ovs-ofctl", "-O", "OpenFlow14", "add-flow", bridge, "priority=0,actions=NORMAL"])

    def _cut_outside(self) -> None:
        for device in (EXTERNAL, OUTSIDE):
            if Path(f"/sys/class/net/{device}").exists():
                run(["ip", "link", "delete", device])

    def _drop_tables(self) -> None:
        uplink.cut(self.home.mark)
        for family, name in claim.TABLES:
            with suppress(CommandFailed):  # there was none
                run(["nft", "delete", "table", family, name])

    def _left(self) -> list[str]:
        guests = sorted(set(claim.defined()) - set(self._ours(run(["virsh", "list", "--all", "--name"]).splitlines())))
        return [f"bridge {name}" for name in sorted(claim.bridges())] + [f"guest {name}" for name in guests]

    def _stop_daemons(self, wipe: bool, left: Sequence[str]) -> None:
        known = claim.read(self._claim_file) or Claim()
        if not systemd.booted():
            self._keeper.stop(self.pid() if self.running() else None)
            for file in known.files if wipe and not left else ():
                Path(file).unlink(missing_ok=True)
        elif wipe and not left and known.units:
            systemd.control("stop", *known.units)

    def _give_back(self, wipe: bool) -> None:
        (self.folder / "node" / "boot").unlink(missing_ok=True)  # what ran is started again: for the guests the machine was off
        while self._shown():
            namespaces.detach(self.home.reach)
        claim.USER.unlink(missing_ok=True)
        self._identity_file.unlink(missing_ok=True)
        if wipe:
            self._claim_file.unlink(missing_ok=True)
        elif known := claim.read(self._claim_file):
            claim.write(self._claim_file, msgspec.structs.replace(known, held=False, theirs=()))

    # Running something on it

    def command(self, argv: Sequence[str], *, cwd: str = "/") -> list[str]:
        return ["env", f"--chdir={cwd}", *argv]

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: int | None = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=pass_fds)

    def listen(self, address: str, port: int) -> socket.socket:
        return socket.create_server((address, port), backlog=1024)

    @contextmanager
    def enter(self) -> Iterator[int]:
        """Of this very process: who enters stays where he is."""
        descriptor = os.pidfd_open(os.getpid())
        try:
            yield descriptor
        finally:
            os.close(descriptor)
