"""Entries of the switch's connection table go with the addresses they are for: whoever gets an address next, or a local VLAN (the zone),
inherits nobody's open connections.

Of IPv6 only TCP, UDP and SCTP are forgotten: Open vSwitch 3.1.0 aborts when it is told to forget an ICMPv6 entry (it takes its type for
one of IPv4). An echo's entry lives for half a minute by itself.
What was there at the last apply is remembered, not read back, so what goes while no agent runs is left to conntrack's own timeouts.
"""

import contextlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from nacre.node.commands import run
from nacre.node.wires.driver import Wanted
from nacre.node.wires.layout import Network

_SAFE = (6, 17, 132)


@dataclass(frozen=True)
class Held:
    """`zones` in use, and the guests' (zone, address)."""

    zones: frozenset[int] = frozenset()
    addresses: frozenset[tuple[int, str]] = frozenset()


def held(wanted: Wanted, networks: Mapping[str, Network]) -> Held:
    """A document that cannot be understood holds nothing."""
    found = set()
    for document in wanted.get("port", {}).values():
        network = networks.get(document.body.get("network_id", ""))
        if network is None:
            continue
        for fixed in document.body.get("fixed_ips") or ():
            with contextlib.suppress(KeyError, ValueError, TypeError):
                found.add((network.vlan, str(ipaddress.ip_address(fixed["ip_address"]))))
    return Held(frozenset(network.vlan for network in networks.values()), frozenset(found))


def plan(before: Held, now: Held) -> list[tuple[str, ...]]:
    """What to forget, as arguments of `flush-conntrack`: whole zones, else all from and to an address."""
    gone: list[tuple[str, ...]] = [(f"zone={zone}",) for zone in sorted(before.zones - now.zones)]
    for zone, address in sorted(before.addresses - now.addresses):
        if zone in now.zones:
            for side in ("src", "dst"):
                if ":" in address:
                    gone += [(f"zone={zone}", f"ct_ipv6_{side}={address},ct_nw_proto={number}") for number in _SAFE]
                else:
                    gone.append((f"zone={zone}", f"ct_nw_{side}={address}"))
    return gone


class Connections:
    def __init__(self) -> None:
        self._known = Held()

    def settle(self, wanted: Wanted, networks: Mapping[str, Network]) -> None:
        """To be called when flows are as wanted, so that nothing is tracked anew. Raises CommandFailed, and does it again next time."""
        now = held(wanted, networks)
        for words in plan(self._known, now):
            run(["ovs-appctl", "dpctl/flush-conntrack", *words], timeout=10)
        self._known = now
