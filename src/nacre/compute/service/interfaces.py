"""A server's ports and security groups, as compute shows them, and its addresses as actions until 2.43 change them; the rows are the network's."""

from collections.abc import Callable, Sequence
from typing import Any

from nacre import network
from nacre.compute.service import servers
from nacre.core import db, journal, nodes
from nacre.core.caller import Caller


def listed(caller: Caller, server_id: str) -> Sequence[network.Port]:
    with caller.read() as conn:
        row = servers.visible(conn, caller, server_id)
        return network.ports_of(conn, [row.id]).get(row.id, ())


def security_groups(caller: Caller, server_id: str) -> list[dict[str, Any]]:
    with caller.read() as conn:
        row = servers.visible(conn, caller, server_id)
        found = network.security_groups_of(conn, [row.id]).get(row.id, [])
    return [{"description": "", "rules": [], "tenant_id": row.project_id, **group} for group in found]


def _change(caller: Caller, server_id: str, action: str, change: Callable[[db.Tx, str], None]) -> None:
    with caller.write() as tx:
        row = servers.visible(tx, caller, server_id, lock=True)
        servers.check_lock(caller, row)
        change(tx, row.id)
        nodes.bump(tx, "server", row.id)
        journal.changed(tx, "server", row.id, action, ("addresses",))


def add_fixed_ip(caller: Caller, server_id: str, network_id: str) -> None:
    _change(caller, server_id, "addFixedIp", lambda tx, found: network.add_fixed_ip(tx, caller, found, network_id))


def remove_fixed_ip(caller: Caller, server_id: str, address: str) -> None:
    _change(caller, server_id, "removeFixedIp", lambda tx, found: network.remove_fixed_ip(tx, caller, found, address))


def add_floating_ip(caller: Caller, server_id: str, address: str, fixed: str | None) -> None:
    _change(caller, server_id, "addFloatingIp", lambda tx, found: network.add_floating_ip(tx, caller, found, address, fixed))


def remove_floating_ip(caller: Caller, server_id: str, address: str) -> None:
    _change(caller, server_id, "removeFloatingIp", lambda tx, found: network.remove_floating_ip(tx, caller, found, address))
