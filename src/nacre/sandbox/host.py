"""A host in namespaces: own network, mounts, pids, names; the rest of the machine as it is.

`SandboxHost(home, 1).ensure()` leaves behind a process 1 (init.py) that is nobody's child of ours and keeps ovsdb-server,
ovs-vswitchd, virtlogd and libvirtd running; everything else of Nacre may die and be replaced around it. Hostname `nacre-<n>`.
The home is also mounted at `home.reach` inside, whence unprivileged daemons reach disks below a folder only root can enter.
Interfaces: see cables.py. Host 1 holds the fabric, so it has to be started before the others and be told again after them.

`<home>/hosts/<n>.lock` is held while a host is started or stopped, so two callers do not both start it. Process 1 is known by pid and
start time, so another process that got its pid is never taken for it.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

import nacre
from nacre.core.config import Home
from nacre.node.commands import CommandFailed, run
from nacre.sandbox import cables, folders, launch, namespaces, processes
from nacre.sandbox import uplink as door
from nacre.sandbox.face import Host, HostError
from nacre.sandbox.processes import HostProcess, Identity

START_LIMIT = 30.0
STOP_LIMIT = 20.0
DAEMONS = [
    launch.Daemon(
        "ovsdb-server",
        [
            "/usr/sbin/ovsdb-server",
            "/var/lib/openvswitch/conf.db",
            "--remote=punix:/run/openvswitch/db.sock",
            "--pidfile",
            "--log-file",
            "-vconsole:off",
        ],
    ),
    launch.Daemon("ovs-vswitchd", ["/usr/sbin/ovs-vswitchd", "unix:/run/openvswitch/db.sock", "--pidfile", "--log-file", "-vconsole:off"]),
    launch.Daemon("virtlogd", ["/usr/sbin/virtlogd"]),
    launch.Daemon("libvirtd", ["/usr/sbin/libvirtd"]),
]


SandboxError = HostError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While a host is started or stopped; `folder` is its own."""
    path = folder.with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def until_answers(host: Host, argv: Sequence[str]) -> None:
    """Repeats a command inside until it succeeds. Raises SandboxError."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            run(host.command(argv), timeout=START_LIMIT)
            return
        except CommandFailed as error:
            if time.monotonic() > deadline:
                raise SandboxError(f"host {host.name}: no answer; logs are in {host.folder / 'log'}: {error}") from error
        time.sleep(0.05)


class SandboxHost:
    """Host `number` (1..254) of the cloud in `home`."""

    def __init__(self, home: Home, number: int) -> None:
        self.home, self.number = home, number
        self.name = f"nacre-{number}"
        self.folder = home.path / "hosts" / str(number)
        self._identity_file = self.folder / "process1.json"

    # What it is

    def running(self) -> bool:
        return self._alive() is not None

    def pid(self) -> int:
        """Process 1 as the machine sees it. Raises SandboxError when the host is not running."""
        identity = self._alive()
        if not identity:
            raise SandboxError(f"host {self.name} is not running")
        return identity.pid

    def processes(self) -> list[HostProcess]:
        """Its daemons (roles as in DAEMONS), `dnsmasq`s and `guest`s; empty when it is not running."""
        identity = self._alive()
        namespace = identity and processes.pid_namespace(identity.pid)
        return processes.host_processes(namespace, self.folder / "daemons.json") if namespace else []

    def guests(self) -> list[str]:
        """Names of the guests that are on. Raises SandboxError, CommandFailed."""
        return run(self.command(["virsh", "list", "--name"])).split()

    def _alive(self) -> Identity | None:
        identity = processes.read_identity(self._identity_file)
        return identity if identity and processes.alive(identity) else None

    # Start and stop

    def ensure(self, *, uplink: bool = False) -> None:
        """Start the host if it is not running, lay missing cables, wait until its daemons answer. `uplink`: guests have a way out, through
        host 1. Raises SandboxError."""
        for place in folders.PRIVATE.values():
            if place == self.home.path or place in self.home.path.parents:
                raise SandboxError(f"a home below {place} would be hidden inside the host: choose another folder than {self.home.path}")
        try:
            with locked(self.folder):
                first = self if self.number == 1 else SandboxHost(self.home, 1)
                if self.number != 1 and not first.running():
                    raise SandboxError(f"host {self.name} needs host 1, which makes the cables' fabric; start it first")
                if not self.running():
                    self._start()
                network = Path(f"/proc/{self.pid()}/ns/net")
                cables.ensure(self.number, network, self._fabric() or cables.FABRIC)
                if self.number == 1:
                    door.ensure(self.home.mark, network, is_open=uplink)
            self._wait_until_ready()
        except (CommandFailed, LookupError, OSError) as error:
            raise SandboxError(f"host {self.name}: {error}") from error

    def stop(self, *, wipe: bool = False) -> list[str]:
        """End the host with its guests and take its cables away; harmless when it is not running. Nothing of it is outside the home.
        Raises SandboxError."""
        if not self.folder.exists():
            return []
        with locked(self.folder):
            identity = self._alive()
            if identity:
                self._end(identity)
            if self.number == 1:
                try:
                    door.cut(self.home.mark)
                except (CommandFailed, OSError) as error:
                    raise SandboxError(f"host {self.name}: {error}") from error
            self._identity_file.unlink(missing_ok=True)
        return []

    def _fabric(self) -> Path | None:
        """The namespace file of the cables' fabric in the first host of this cloud that holds it."""
        numbers = sorted(int(path.name) for path in self.folder.parent.glob("*") if path.name.isdigit())
        running = (SandboxHost(self.home, number)._alive() for number in numbers)
        return next((place for identity in running if identity and (place := cables.fabric_of(identity.pid))), None)

    def _start(self) -> None:
        host = folders.prepare(self.home, self.number)
        private = [(self.folder / name, place) for name, place in folders.PRIVATE.items()]
        spec = launch.Spec(
            home=str(self.home.path),
            reach=str(self.home.reach),
            folder=str(self.folder),
            hostname=self.name,
            binds=[(str(source), str(place)) for source, place in [*private, *folders.covered(host)]],
            daemons=DAEMONS,
            identity=str(self._identity_file),
            fabric=self.number == 1,
            held=str(self._fabric() or "") or None,
        )
        environment = dict(os.environ, PYTHONPATH=str(Path(nacre.__file__).parent.parent), PYTHONSAFEPATH="1")
        done = subprocess.run(
            [sys.executable, "-m", "nacre.sandbox.launch"],
            input=msgspec.json.encode(spec),
            capture_output=True,
            env=environment,
            cwd="/",
            timeout=START_LIMIT,
            check=False,
        )
        if done.returncode:
            raise SandboxError(f"host {self.name} did not start: {done.stderr.decode(errors='replace').strip()}")

    def _wait_until_ready(self) -> None:
        system_id = str(folders.host_uuid(self.home, self.number))
        settings = [f"external_ids:system-id={system_id}", f"external_ids:hostname={self.name}"]
        until_answers(self, ["ovs-vsctl", "--no-wait", "init", "--", "set", "Open_vSwitch", ".", *settings])
        until_answers(self, ["ovs-appctl", "-t", "ovs-vswitchd", "version"])
        until_answers(self, ["virsh", "--connect", "qemu:///system", "uri"])

    def _end(self, identity: Identity) -> None:
        namespace = processes.pid_namespace(identity.pid)
        try:
            cables.cut(self.number, Path(f"/proc/{identity.pid}/ns/net"))
        except CommandFailed:
            if processes.alive(identity):
                raise
        with _held(identity) as descriptor:
            if descriptor is not None:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        deadline = time.monotonic() + STOP_LIMIT
        while namespace and (left := processes.members(namespace)):
            if time.monotonic() > deadline:
                raise SandboxError(f"host {self.name}: processes {sorted(left)} do not end")
            time.sleep(0.02)

    # Running something inside

    def command(self, argv: Sequence[str], *, cwd: str = "/") -> list[str]:
        """The arguments that run `argv` inside, for short commands. Raises SandboxError when the host is not running."""
        enter = ["nsenter", f"--target={self.pid()}", "--mount", "--uts", "--ipc", "--net", "--pid", f"--wdns={cwd}", "--"]
        return [*enter, *argv]

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: int | None = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start `argv` inside as a child of the caller; its stdout and stderr go to `output`. Raises SandboxError, OSError.

        The process is in the host's pid namespace (it ends with the host) and its pid is as the machine sees it.
        """
        enter = ["nsenter", f"--target={self.pid()}", "--mount", "--uts", "--ipc", "--net", "--wdns=/", "--", *argv]
        with self._namespace("pid") as descriptor, namespaces.visiting(descriptor, namespaces.CLONE_NEWPID, "pid_for_children"):
            return subprocess.Popen(enter, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=pass_fds)

    def listen(self, address: str, port: int) -> socket.socket:
        """A TCP socket that listens inside the host, held by the caller. Raises SandboxError, OSError."""
        with self._namespace("net") as descriptor, namespaces.visiting(descriptor, namespaces.CLONE_NEWNET, "net"):
            return socket.create_server((address, port), backlog=1024)

    @contextmanager
    def enter(self) -> Iterator[int]:
        """A descriptor of process 1, to be given to `namespaces.setns` with the kinds wanted. Raises SandboxError."""
        identity = self._alive()
        if not identity:
            raise SandboxError(f"host {self.name} is not running")
        with _held(identity) as descriptor:
            if descriptor is None:
                raise SandboxError(f"host {self.name} is not running")
            yield descriptor

    @contextmanager
    def _namespace(self, kind: str) -> Iterator[int]:
        descriptor = os.open(f"/proc/{self.pid()}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _held(identity: Identity) -> Iterator[int | None]:
    """A pidfd of exactly that process, None when it is gone."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor if processes.alive(identity) else None
    finally:
        os.close(descriptor)
