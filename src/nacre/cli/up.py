"""`nacre up`: makes what is missing, starts the supervisor, waits until everything answers.

Each step looks first, so the command is harmless to repeat and may be interrupted anywhere. While the supervisor starts the
processes, the guest image is built if it never was; both take the longest. What runs with another program or other options is
replaced; guests do not notice.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.cli import alive, certificates, credentials, db, down, hosts, layout, operator, ready, store, supervisor, swap, units
from nacre.cli.processes import all_numbers, host_name, host_numbers
from nacre.cli.trouble import Trouble, typed
from nacre.core import tls
from nacre.core.config import Config, ConfigError, Home, load
from nacre.sandbox import cables, systemd
from nacre.sandbox.face import HostError
from nacre.sandbox.machine import MachineHost

STORE = Path("/opt/nacre")
SLOW = 2.0


@dataclass(frozen=True)
class Order:
    """What was given on the command line; None: as it is in nacre.toml."""

    port: int | None = None
    http_port: int | None = None
    hypervisor: str | None = None
    fake_hosts: int | None = None
    nodes: int | None = None
    foreground: bool = False
    clients: Path = STORE / "clients"
    on_host: bool = False
    uplink: str | None = None
    database: str | None = None


def run(home: Home, order: Order) -> None:
    """Raises Trouble."""
    if os.geteuid():
        raise Trouble("This needs root: type  sudo ./nacre up")
    with layout.exclusive(home):
        begun = time.monotonic()
        config = _prepare(home, order)
        tools = operator.install(home, sys.executable, Path(supervisor.__file__).parents[1])
        passwords = credentials.write(home, config, (order.clients, tools))
        store.remember(STORE, home)
        process = _supervise(home, config)
        image = Background(lambda: _first_image(home, config))
        try:
            _until_ready(home, config, passwords["admin"], process)
            image.finish()
            db.settled(home, config)
        except Trouble:
            if process:
                down.stop(home)
            raise
        except KeyboardInterrupt:
            raise Trouble(f"Interrupted: what was started goes on; type  {typed('up', home.path)}  again, or  {typed('down', home.path)}") from None
    with suppress(OSError):  # the next time, then
        store.sweep(STORE)
    _tell(home, config, order.clients, time.monotonic() - begun)
    if order.foreground:
        _stay(home, process)


class Background:
    """A step in a thread of its own; what went wrong in it is raised by `finish`."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, args=(step,), daemon=True)
        self.thread.start()

    def _run(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self.error = error

    def finish(self) -> None:
        """Waits for its end. Raises Trouble."""
        self.thread.join()
        if isinstance(self.error, Trouble):
            raise self.error
        if self.error:
            raise Trouble(f"The guest image cannot be built: {self.error}. Type the same command again.") from self.error


def _prepare(home: Home, order: Order) -> Config:
    swap.finish(home)  # one that was interrupted after it had happened
    _place(home, order)
    try:
        layout.make(home)
    except OSError as error:
        raise Trouble(f"The folder {home.path} cannot be made: {error.strerror}. Choose another with --home.") from error
    given = {name: getattr(order, name) for name in ("port", "http_port", "hypervisor", "fake_hosts", "nodes", "uplink")}
    toml = home.path / "nacre.toml"
    try:
        before = load(toml)
        _no_fewer(home, before, order)
        if (connection := db.chosen(home, before, order.database)) is not None:
            layout.set_options(toml, "database", {"connection": connection})
        layout.set_options(toml, "nacre", {name: value for name, value in given.items() if value is not None})
        config = load(toml)
        if config.nacre.nodes > 1 and not config.nacre.node_port and config.nacre.hypervisor != "fake":
            layout.set_options(toml, "nacre", {"node_port": free_port(config)})
            config = load(toml)
    except ConfigError as error:
        raise Trouble(f"{error}. Correct it, then type  {typed('up', home.path)}  again.") from error
    if config.nacre.hypervisor not in ("libvirt", "fake"):
        raise Trouble(f'{toml}: hypervisor is "libvirt" or "fake", not "{config.nacre.hypervisor}".')
    _same_kind(home, config, order)
    db.settle(home, config)
    layout.make_stores(home, config)
    if config.nacre.hypervisor == "fake":
        layout.make_fake_hosts(home, host_numbers(config))
    names = list(dict.fromkeys(("127.0.0.1", "::1", "localhost", config.nacre.host)))
    if config.nacre.node_port:
        names.append(cables.underlay_address(1))
        tls.ensure_authority(tls.Pair(home.path / "keys/node-ca.key", home.path / "keys/node-ca.crt"), layout.owner(), "Nacre node CA")
    server = tls.Pair(home.path / "keys/server.key", home.path / "keys/server.crt")
    tls.ensure(tls.Pair(home.path / "ca.key", home.path / "ca.pem"), server, names, layout.owner())
    return config


def free_port(config: Config) -> int:
    """For the node API. Raises Trouble."""
    for port in range(config.nacre.port + 1, config.nacre.port + 100):
        with suppress(OSError):
            socket.create_server((config.nacre.host, port)).close()
            return port
    raise Trouble(f"Of the ports above {config.nacre.port} none is free for nodes: write node_port into nacre.toml.")


def _no_fewer(home: Home, config: Config, order: Order) -> None:
    """Hosts may have guests: they are not taken away by starting with fewer. Raises Trouble."""
    had, wanted = config.nacre.nodes, order.nodes
    taken = [number for number in config.nacre.joined if number <= (wanted or 0)]
    if taken:
        raise Trouble(f"Host nacre-{taken[0]} has joined this cloud with a certificate: type  {typed('up', home.path)} --nodes {taken[0] - 1}")
    if wanted is not None and wanted < had and any(host.number > wanted for host in hosts.known(home)):
        raise Trouble(f"This cloud has {had} hosts, which may have guests: type  {typed('up', home.path)} --nodes {had}  or more.")


def _same_kind(home: Home, config: Config, order: Order) -> None:
    kind = layout.recall(home).setdefault("hypervisor", config.nacre.hypervisor)
    if kind != config.nacre.hypervisor:
        raise Trouble(f"{home.path} is a cloud with hypervisor {kind}: choose another --home for {config.nacre.hypervisor}.")
    layout.remember(home, {"hypervisor": kind, **({"on_host": True} if order.on_host else {})})


def _place(home: Home, order: Order) -> None:
    """Sandbox or the machine itself is decided once; a machine that cannot be the host is refused before anything is made. Raises Trouble."""
    if not (order.on_host or hosts.on_host(home)):
        return
    if order.on_host and layout.is_home(home.path) and not hosts.on_host(home) and hosts.known(home):
        raise Trouble(f"The cloud in {home.path} is in a sandbox: choose another folder with --home for one on the machine itself.")
    if order.hypervisor == "fake" or (order.nodes or 1) > 1:
        raise Trouble("With --on-host the machine is the one host: leave --hypervisor fake and --nodes out.")
    if systemd.booted() and units.foreign(home):
        raise Trouble(f"{units.FILE} is there and not of the cloud in {home.path}. Nothing was changed. Take it away first.")
    try:
        MachineHost(home).refuse()
    except HostError as error:
        raise Trouble(f"{error}.") from error


def _supervise(home: Home, config: Config) -> subprocess.Popen[bytes] | None:
    """Leaves a supervisor of this program and these options behind; None if there was one."""
    folder = home.path / "run"
    roles = down.roles(home)
    wanted = supervisor.fingerprint(home)
    for held in folder.glob("*.held"):
        held.unlink()
    if any(alive.holder(folder, role) for role in roles) and supervisor.read_state(home).get("fingerprint") != wanted:
        print("Program or options have changed: starting api, worker and node again. Guests are not touched.", flush=True)
        down.stop(home)
    if alive.holder(folder, "up"):
        supervisor.wake(home)
        return None
    if not alive.holder(folder, "api"):
        _port_free(home, config)
    if units.wanted(home):
        units.start(home)
        return None
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    with os.fdopen(os.open(home.path / "logs" / "up.err", flags, 0o640), "ab") as output:
        return subprocess.Popen(supervisor.command(home, "up", "--supervise"), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                env=supervisor.ENVIRONMENT, cwd="/", start_new_session=True)  # fmt: skip


def _port_free(home: Home, config: Config) -> None:
    for option, address, port in (("port", config.nacre.host, config.nacre.port), ("http-port", "127.0.0.1", config.nacre.http_port)):
        try:
            socket.create_server((address, port or 0)).close()
        except OSError as error:
            raise Trouble(
                f"{address}:{port} cannot be used ({error.strerror}): choose another port, for example"
                f"  {typed('up', home.path)} --{option} {(port or 0) + 1000}"
            ) from error


def _services(home: Home, process: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    """What the running supervisor says of its services; nothing while it has not said anything. Raises Trouble when it is dead."""
    state = supervisor.read_state(home)
    if process and process.poll() is not None:
        words = (home.path / "logs" / "up.err").read_text(errors="replace").strip().rpartition("\n")[2]
        raise Trouble(f"The supervisor does not start: {words or process.returncode}. More:  {typed('logs', home.path)} up")
    services: dict[str, Any] = state.get("services", {}) if state.get("supervisor") == alive.holder(home.path / "run", "up") else {}
    return services


def _until_ready(home: Home, config: Config, password: str, process: subprocess.Popen[bytes] | None) -> None:
    """Raises Trouble: with what keeps a service from starting as soon as that is clear, else with what did not answer in time."""
    look = ready.Look(ready.Client(home, config), password, lambda: len(_wanted_hosts(home, config)))
    begun, told = time.monotonic(), False
    before: dict[str, int] = {}  # failures in a row that a supervisor had counted when this command came
    while True:
        services = _services(home, process)
        for role, facts in services.items():
            before[role] = min(before.get(role, 0 if process else facts["failures"]), facts["failures"])
            if facts["failures"] - before[role] >= (1 if role == "prepare" else 3):
                what = {"prepare": "api", "host": "up"}.get(role.partition("-")[0], role.partition("-")[0])
                why = facts["trouble"].replace(str(home.reach), str(home.path))
                raise Trouble(f"{role} does not start: {why}. Correct that and type the same command again; more:  {typed('logs', home.path)} {what}")
        missing = [role for role, facts in services.items() if not (facts["done"] or (facts["pid"] and not facts["failures"]))
                   and not (role.startswith("node-") and certificates.refused(home, int(role.removeprefix("node-"))))]  # fmt: skip
        try:
            if missing or not services:
                raise ready.NotReady(f"not started: {', '.join(missing)}")
            return look.check()
        except ready.NotReady as error:
            if time.monotonic() - begun > ready.LIMIT:
                raise Trouble(
                    f"Not everything answers after {ready.LIMIT:.0f} s ({error}). More:  {typed('logs', home.path)}"
                ) from error
        if not told and time.monotonic() - begun > SLOW:
            told = True
            print("Waiting until every service answers ...", flush=True)
        time.sleep(0.05)


def _wanted_hosts(home: Home, config: Config) -> list[int]:
    """Without those that the control plane has refused."""
    return [number for number in all_numbers(config) if not certificates.refused(home, number)]


def _first_image(home: Home, config: Config) -> None:
    """Registers the image of the course once in the life of a home, as soon as the database is prepared; an administrator may delete it."""
    if layout.recall(home).get("first_image"):
        return
    file, deadline = guest_image(config), time.monotonic() + ready.LIMIT
    while not _services(home, None).get("prepare", {}).get("done"):
        if time.monotonic() > deadline:
            raise Trouble(f"The database is not prepared after {ready.LIMIT:.0f} s. More:  {typed('logs', home.path)} api")
        time.sleep(0.05)
    done = subprocess.run(supervisor.command(home, "job", "first-image"), input=json.dumps({"file": str(file)}), capture_output=True,
                          text=True, env=supervisor.ENVIRONMENT, cwd="/", timeout=600, check=False)  # fmt: skip
    if done.returncode:
        words = done.stderr.strip().rpartition("\n")[2]
        raise Trouble(f"The image nacre-guest cannot be registered: {words}. Type  {typed('up', home.path)}  again.")
    layout.remember(home, {"first_image": file.parent.name})


def guest_image(config: Config) -> Path:
    """The guest image in the store, built on first use. Fake hosts boot nothing: an empty disk does for them."""
    if config.nacre.hypervisor == "fake":
        return _stored(STORE / "guest-fake", lambda part: _run(["qemu-img", "create", "-q", "-f", "qcow2", str(part), "16M"]))
    from nacre.guest import build

    def make(part: Path) -> None:
        print("Building the guest image, once on this machine ...", flush=True)
        build.build(part, lambda line: print(f"  {line}", flush=True))

    return _stored(STORE / f"guest-{build.fingerprint()}", make)


def _stored(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder/guest.qcow2`, made under another name first; one at a time on this machine."""
    STORE.mkdir(mode=0o755, exist_ok=True)
    with open(STORE / "guest.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o755)
            make(part / "guest.qcow2")
            (part / "guest.qcow2").chmod(0o644)
            part.rename(folder)
    return folder / "guest.qcow2"


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def _tell(home: Home, config: Config, clients: Path, took: float) -> None:
    for number in set(all_numbers(config)) - set(_wanted_hosts(home, config)):
        why = (certificates.refused(home, number) or {}).get("reason", "")
        print(f"Host {host_name(number)} is not part of this cloud any more: {why}:  sudo ./nacre node join TOKEN --sandbox {number}", flush=True)
    rc = home.path / "keystonerc_admin"
    print(f"""
Nacre is ready ({took:.1f} s).
  API       {credentials.authority(config)}   (identity: {credentials.authority(config)}/identity/v3)
  Source    {rc}  or  {home.path / 'keystonerc_demo'}
  Elsewhere OS_CLIENT_CONFIG_FILE={home.path / 'clouds.yaml'}  with clouds nacre and nacre-demo

Next:
  . {rc}
  openstack image list
  openstack catalog list
""", flush=True)  # fmt: skip


def _stay(home: Home, process: subprocess.Popen[bytes] | None) -> None:
    """Waits for the supervisor; what ends this command ends the cloud's processes."""
    found = alive.watch(home.path / "run", "up")
    if not found:
        raise Trouble(f"The supervisor has ended: type  {typed('up', home.path)}  again.")

    def pass_on(_number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(found[1], signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    while not alive.ended(found[1], 3600):
        pass
    if process:
        sys.exit(process.wait())
