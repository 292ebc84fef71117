"""`nacre status`: every process of a cloud, told from the outside: it asks locks and the kernel, no process of the cloud."""

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from nacre.cli import alive, credentials, down, hosts, layout, supervisor
from nacre.cli.trouble import Trouble, typed
from nacre.core.config import ConfigError, Home, load
from nacre.node import trouble


@dataclass(frozen=True)
class Process:
    """`pid` as the machine sees it; `pss_mb` is None when it cannot be read; `host` is empty for what belongs to no host; `stopped`: a signal
    keeps it from working."""

    role: str
    pid: int
    pss_mb: float | None
    restarts: int
    host: str = ""
    stopped: bool = False


def processes(home: Home) -> list[Process]:
    """Ours, then each host's daemons, DHCP servers and guests. Raises Trouble when this user cannot see them."""
    services: dict[str, Any] = supervisor.read_state(home).get("services", {})
    found = []
    try:
        for role in down.roles(home):
            if pid := alive.holder(home.path / "run", role):
                name, _, number = role.partition("-")
                restarts = services.get(role, {}).get("restarts", 0)
                found.append(_process(name, pid, restarts, f"nacre-{number}" if number else ""))
    except PermissionError as error:
        raise Trouble("This needs root: type  sudo ./nacre status") from error
    for host in reversed(hosts.known(home)):
        if host.running():
            found.append(_process("init", host.pid(), 0, host.name))
            found += [_process(seen.role, seen.pid, seen.restarts, host.name) for seen in host.processes()]
    return found


def _process(role: str, pid: int, restarts: int, host: str) -> Process:
    return Process(role, pid, alive.pss_mb(pid), restarts, host, trouble.stopped(pid))


def report(home: Home) -> dict[str, Any]:
    """What `--json` prints."""
    if not layout.is_home(home.path):
        return {"home": str(home.path), "running": False, "processes": []}
    if os.geteuid():
        raise Trouble("This needs root: type  sudo ./nacre status")
    found = processes(home)
    try:
        url = credentials.authority(load(home.path / "nacre.toml"))
    except ConfigError:
        url = None
    running = {"up", "api", "worker", "node"} <= {process.role for process in found}
    return {"home": str(home.path), "running": running, "api": url, "processes": [asdict(process) for process in found]}


def show(home: Home, *, as_json: bool) -> None:
    facts = report(home)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    if not facts["processes"]:
        print(f"No cloud runs in {home.path}.")
        return
    print(f"{facts['api']}   {home.path}\n")
    rows = [("ROLE", "HOST", "PID", "PSS MB", "RESTARTS")]
    rows += [(row["role"], row["host"] or "-", str(row["pid"]), str(row["pss_mb"] or "-"), str(row["restarts"])) for row in facts["processes"]]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        words = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(words).rstrip())
    for row in facts["processes"]:
        if row["stopped"]:
            where = f" of {row['host']}" if row["host"] else ""
            print(f"\nStopped: {row['role']}{where}, by a signal; it goes on with  sudo kill -CONT {row['pid']}")
    missing = sorted({"up", "api", "worker", "node"} - {row["role"] for row in facts["processes"]})
    if missing:
        print(f"\nNot running: {', '.join(missing)}. Type  {typed('up', home.path)}")
