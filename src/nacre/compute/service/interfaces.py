"""A server's ports and security groups, as compute shows them; the rows are the network's."""

from collections.abc import Sequence
from typing import Any

from nacre import network
from nacre.compute.service import servers
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
