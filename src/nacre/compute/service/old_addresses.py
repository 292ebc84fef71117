"""Networks and floating IPs in compute's words (until 2.35): compute's rule first, then the network's own."""

from typing import Any

from nacre import network
from nacre.core.caller import Caller

Shown = dict[str, Any]


def networks(caller: Caller) -> list[Shown]:
    caller.require()
    return network.old_addresses.list_networks(caller)


def show_network(caller: Caller, network_id: str) -> Shown:
    caller.require()
    return network.old_addresses.show_network(caller, network_id)


def pools(caller: Caller) -> list[Shown]:
    caller.require()
    return network.old_addresses.pools(caller)


def floating_ips(caller: Caller) -> list[Shown]:
    caller.require()
    return network.old_addresses.list_floating_ips(caller)


def show_floating_ip(caller: Caller, floating_ip_id: str) -> Shown:
    caller.require()
    return network.old_addresses.show_floating_ip(caller, floating_ip_id)


def create_floating_ip(caller: Caller, pool: str | None) -> Shown:
    caller.require()
    return network.old_addresses.create_floating_ip(caller, pool)


def delete_floating_ip(caller: Caller, floating_ip_id: str) -> None:
    caller.require()
    network.old_addresses.delete_floating_ip(caller, floating_ip_id)
