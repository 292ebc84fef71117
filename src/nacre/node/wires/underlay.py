"""What a switch in user space (datapath `netdev`) needs of the host that one in the kernel does not.

It sends tunnels only through a bridge of its own, so the device with the tunnel address becomes a port of `br-phy` and the address
moves there: first added, then taken from the device, so that a crash in between is completed by the next look.
It reads devices beside the kernel's own stack, which would answer for the host on guests' ports: whatever arrives on a port of the
switch is dropped for the kernel, by one chain a device in table `netdev nacre`.
"""

import json
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nacre.node.commands import CommandFailed, run
from nacre.node.wires.ports import UNDERLAY

_TABLE = "nacre"


def kernel_datapath() -> bool:
    """Whether the kernel has Open vSwitch: asked of generic netlink, which loads the module where there is one."""
    name = b"ovs_datapath\0"
    attribute = struct.pack("HH", 4 + len(name), 2) + name
    attribute += b"\0" * (-len(attribute) % 4)
    message = struct.pack("BBH", 3, 1, 0) + attribute
    header = struct.pack("IHHII", 16 + len(message), 16, 1, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as netlink:
        netlink.settimeout(5)
        netlink.send(header + message)
        answer = netlink.recv(65536)
    kind: int = struct.unpack_from("H", answer, 4)[0]
    return kind != 2


@dataclass(frozen=True)
class Move:
    """Addresses (with prefix length) and default gateway to be moved from `device`, whose MAC address br-phy takes."""

    device: str
    mac: str
    addresses: tuple[str, ...]
    gateway: str | None = None


def plan(tunnel_ip: str | None, links: Iterable[Mapping[str, Any]], routes: Iterable[Mapping[str, Any]]) -> Move | None:
    """From `ip -j address` and `ip -j route`: what has to move, None when nothing has. The loopback never does."""
    for link in links:
        held = [info for info in link.get("addr_info", ()) if info["family"] == "inet"]
        if link["ifname"] in (UNDERLAY, "lo") or tunnel_ip not in [info["local"] for info in held]:
            continue
        gateway = next((route["gateway"] for route in routes if route["dst"] == "default" and route.get("dev") == link["ifname"]), None)
        addresses = tuple(f"{info['local']}/{info['prefixlen']}" for info in held)
        return Move(link["ifname"], link["address"], addresses, gateway)
    return None


def look() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Links and IPv4 routes of the host. Raises CommandFailed."""
    return json.loads(run(["ip", "-j", "address", "show"])), json.loads(run(["ip", "-j", "-4", "route", "show"]) or "[]")


def lines(move: Move) -> list[str]:
    """As `ip -batch`, once br-phy is there."""
    made = [f"address replace {address} dev {UNDERLAY}" for address in move.addresses]
    made.append(f"link set {UNDERLAY} up")
    made += [f"address del {address} dev {move.device}" for address in move.addresses]
    if move.gateway:
        made.append(f"route replace default via {move.gateway} dev {UNDERLAY}")
    return made


def shield_script(wanted: Iterable[str], chains: Iterable[str]) -> str:
    """From the names of the chains that are there; empty when nothing is to be done."""
    names = {f"in_{device}": device for device in wanted}
    gone, new = sorted(set(chains) - set(names)), sorted(set(names) - set(chains))
    script = [f"delete chain netdev {_TABLE} {chain}" for chain in gone]
    for chain in new:
        hook = f'type filter hook ingress device "{names[chain]}" priority 0; policy drop;'
        script.append(f"add chain netdev {_TABLE} {chain} {{ {hook} }}")
    return "\n".join([f"add table netdev {_TABLE}", *script, ""]) if script else ""


def chains(listing: str) -> set[str]:
    """Names of the chains, from `nft -j list table`."""
    return {entry["chain"]["name"] for entry in json.loads(listing)["nftables"] if "chain" in entry}


def shield(devices: Iterable[str]) -> None:
    """Have the kernel drop what arrives on `devices`, and on no other device. Raises CommandFailed."""
    try:
        seen = chains(run(["nft", "-j", "list", "table", "netdev", _TABLE]))
    except CommandFailed as error:
        if error.status is None:
            raise
        seen = set()
    script = shield_script(devices, seen)
    if script:
        run(["nft", "-f", "-"], stdin=script)
