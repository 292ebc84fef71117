"""Which processes belong to a host, told from outside it.

A pid alone can be somebody else's tomorrow: process 1 of a host is known by pid, start time and boot, and held by a pidfd while
something is done to it. Members of the host are the processes whose pid namespace is that of process 1.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

PROC = Path("/proc")


class Identity(msgspec.Struct, frozen=True):
    """Process 1 of a host as the machine sees it; `start` in clock ticks since the boot named `boot`."""

    pid: int
    start: int
    boot: str


class HostProcess(msgspec.Struct, frozen=True):
    """One daemon or guest: `pid` as the machine outside the sandbox sees it, `inner` as the host sees it."""

    role: str
    pid: int
    inner: int
    restarts: int


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[str, int]:
    """State letter and start time. Raises OSError when there is no such process."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


def identify(pid: int) -> Identity:
    """Raises OSError when there is no such process."""
    return Identity(pid, _stat(pid)[1], _boot())


def write_identity(path: Path, identity: Identity) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(identity))
    new.replace(path)


def read_identity(path: Path) -> Identity | None:
    """None when the file is absent or cannot be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except (OSError, msgspec.MsgspecError):
        return None


def alive(identity: Identity) -> bool:
    """Whether that very process still has its namespaces. One that is past giving them up, or a zombie, is gone."""
    try:
        state, start = _stat(identity.pid)
        os.readlink(PROC / str(identity.pid) / "ns/net")
    except OSError:
        return False
    return start == identity.start and state not in "ZX" and identity.boot == _boot()


def pid_namespace(pid: int) -> str | None:
    """The name of the pid namespace of a process, None when it is gone, a zombie, or past giving up its other namespaces.

    A killed process 1 stays in the last of these until every parent outside has reaped its children inside.
    """
    try:
        if _stat(pid)[0] in "ZX":
            return None
        os.readlink(PROC / str(pid) / "ns/net")
        return os.readlink(PROC / str(pid) / "ns/pid")
    except OSError:
        return None


def members(namespace: str) -> dict[int, int]:
    """Live processes of a pid namespace (and those below it): pid outside → pid inside."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and pid_namespace(int(entry.name)) == namespace:
            try:
                status = (entry / "status").read_text()
            except OSError:
                continue
            pids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            found[int(entry.name)] = int(pids[-1])
    return found


def name(pid: int) -> str:
    """As the kernel calls it, empty when it is gone."""
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


DAEMONS = ("ovsdb-server", "ovs-vswitchd", "virtlogd", "libvirtd")


def roles(seen: dict[int, int], names: dict[int, str], daemons: dict[str, dict[str, int]]) -> list[HostProcess]:
    """Daemons of process 1 by its state file, dnsmasq and guests by their command name; what is none of these is left out."""
    by_inner = {entry["pid"]: (role, entry["restarts"]) for role, entry in daemons.items() if entry["pid"]}
    found = []
    for pid, inner in sorted(seen.items()):
        role, restarts = by_inner.get(inner, ("", 0))
        called = names.get(pid, "")
        role = role or ("guest" if called.startswith("qemu-system") else "dnsmasq" if called == "dnsmasq" else "")
        if role:
            found.append(HostProcess(role, pid, inner, restarts))
    return found


def host_processes(namespace: str, state: Path) -> list[HostProcess]:
    """`state` is the file that process 1 keeps; while it is absent the daemons are left out."""
    seen = members(namespace)
    return roles(seen, {pid: name(pid) for pid in seen}, _kept(state))


def machine_processes(state: Path, marks: Mapping[str, str]) -> list[HostProcess]:
    """Of the machine itself: daemons by their command name, whoever keeps them; of the other roles those whose arguments contain the
    role's mark."""
    seen = members(os.readlink(PROC / "self/ns/pid"))
    names = {pid: name(pid) for pid in seen}
    daemons = {called: {"pid": pid, "restarts": 0} for pid, called in names.items() if called in DAEMONS}
    for role, entry in _kept(state).items():
        if entry["pid"] and names.get(entry["pid"]) == role:
            daemons[role] = entry
    return [found for found in roles(seen, names, daemons) if found.role in daemons or _has(found.pid, marks.get(found.role))]


def _kept(state: Path) -> dict[str, dict[str, int]]:
    try:
        return msgspec.json.decode(state.read_bytes(), type=dict[str, dict[str, int]])
    except (OSError, msgspec.MsgspecError):
        return {}


def _has(pid: int, mark: str | None) -> bool:
    try:
        return mark is not None and mark.encode() in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False
