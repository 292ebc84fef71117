"""The outside of a sandbox: the gateway addresses of external subnets on `ext-out`, beyond the physical network.

They come and go as `outside` documents name them; only one host has the device, nothing is to be done on the others. Looked at when what
is wanted changes, and once a minute. Where the host is a real machine its own networks come first: an address whose network the machine
has on another device is refused, not taken.
"""

import ipaddress
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from nacre.node.commands import run
from nacre.node.wires import netns
from nacre.node.wires.driver import Wanted

EXTERNAL, OUTSIDE = "eth-ext", "ext-out"
_LOOK_AGAIN = 60.0
_SHIELD = f"""table inet outside
delete table inet outside
table inet outside {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "{OUTSIDE}" fib daddr . iif type {{ local, broadcast, multicast }} accept
        iifname "{OUTSIDE}" drop
    }}
}}
"""


def plan(wanted: Iterable[str], links: Iterable[Mapping[str, Any]]) -> list[str]:
    """As `ip -batch`. Raises ValueError for what is no address with a prefix length."""
    addresses = {str(ipaddress.ip_interface(address)) for address in wanted}
    there = {f"{info['local']}/{info['prefixlen']}" for link in links for info in link.get("addr_info", ()) if info.get("scope") != "link"}
    gone = [f"address del {address} dev {OUTSIDE}" for address in sorted(there - addresses)]
    return gone + [f"address add {address} dev {OUTSIDE}" + (" nodad" if ":" in address else "") for address in sorted(addresses - there)]


def clashes(wanted: Iterable[str], links: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Those of the addresses whose network is one of the host's on another device -> that device."""
    others = [(ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}").network, link["ifname"]) for link in links
              if link["ifname"] != OUTSIDE for info in link.get("addr_info", ()) if info.get("scope") == "global"]  # fmt: skip
    found = {}
    for address in wanted:
        network = ipaddress.ip_interface(address).network
        for other, device in others:
            if network.version == other.version and network.overlaps(other):
                found[address] = device
    return found


class Outside:
    def __init__(self) -> None:
        self._done: tuple[frozenset[str], float] | None = None
        self._taken: dict[str, str] = {}

    def apply(self, wanted: Wanted) -> dict[str, Exception]:
        """Physical network -> why its addresses are not there. Raises CommandFailed."""
        documents = wanted.get("outside", {})
        if OUTSIDE not in netns.devices():
            self._done = None
            return {}
        failed: dict[str, Exception] = {}
        addresses: dict[str, str] = {}
        for id_, document in documents.items():
            try:
                addresses |= {str(ipaddress.ip_interface(address)): id_ for address in document.body["addresses"]}
            except (KeyError, ValueError, TypeError) as error:
                failed[id_] = error
        if not self._done or self._done[0] != addresses.keys() or time.monotonic() - self._done[1] > _LOOK_AGAIN:
            self._done = None
            run(["nft", "-f", "-"], stdin=_SHIELD)
            links = json.loads(run(["ip", "-j", "address", "show"]))
            self._taken = clashes(addresses, links)
            netns.batch(None, plan(addresses.keys() - self._taken, [link for link in links if link["ifname"] == OUTSIDE]))
            self._done = (frozenset(addresses), time.monotonic())
        for address, device in self._taken.items():
            failed[addresses[address]] = ValueError(f"{address} is of a network that this host has on {device}")
        return failed
