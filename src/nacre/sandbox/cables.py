"""The cables of sandbox hosts: veth pairs between each host and a *fabric*, a network namespace with two bridges.

| end in the host | end in the fabric | bridge | for |
|---|---|---|---|
| `eth0` | `u<n>` | `br-underlay` | tunnels between hosts; 192.0.2.<n>/24 when it is made |
| `eth-ext` | `x<n>` | `br-ext` | to be plugged in the host's `br-ex` by the node; no address |
| `ext-out` (host 1 only) | `out` | `br-ext` | the outside: carries the gateway addresses of the external subnets |

The fabric is pinned by a mount in every host's mount namespace and ends with the last of them, so the death of one host, the first too,
cuts its own cables only. It leads nowhere else, so no packet leaves the sandbox. `ensure` lays what is missing. A cable has always the same
hardware address, so that what others remember of a host is still true when it returns. Checksum offload is off on both ends: a switch in user
space would pass on the unfinished checksums.
"""

from pathlib import Path

import msgspec

from nacre.node.commands import run
from nacre.sandbox import namespaces

FABRIC = Path("/run/nacre/fabric")
BRIDGES = ("br-underlay", "br-ext")
EXTERNAL = "eth-ext"
OUTSIDE = "ext-out"
UNDERLAY = "eth0"


class Cable(msgspec.Struct, frozen=True):
    inner: str
    outer: str
    bridge: str
    mac: str
    address: str | None = None


def underlay_address(number: int) -> str:
    return f"192.0.2.{number}"


def plan(number: int, seen: set[str]) -> list[Cable]:
    """The cables that host `number` lacks, given the names of its interfaces that are up (a cable comes up last when it is laid)."""
    wanted = [
        Cable(UNDERLAY, f"u{number}", "br-underlay", _mac(1, number), f"{underlay_address(number)}/24"),
        Cable(EXTERNAL, f"x{number}", "br-ext", _mac(2, number)),
    ]
    if number == 1:
        wanted.append(Cable(OUTSIDE, "out", "br-ext", _mac(3, number)))
    return [cable for cable in wanted if cable.inner not in seen]


def _mac(kind: int, number: int) -> str:
    """Locally administered, not of the range of guests' ports."""
    return f"02:6e:61:00:{kind:02x}:{number:02x}"


def pin_fabric(descriptor: int) -> None:
    """Pin the fabric that another host holds, given an open file of it; called by process 1 of a host before it becomes init. Raises OSError."""
    FABRIC.parent.mkdir(parents=True, exist_ok=True)
    FABRIC.touch()
    namespaces.bind(Path(f"/proc/self/fd/{descriptor}"), FABRIC)


def make_fabric() -> None:
    """Make the fabric and pin it at FABRIC, as `pin_fabric` does. Raises OSError, CommandFailed."""
    FABRIC.parent.mkdir(parents=True, exist_ok=True)
    FABRIC.touch()
    with open("/proc/self/ns/net", "rb") as own:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        namespaces.bind(Path("/proc/self/ns/net"), FABRIC)
        for bridge in BRIDGES:
            run(["ip", "link", "add", bridge, "type", "bridge", "mcast_snooping", "0"])
            run(["ip", "link", "set", bridge, "addrgenmode", "none", "up"])
        namespaces.setns(own.fileno(), namespaces.CLONE_NEWNET)


def fabric_of(pid: int) -> Path | None:
    """The fabric's namespace file as the machine sees it, `pid` being process 1 of a host; None when it holds none (yet)."""
    place = Path(f"/proc/{pid}/root{FABRIC}")
    try:
        return place if place.stat().st_dev != place.parent.stat().st_dev else None
    except OSError:
        return None


def _inside(namespace: Path, *argv: str) -> str:
    return run(["nsenter", f"--net={namespace}", "--", *argv])


class Interface(msgspec.Struct, frozen=True):
    ifname: str = ""
    flags: tuple[str, ...] = ()


def interfaces(namespace: Path, *, up: bool = False) -> set[str]:
    """Names of the interfaces in a network namespace, or only of those that are up. Raises CommandFailed."""
    found = msgspec.json.decode(_inside(namespace, "ip", "-json", "link", "show"), type=list[Interface])
    return {entry.ifname for entry in found if not up or "UP" in entry.flags}


def ensure(number: int, host: Path, fabric: Path) -> None:
    """Lay the cables that host `number` lacks; `host` and `fabric` are network namespace files. Raises CommandFailed."""
    ends = interfaces(fabric)
    for cable in plan(number, interfaces(host, up=True)):
        if cable.outer in ends:
            _inside(fabric, "ip", "link", "delete", cable.outer)
        add = ["ip", "link", "add", cable.outer, "type", "veth", "peer", "name", cable.inner, "address", cable.mac, "netns", str(host)]
        _inside(fabric, *add)
        _inside(fabric, "ethtool", "-K", cable.outer, "tx", "off")
        _inside(fabric, "ip", "link", "set", cable.outer, "master", cable.bridge, "addrgenmode", "none", "up")
        _inside(host, "ethtool", "-K", cable.inner, "tx", "off")
        if cable.inner == EXTERNAL:
            _inside(host, "ip", "link", "set", cable.inner, "addrgenmode", "none")
        if cable.address:
            _inside(host, "ip", "address", "add", cable.address, "dev", cable.inner)
        _inside(host, "ip", "link", "set", cable.inner, "up")


def cut(number: int, host: Path) -> None:
    """Take away the cables of host `number`: a dead namespace can keep its ends alive for minutes. Raises CommandFailed."""
    present = interfaces(host)
    for cable in plan(number, set()):
        if cable.inner in present:
            _inside(host, "ip", "link", "delete", cable.inner)
