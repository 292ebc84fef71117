"""What the supervisor starts: `nacre api|worker|node|up --supervise`, and the short jobs `nacre job ...`.

Each takes the lock of its role first, so there is never a second one. `api` and `worker` begin as root: they mount the home at a path
that everybody can walk, in a mount namespace of their own; `api` opens its listening sockets in the machine's and in the host's
network; then they become the unprivileged user for good. Only `node` stays root; it runs inside the host's namespaces, where the home
is already mounted.

At a start of the whole cloud the slow part of `api` and `worker`, loading the program, runs beside the job that prepares the database:
they wait at `Gate` for it.
"""

import argparse
import faulthandler
import gc
import importlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from nacre.cli import alive, confine
from nacre.core import log
from nacre.core.config import Config, ConfigError, Database, Home, load

ALREADY_RUNS = 11
_GATE_LIMIT = 120.0


class Gate:
    """A job that others wait for: closed while its file exists."""

    def __init__(self, home: Path, job: str) -> None:
        self.path = home / "run" / f"{job}.wait"

    def close(self) -> None:
        self.path.touch()

    def open(self) -> None:
        self.path.unlink(missing_ok=True)

    def wait(self, seconds: float = _GATE_LIMIT) -> None:
        """Raises TimeoutError when the job takes longer."""
        deadline = time.monotonic() + seconds
        while self.path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path.stem} does not end")
            time.sleep(0.02)


def main(arguments: list[str]) -> None:
    """Runs one process to its end; never returns to the command line."""
    parser = argparse.ArgumentParser(prog="nacre")
    parser.add_argument("verb")
    parser.add_argument("job", nargs="?")
    parser.add_argument("--supervise", action="store_true")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host", type=int)
    given = parser.parse_args(arguments)
    home = Home(given.home)
    signal.signal(signal.SIGTERM, _terminated)
    faulthandler.enable()
    try:
        config = load(home.path / "nacre.toml")
        if given.verb == "job":
            return _job(given.job, home, config, given.host)
        role = given.verb if given.host is None else f"{given.verb}-{given.host}"
        if not alive.hold(home.path / "run", role):
            sys.exit(ALREADY_RUNS)
        confine.name_process(f"nacre-{given.verb}")
        log.setup(home.path / "logs", given.verb, debug=config.DEFAULT.debug)
        _run(given.verb, home, config, given.host)
    except ConfigError as error:
        sys.exit(str(error))
    except Exception as error:
        logging.getLogger("nacre").critical("%s ends: %s", given.verb, error, exc_info=error)
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _run(verb: str, home: Home, config: Config, host: int | None) -> None:
    match verb:
        case "up":
            from nacre.cli import supervisor

            supervisor.Supervisor(home, config).run()
        case "api":
            _api(home, config)
        case "worker":
            confine.mount_home(home)
            _unprivileged(home, "worker")
            program = _program()
            Gate(home.reach, "prepare").wait()
            program.run_worker(home, config)
        case "node":
            _node(home, config, host)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _program() -> Any:
    return _loaded("nacre.program")


def _loaded(name: str) -> Any:
    """The module. What is loaded stays for good: the collector of garbage need not walk through it each time, nor walk so often."""
    module = importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    return module


def _unprivileged(home: Home, process: str) -> None:
    """For the rest of its life this process is the unprivileged user and sees the home at its reachable path."""
    confine.become("nacre")
    log.setup(home.reach / "logs", process)


def _api(home: Home, config: Config) -> None:
    program = _program()
    fake = config.nacre.hypervisor == "fake"
    Gate(home.path, "prepare").wait()
    sockets = program.sockets(config)
    inside = None
    if not fake:
        from nacre.cli import listeners

        inside = listeners.inside(home, config)
    confine.mount_home(home)
    _unprivileged(home, "api")
    names = [host_name(number) for number in (host_numbers(config) if fake else (1,))]
    program.serve_api(home, config, sockets=sockets, node_hosts=names, inside=inside)


def all_numbers(config: Config) -> list[int]:
    """The hosts of this cloud on this machine and those that joined it."""
    return [*host_numbers(config), *config.nacre.joined]


def host_numbers(config: Config) -> range:
    """The hosts of this cloud on this machine: the first, and all that are pretended, are known by their sockets."""
    return range(1, 1 + (config.nacre.fake_hosts if config.nacre.hypervisor == "fake" else config.nacre.nodes))


def host_name(number: int) -> str:
    return f"nacre-{number}"


def _node(home: Home, config: Config, host: int | None) -> None:
    if host is None:
        confine.mount_home(home)
        _unprivileged(home, "node")
    node = _loaded("nacre.node.run")
    numbers = [host] if host is not None else list(host_numbers(config))
    node.run(home, config, {host_name(number): home.host(number) for number in numbers})


def _identity(home: Home, config: Config, number: int) -> None:
    """A host that runs gets what it needs to speak with the api, and the api a place to listen there."""
    from nacre.cli import certificates, listeners, supervisor

    listeners.hand_over(home, config, number)
    if number != 1:
        Gate(home.path, "prepare").wait()
        certificates.ensure(home, config, number, supervisor.command(home, "job", "admit"), supervisor.ENVIRONMENT)


def _job(job: str, home: Home, config: Config, host: int | None) -> None:
    """Short work of a start. What goes wrong is one line on stderr and exit status 1."""
    log.setup(home.path / "logs", "up", debug=config.DEFAULT.debug)
    try:
        match job:
            case "host":
                from nacre.cli import hosts

                hosts.of(home, host or 1).ensure(uplink=config.nacre.uplink == "nat")
                _identity(home, config, host or 1)
            case _:
                _unprivileged_job(job, home, config)
    except Exception as error:
        logging.getLogger("nacre").exception("job %s failed", job)
        print(f"{job}: {getattr(error, 'reason', error)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def _unprivileged_job(job: str, home: Home, config: Config) -> None:
    """Its order is JSON on standard input; what it answers goes to standard output."""
    order = _facts(home) if job == "prepare" else {} if job == "backup" else json.load(sys.stdin)
    confine.mount_home(home)
    _unprivileged(home, "api")
    program = _program()
    if "url" in order:
        config = msgspec.structs.replace(config, database=Database(connection=order.pop("url")))
    match job:
        case "prepare":
            program.prepare(home, config, order["passwords"], program.postgresql.History(**order["history"]))
        case "examine":
            program.examine(home, config, program.postgresql.History(**order))
        case "move-database":
            print(json.dumps(program.move_database(home, config, order["mark"])))
        case "backup":
            program.backup(home, config, map(json.loads, sys.stdin), lambda answer: print(json.dumps(answer), flush=True))
        case "settle-backup":
            there = program.backups.There(order["there"], order["hosts"], order["epoch"])
            print(program.settle_backup(home.reach / order["file"], order["when"], there))
        case "node-token":
            print(program.node_token(home, config, int(order["seconds"])))
        case "admit":
            print(program.admit(home, config, order["host"], order["csr"]), end="")
        case "first-image":
            program.first_image(home, config, Path(order["file"]))
        case "why" | "explain" | "doctor" | "keys":
            print(json.dumps(program.answer(home, config, job, order)))
        case _:
            sys.exit(f"no such job: {job}")


def _facts(home: Home) -> dict[str, Any]:
    """What only root can read and the preparation of the database needs."""
    from nacre.cli import db, layout

    return {"passwords": {user: layout.password(home, user) for user in ("admin", "demo")}, "history": db.history(home)}
