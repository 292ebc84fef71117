"""Rooms in the kernel: namespaces, veth pairs, addresses, routes, rulesets.

Only a thread can move to another network namespace, so `inside` does its work in a thread of its own that ends afterwards; commands
started there are in that namespace too. The two ends of a leg have the same name, one in the host's namespace, one in the room.
"""

import array
import contextlib
import ctypes
import fcntl
import ipaddress
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nacre.node.commands import CommandFailed, run
from nacre.node.wires.layout import Leg, Room, Route

T = TypeVar("T")
FOLDER = Path("/run/netns")
PREFIXES = ("qdhcp-", "qrouter-")
_LEGS = ("tap", "qr-", "qg-")
_NEWNET = 0x40000000
_OUTER_MTU = 9216
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Move the calling thread. Raises OSError."""
    with open(FOLDER / namespace, "rb") as file:
        if _libc.setns(file.fileno(), _NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)


def inside(namespace: str, work: Callable[[], T]) -> T:
    """What `work` returns, or raises, when done inside `namespace`. Raises OSError when it cannot be entered."""
    found: list[T] = []
    raised: list[BaseException] = []

    def visit() -> None:
        try:
            enter(namespace)
            found.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=visit, name=f"in {namespace}")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return found[0]


def rooms() -> set[str]:
    """Names of the namespaces that are ours by name."""
    with contextlib.suppress(FileNotFoundError):
        return {entry.name for entry in FOLDER.iterdir() if entry.name.startswith(PREFIXES)}
    return set()


def devices() -> set[str]:
    """Names of the devices in the host's namespace."""
    return {name for _, name in socket.if_nameindex()}


@dataclass(frozen=True)
class Seen:
    """What is in a room: device -> its addresses, MTU, MAC; and the routes we once set."""

    addresses: Mapping[str, frozenset[str]] = field(default_factory=dict)
    mtus: Mapping[str, int] = field(default_factory=dict)
    macs: Mapping[str, str] = field(default_factory=dict)
    up: frozenset[str] = frozenset()
    routes: frozenset[tuple[str, str | None]] = frozenset()


@dataclass(frozen=True)
class Changes:
    """`batch` must succeed, `attempts` may fail; `announce`: (device, address) to be made known to neighbours."""

    batch: tuple[str, ...]
    attempts: tuple[str, ...]
    announce: tuple[tuple[str, str], ...]


def plan(room: Room, seen: Seen) -> Changes:
    """What turns `seen` into `room`; empty when it is so already. What is taken away may take more with it (routes go with a link), so
    after that one has to look again."""
    batch: list[str] = [] if "lo" in seen.up else ["link set lo up"]
    wanted_routes = {(route.destination, route.via) for route in (*room.routes, *room.extra)}
    batch += [f"route del {_way(Route(*gone))} proto static" for gone in sorted(seen.routes - wanted_routes, key=str)]
    batch += [f"link delete {name}" for name in sorted(set(seen.mtus) - {leg.name for leg in room.legs}) if name.startswith(_LEGS)]
    announce = []
    for leg in room.legs:
        wanted, there = frozenset(_canonical(address) for address in leg.addresses), seen.addresses.get(leg.name, frozenset())
        if seen.macs.get(leg.name) != leg.mac:
            batch.append(f"link set {leg.name} address {leg.mac}")
        if seen.mtus.get(leg.name) != leg.mtu:
            batch.append(f"link set {leg.name} mtu {leg.mtu}")
        batch += [f"address del {address} dev {leg.name}" for address in sorted(there - wanted)]
        for address in sorted(wanted - there, key=list(map(_canonical, leg.addresses)).index):
            batch.append(f"address add {address} dev {leg.name}" + (" nodad" if ":" in address else ""))
            if ":" not in address:
                announce.append((leg.name, address.partition("/")[0]))
        if leg.name not in seen.up:
            batch.append(f"link set {leg.name} up")
    batch += [_replace(route) for route in room.routes if (route.destination, route.via) not in seen.routes]
    attempts = [_replace(route) for route in room.extra if (route.destination, route.via) not in seen.routes]
    return Changes(tuple(batch), tuple(attempts), tuple(announce))


def _canonical(address: str) -> str:
    return str(ipaddress.ip_interface(address))


def _way(route: Route) -> str:
    parts = [route.destination]
    parts += ["via", route.via] if route.via else []
    parts += ["dev", route.device] if route.device else []
    return " ".join(parts)


def _replace(route: Route) -> str:
    return f"route replace {_way(route)} proto static"


def look(namespace: str) -> Seen:
    """Raises CommandFailed, OSError."""
    links = json.loads(run(["ip", "-n", namespace, "-j", "address", "show"]))
    routes = [
        route
        for family in ("-4", "-6")
        for route in json.loads(run(["ip", "-n", namespace, "-j", family, "route", "show", "proto", "static"]) or "[]")
    ]
    return seen_of(links, routes)


def seen_of(links: Iterable[Mapping[str, Any]], routes: Iterable[Mapping[str, Any]]) -> Seen:
    """From what `ip -j` tells. Link-local IPv6 addresses are the kernel's and not listed."""
    addresses, mtus, macs, up = {}, {}, {}, set()
    for link in links:
        name = link["ifname"]
        mtus[name], macs[name] = link["mtu"], link.get("address", "")
        addresses[name] = frozenset(
            f"{info['local']}/{info['prefixlen']}"
            for info in link.get("addr_info", ())
            if not (info.get("scope") == "link" and info["family"] == "inet6")
        )
        if "UP" in link["flags"]:
            up.add(name)
    ways = {("::/0" if route["dst"] == "default" and _v6(route) else route["dst"], route.get("gateway")) for route in routes}
    return Seen(addresses, mtus, macs, frozenset(up), frozenset(ways))


def _v6(route: Mapping[str, Any]) -> bool:
    return ":" in str(route.get("gateway", ""))


def make(room: Room, seen_rooms: set[str]) -> None:
    """The namespace, if it is not there, with what a router or server must not do. Raises CommandFailed, OSError."""
    if room.namespace not in seen_rooms:
        run(["ip", "netns", "add", room.namespace])
    forward = "1" if room.forwards else "0"
    settings = {
        "ipv4/ip_forward": forward,
        "ipv4/conf/all/arp_ignore": "1",
        "ipv4/conf/all/arp_announce": "2",
        "ipv4/conf/all/promote_secondaries": "1",
        "ipv4/conf/all/rp_filter": "0",
        "ipv4/conf/default/rp_filter": "0",
        "ipv6/conf/all/forwarding": forward,
        "ipv6/conf/all/accept_ra": "0",
        "ipv6/conf/default/accept_ra": "0",
        "ipv6/conf/default/accept_dad": "0",
    }

    def write() -> None:
        for name, value in settings.items():
            path = Path("/proc/sys/net") / name
            if path.exists() and path.read_text().strip() != value:
                path.write_text(value)

    inside(room.namespace, write)


def lay(namespace: str, legs: Iterable[Leg]) -> None:
    """Make veth pairs. Raises CommandFailed."""
    peers = {leg.name: f"peer name {leg.name} netns {namespace} address {leg.mac} mtu {leg.mtu}" for leg in legs}
    batch(None, [f"link add name {name} mtu {_OUTER_MTU} type veth {peer}" for name, peer in peers.items()])


def ready(room: Room, *, offload: bool) -> None:
    """Outer ends up; both without checksum offload if not `offload`. Raises CommandFailed, OSError."""
    names = [leg.name for leg in room.legs]
    batch(None, [f"link set {name} addrgenmode none up" for name in names])
    if not offload:

        def settle() -> None:
            for name in names:
                no_checksum_offload(name)

        settle()
        inside(room.namespace, settle)


def batch(namespace: str | None, lines: Sequence[str], *, force: bool = False) -> None:
    """Carry out lines of `ip -batch`. With `force`, go on after one that fails. Raises CommandFailed."""
    if lines:
        where = ["-n", namespace] if namespace else []
        run(["ip", *(["-force"] if force else []), *where, "-batch", "-"], stdin="\n".join(lines) + "\n")


def remove(names: Iterable[str]) -> None:
    """Take away devices of the host's namespace, with the other end of their pair. Raises CommandFailed."""
    present = devices()
    batch(None, [f"link delete {name}" for name in sorted(set(names) & present)])


def destroy(namespace: str) -> None:
    """The room and its legs. Raises CommandFailed."""
    links = json.loads(run(["ip", "-n", namespace, "-j", "link", "show"]))
    batch(namespace, [f"link delete {link['ifname']}" for link in links if link["ifname"].startswith(_LEGS)])
    run(["ip", "netns", "delete", namespace])


def no_checksum_offload(device: str) -> None:
    """Have the kernel finish checksums itself: a switch in user space passes frames on as they are. Raises OSError."""
    value = array.array("B", struct.pack("II", 0x17, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, 0x8946, struct.pack("16sP", device.encode(), value.buffer_info()[0]))


def announce(device: str, address: str, mac: str) -> None:
    """A gratuitous ARP, so that neighbours forget who had the address before. To be called inside the room. Raises OSError."""
    own, ip = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(address)
    frame = b"\xff" * 6 + own + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + own + ip + b"\xff" * 6 + ip
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        raw.send(frame)


def drop_connections(address: str) -> None:
    """Forget the connections translated for a floating IP that went. To be called inside the room."""
    for side in ("--orig-dst", "--reply-dst"):
        with contextlib.suppress(CommandFailed):  # exit status 1: there was none
            run(["conntrack", "-D", side, address])
