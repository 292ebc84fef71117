"""What a cloud takes of the machine that is its host, and what it must not touch there.

The wires of a host have fixed names, so a cloud may use a machine only where these names are free. Who looked and found them free writes
a claim, before anything is made; from then on what bears these names is the cloud's, until it gave everything back. A bridge that
leads to a physical network is the operator's to make: one that was there is used and left. `/run/nacre/on-host` names the cloud that
uses this machine; the folder is locked while one looks, so two clouds never both find it free.

Guests are known by their files, which lie below the home, never by their names.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from nacre.core.config import Home
from nacre.node.commands import CommandFailed, run
from nacre.sandbox.cables import EXTERNAL, OUTSIDE

SHARED = Path("/run/nacre")
USER = SHARED / "on-host"
BRIDGES = ("br-int", "br-tun", "br-phy")
ROOMS = ("qdhcp-", "qrouter-")
TABLES = (("netdev", "nacre"), ("inet", "outside"))
DATABASES = (Path("/etc/openvswitch/conf.db"), Path("/var/lib/openvswitch/conf.db"))
SOCKET = Path("/run/openvswitch/db.sock")
_DOMAIN = re.compile(r"instance-[0-9a-f]{8}")
_NAMES = json.dumps(["Open_vSwitch", {"op": "select", "table": "Bridge", "where": [], "columns": ["name"]}])


class Claim(msgspec.Struct, frozen=True):
    """`held`: the names are the cloud's. `theirs`: bridges to physical networks that were there. `files` and `units`: made, or started,
    where there was none; they stay until the cloud is wiped."""

    held: bool = False
    theirs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


class Seen(msgspec.Struct, frozen=True):
    """Names on the machine. `guests`: name of a domain -> its definition."""

    links: frozenset[str] = frozenset()
    bridges: frozenset[str] = frozenset()
    rooms: frozenset[str] = frozenset()
    tables: frozenset[tuple[str, str]] = frozenset()
    guests: Mapping[str, str] = {}
    user: str = ""


def foreign(seen: Seen, home: Home, mapped: Iterable[str]) -> list[str]:
    """What stands in the way of a cloud that has no claim yet, in words. `mapped`: its bridges to physical networks."""
    found = [f"the cloud in {seen.user}"] if seen.user and seen.user != str(home.path) else []
    found += [f"bridge {name}" for name in BRIDGES if name in seen.bridges]
    found += [f"interface {name}" for name in (*BRIDGES, EXTERNAL, OUTSIDE) if name in seen.links - seen.bridges]
    found += [f"interface {name}, which is no bridge of Open vSwitch" for name in mapped if name in seen.links - seen.bridges]
    found += [f"namespace {name}" for name in sorted(seen.rooms)]
    found += [f"nftables table {family} {name}" for family, name in TABLES if (family, name) in seen.tables]
    return found + [f"guest {name}" for name, text in sorted(seen.guests.items()) if _DOMAIN.fullmatch(name) and not ours(text, home)]


def ours(definition: str, home: Home) -> bool:
    """Whether a domain is a guest of this cloud: its disks lie in the home."""
    return f"'{home.host(1)}/instances/" in definition


def look() -> Seen:
    """Raises CommandFailed."""
    tables = json.loads(run(["nft", "-j", "list", "tables"]))["nftables"]
    return Seen(
        links=frozenset(link["ifname"] for link in json.loads(run(["ip", "-json", "link", "show"]))),
        bridges=frozenset(bridges()),
        rooms=frozenset(rooms()),
        tables=frozenset((entry["table"]["family"], entry["table"]["name"]) for entry in tables if "table" in entry),
        guests=defined(),
        user=USER.read_text().strip() if USER.exists() else "",
    )


def database() -> Path:
    """The switch's database, where distributions have it: the first that is no link, else the place for a new one."""
    return next((path for path in DATABASES if path.is_file() and not path.is_symlink()), DATABASES[-1])


def bridges() -> set[str]:
    """Bridges of Open vSwitch, asked of its server, or read from its file while none runs. Raises CommandFailed."""
    if SOCKET.is_socket():
        with suppress(CommandFailed):
            return set(run(["ovs-vsctl", "--timeout=5", "list-br"]).split())
    if not database().exists():
        return set()
    answer = json.loads(run(["ovsdb-tool", "query", str(database()), _NAMES]))
    return {row["name"] for row in answer[0]["rows"]}


def rooms() -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(entry.name for entry in Path("/run/netns").iterdir() if entry.name.startswith(ROOMS))
    return []


def defined() -> dict[str, str]:
    """Every domain that libvirt knows, from its own files: it need not run. Those that are on are in the second folder."""
    found = {}
    for folder in (Path("/etc/libvirt/qemu"), Path("/run/libvirt/qemu")):
        for path in folder.glob("*.xml"):
            with suppress(OSError):
                found[path.stem] = path.read_text(errors="replace")
    return found


@contextmanager
def machine_lock() -> Iterator[None]:
    """One at a time decides what of the machine is whose."""
    SHARED.mkdir(mode=0o755, exist_ok=True)
    descriptor = os.open(SHARED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(path: Path) -> Claim | None:
    """None when there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Claim)
    except FileNotFoundError:
        return None


def write(path: Path, claim: Claim) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(claim))
    new.replace(path)
