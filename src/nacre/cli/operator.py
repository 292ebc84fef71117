"""What operators type on an OpenStack host, for this cloud: `openstack-status`, `openstack-service`, `nova-manage`.

`up` puts a command of each name into `<home>/bin`, which `keystonerc_*` puts on PATH; they come here as `nacre tool --home HOME NAME ...`.
One process of ours is several of upstream's services, so stopping one of them stops its neighbours, which is said. What was stopped is
held back by a file that the supervisor looks at before it starts something; the next `up` starts everything.
"""

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nacre.cli import alive, certificates, hosts, layout, ready, supervisor
from nacre.cli.processes import all_numbers, host_name
from nacre.cli.trouble import Trouble, typed
from nacre.core.config import Config, Home, load

NAMES = ("nova-manage", "openstack-service", "openstack-status")
FAMILIES = {
    "Nova services": {
        "openstack-nova-api": "api", "openstack-nova-compute": "node", "openstack-nova-scheduler": "worker", "openstack-nova-conductor": "worker",
        "openstack-nova-novncproxy": "api",
    },
    "Placement service": {"openstack-placement-api": "api"},
    "Glance services": {"openstack-glance-api": "api"},
    "Keystone service": {"openstack-keystone": "api"},
    "neutron services": {
        "neutron-server": "api", "neutron-dhcp-agent": "node", "neutron-l3-agent": "node", "neutron-metadata-agent": "node",
        "neutron-openvswitch-agent": "node",
    },
}  # fmt: skip
ROLES = {service: role for family in FAMILIES.values() for service, role in family.items()}
_SUPPORT = {"libvirtd": "libvirtd", "openvswitch": "ovs-vswitchd"}
_LISTS = {"Keystone users": "user list", "Glance images": "image list", "Nova managed services": "compute service list",
          "Nova networks": "network list", "Nova instance flavors": "flavor list --all", "Nova instances": "server list --all-projects"}  # fmt: skip
_PATIENCE = 30.0


def run(home: Home, name: str, words: Sequence[str]) -> int:
    """The exit status. Raises Trouble."""
    if not layout.is_home(home.path):
        raise Trouble(f"There is no cloud in {home.path}.")
    if os.geteuid():
        raise Trouble(f"This needs root: type  sudo -E env PATH=\"$PATH\" {name} {' '.join(words)}".rstrip())
    config = load(home.path / "nacre.toml")
    match [name, *words]:
        case ["openstack-status"]:
            return _status(home, config)
        case ["openstack-service", "list", *asked]:
            print("\n".join(chosen(asked)))
            return 0
        case ["openstack-service", "status", *asked]:
            print("\n".join(line for service in chosen(asked) for line in _shown(home, config, service)))
            return 0
        case ["openstack-service", "start" | "stop" | "restart" as verb, *asked]:
            _act(home, config, verb, chosen(asked))
            return 0
        case ["nova-manage", "cell_v2", "discover_hosts", *options] if set(options) <= {"--verbose", "--by-service", "--strict"}:
            return discover(home, config, options)
    raise Trouble(_USAGE[name])


_USAGE = {
    "openstack-status": "usage: openstack-status",
    "openstack-service": "usage: openstack-service {list|status|start|stop|restart} [service ...]",
    "nova-manage": "usage: nova-manage cell_v2 discover_hosts [--verbose] [--by-service] [--strict]. What other commands of nova-manage"
    " prepare,  nacre up  has prepared.",
}


def chosen(asked: Sequence[str]) -> list[str]:
    """Services by name, or by the beginning of it (`nova`, `neutron`); all when none is asked for. Raises Trouble."""
    found = []
    for word in asked:
        part = word.removesuffix(".service")
        some = [service for service in ROLES if part in (service, service.removeprefix("openstack-"))]
        some = some or [service for service in ROLES if service.removeprefix("openstack-").startswith(part)]
        if not some:
            raise Trouble(f"There is no service {word}. There are: {', '.join(ROLES)}")
        found += some
    return sorted(set(found) or ROLES)


@dataclass(frozen=True)
class _Process:
    role: str
    host: str | None
    pid: int | None


def _processes(home: Home, config: Config, service: str) -> list[_Process]:
    """The processes of ours that are this service."""
    role = ROLES[service]
    if role != "node" or config.nacre.hypervisor == "fake":
        return [_Process(role, None, alive.holder(home.path / "run", role))]
    return [_Process(f"node-{n}", host_name(n), alive.holder(home.path / "run", f"node-{n}")) for n in all_numbers(config)]


def _shown(home: Home, config: Config, service: str) -> list[str]:
    """As `systemctl show` would say it; of several hosts each has a line."""
    found = _processes(home, config, service)
    return [
        f"MainPID={process.pid or 0} Id={service}{f'@{process.host}' if len(found) > 1 else ''}.service"
        f" ActiveState={'active' if process.pid else 'inactive'}"
        for process in found
    ]


def _status(home: Home, config: Config) -> int:
    for family, services in FAMILIES.items():
        print(f"== {family} ==")
        for service in services:
            found = _processes(home, config, service)
            missing = [process.host or "" for process in found if not process.pid]
            where = f"  (inactive on {', '.join(missing)})" if missing and len(missing) < len(found) else ""
            print(f"{service + ':':<40}{'inactive' if len(missing) == len(found) else 'active'}{where}")
    print("== Support services ==")
    seen = {process.role for host in hosts.known(home) if host.running() for process in host.processes()}
    for service, daemon in _SUPPORT.items():
        print(f"{service + ':':<40}{'active' if daemon in seen else 'inactive'}")
    if not os.environ.get("OS_AUTH_URL"):
        print(f"== {next(iter(_LISTS))} ==", flush=True)
        print(f"Warning keystonerc not sourced: type  . {home.path / 'keystonerc_admin'}", file=sys.stderr)
        return 0
    client = shutil.which("openstack")
    for title, words in _LISTS.items() if client else ():
        print(f"== {title} ==", flush=True)
        subprocess.run([str(client), *words.split()], timeout=60, check=False)
    return 0


def _act(home: Home, config: Config, verb: str, services: Sequence[str]) -> None:
    """Raises Trouble when what should run does not within half a minute."""
    run = home.path / "run"
    touched = sorted({process.role for service in services for process in _processes(home, config, service)})
    neighbours = [service for service, role in ROLES.items() if service not in services and any(one.partition("-")[0] == role for one in touched)]
    if neighbours and verb != "start":
        print(f"With the same process: {', '.join(neighbours)}.", file=sys.stderr, flush=True)
    if verb != "stop" and not alive.holder(run, "up"):
        raise Trouble(f"The cloud is down: type  {typed('up', home.path)}")
    for number in all_numbers(config) if verb != "stop" else ():
        if f"node-{number}" in touched and (why := certificates.refused(home, number)):
            touched.remove(f"node-{number}")
            print(f"Not started: {why['reason']}.", file=sys.stderr)
    before = {}
    for role in touched:
        held = supervisor.held_back(home, role)
        if verb == "stop":
            held.touch()
        else:
            held.unlink(missing_ok=True)
        if verb != "start" and (found := alive.watch(run, role)):
            before[role] = found[0]
            alive.stop([found[1]])
            os.close(found[1])
    supervisor.wake(home)
    deadline = time.monotonic() + _PATIENCE
    for role in touched if verb != "stop" else ():
        while alive.holder(run, role) in (None, before.get(role)):
            if time.monotonic() > deadline:
                raise Trouble(f"{role} does not start. More:  {typed('logs', home.path)} {role.partition('-')[0]}")
            time.sleep(0.05)


def discover(home: Home, config: Config, options: Sequence[str]) -> int:
    """Hosts are known as soon as they report; this tells which were not told of yet, in upstream's words. `--strict`: 1 if none."""
    client = ready.Client(home, config)
    try:
        client.catalog(layout.password(home, "admin"))
        status, _, body = client.ask("GET", "/compute/v2.1/os-hypervisors/detail", headers={"openstack-api-version": "compute 2.53"})
    except (ready.NotReady, PermissionError) as error:
        raise Trouble(f"The cloud cannot be asked: {error}. Type  {typed('up', home.path)}") from error
    if status != 200:
        raise Trouble(f"The cloud does not tell its hosts: {status}. More:  {typed('logs', home.path)} compute")
    told = layout.recall(home).get("discovered")
    known = set(told) if isinstance(told, list) else set()
    new = [(host["service"]["host"], host["id"]) for host in body["hypervisors"] if host["id"] not in known]
    cell = uuid.uuid5(uuid.NAMESPACE_DNS, f"cell1.{home.mark}")
    lines = ["Found 2 cell mappings.", "Skipping cell0 since it does not contain hosts.", f"Getting computes from cell 'cell1': {cell}"]
    for host, id_ in new:
        lines.append(f"Checking host mapping for compute host '{host}': {id_}")
        lines.append(f"Creating host mapping for compute host '{host}': {id_}")
    lines.append(f"Found {len(new)} unmapped computes in cell: {cell}")
    if "--verbose" in options:
        print("\n".join(lines))
    layout.remember(home, {"discovered": sorted(known | {id_ for _, id_ in new})})
    return int("--strict" in options and not new)


def install(home: Home, python: str, program: Path) -> Path:
    """The folder with the commands of this home, which call this very program."""
    folder = home.path / "bin"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name in NAMES:
        words = f"exec '{python}' -I '{program}' tool --home '{home.path}' {name} \"$@\""
        layout.write(folder / name, f"#!/bin/sh\n# {name} of the cloud in this folder's parent.\n{words}\n", 0o755)
    return folder
