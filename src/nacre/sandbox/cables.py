"""The cables of sandbox hosts: veth pairs between each host and a *fabric*, a network namespace with two bridges.

| end in the host | end in the fabric | bridge | for |
|---|---|---|---|
| `eth0` | `u<n>` | `br-underlay` | tunnels between hosts; 192.0.2.<n>/24 when it is made |
| `eth-ext` | `x<n>` | `br-ext` | to be plugged in the host's `br-ex` by the node; no address |
| `ext-out` (host 1 only) | `out` | `br-ext` | the outside: carries the gateway addresses of the external subnets |

The fabric is pinned by a mount in host 1's mount namespace and ends with it; it leads nowhere else, so no packet leaves the sandbox.
`ensure` lays what is missing, so hosts 2.. get new cables after host 1 was replaced. Checksum offload is off on both ends: a switch in
user space would pass on the unfinished checksums.
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
    address: str | None = None


def underlay_address(number: int) -> str:
    return f"192.0.2.{number}"


def plan(number: int, seen: set[str]) -> list[Cable]:
    """The cables that host `number` lacks, given the names of its interfaces that are up (a cable comes up last when it is laid)."""
    wanted = [
        Cable(UNDERLAY, f"u{number}", "br-underlay", f"{underlay_address(number)}/24"),
        Cable(EXTERNAL, f"x{number}", "br-ext"),
    ]
    if number == 1:
        wanted.append(Cable(OUTSIDE, "out", "br-ext"))
    return [cable for cable in wanted if cable.inner not in seen]


def make_fabric() -> None:
    """Make the fabric and pin it at FABRIC; called by process 1 of host 1 before it becomes init. Raises OSError, CommandFailed."""
    FABRIC.parent.mkdir(parents=True, exist_ok=True)
    FABRIC.touch()
    with open("/proc/self/ns/net", "rb") as own:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        namespaces.bind(Path("/proc/self/ns/net"), FABRIC)
        for bridge in BRIDGES:
            run(["ip", "link", "add", bridge, "type", "bridge", "mcast_snooping", "0"])
            run(["ip", "link", "set", bridge, "addrgenmode", "none", "up"])
        namespaces.setns(own.fileno(), namespaces.CLONE_NEWNET)


def fabric_of(pid: int) -> Path:
    """The fabric's namespace file as the machine sees it, `pid` being process 1 of host 1."""
    return Path(f"/proc/{pid}/root{FABRIC}")


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
        add = ["ip", "link", "add", cable.outer, "type", "veth", "peer", "name", cable.inner, "netns", str(host)]
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
