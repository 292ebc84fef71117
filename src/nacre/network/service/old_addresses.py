"""Networks and floating IPs as compute shows them until 2.35: for the user, under the network's own rules."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from nacre.core import paging
from nacre.core.caller import Caller
from nacre.core.errors import Error, Forbidden, NotFound, OverQuota
from nacre.network.service import floating_ips, records
from nacre.network.service.kinds import FLOATING_IP, NETWORK
from nacre.network.service.records import Asked, Record
from nacre.network.tables.wires import networks, ports

Shown = dict[str, Any]
_PAGE = paging.Page(None, None, (("id", "asc"),))


def _as_user(caller: Caller, rule: str) -> Caller:
    return replace(caller, service="network", rule=rule, asked=set())


def list_networks(caller: Caller) -> list[Record]:
    """Those that the project may put servers on; all, for an administrator."""
    found, _ = records.listed(_as_user(caller, "get_network"), NETWORK, Asked({}, _PAGE))
    return [network for network in found if caller.is_admin or network["shared"] or network["project_id"] == caller.project_id]


def show_network(caller: Caller, network_id: str) -> Record:
    return records.show(_as_user(caller, "get_network"), NETWORK, network_id)


def pools(caller: Caller) -> list[Record]:
    """External networks."""
    return records.listed(_as_user(caller, "get_network"), NETWORK, Asked({"router:external": ["true"]}, _PAGE))[0]


def list_floating_ips(caller: Caller) -> list[Shown]:
    """The project's, also for an administrator."""
    user = _as_user(caller, "get_floatingip")
    return _shown(caller, records.listed(user, FLOATING_IP, Asked({"project_id": [caller.project_id or ""]}, _PAGE))[0])


def show_floating_ip(caller: Caller, floating_ip_id: str) -> Shown:
    return _shown(caller, [records.show(_as_user(caller, "get_floatingip"), FLOATING_IP, floating_ip_id)])[0]


def create_floating_ip(caller: Caller, pool: str | None) -> Shown:
    """`pool`: an external network by name or id, None when there is one only. Raises NotFound, Forbidden over the quota."""
    found = [network for network in pools(caller) if pool is None or pool in (network["id"], network["name"])]
    if len(found) != 1:
        raise NotFound("Floating IP pool not found.", kind="FloatingIpPoolNotFound")
    try:
        return _shown(caller, [floating_ips.create(_as_user(caller, "create_floatingip"), {"floating_network_id": found[0]["id"]})])[0]
    except OverQuota as error:
        raise Forbidden(error.message, kind="FloatingIpLimitExceeded") from error
    except Error as error:
        if error.name not in ("IpAddressGenerationFailure", "ExternalIpAddressExhausted"):
            raise
        raise NotFound(f"No more floating IPs in pool {found[0]['name']}.", kind="NoMoreFloatingIps") from error


def delete_floating_ip(caller: Caller, floating_ip_id: str) -> None:
    """Those of the project alone, also for an administrator. Raises NotFound."""
    show_floating_ip(caller, floating_ip_id)
    floating_ips.delete(_as_user(caller, "delete_floatingip"), floating_ip_id)


def _shown(caller: Caller, found: list[Record]) -> list[Shown]:
    with caller.read() as conn:
        holding = sa.select(ports.c.id, ports.c.device_id, ports.c.device_owner).where(ports.c.id.in_([each["port_id"] for each in found]))
        servers = {row.id: row.device_id for row in conn.execute(holding) if row.device_owner.startswith("compute:")}
        names = sa.select(networks.c.id, networks.c.name).where(networks.c.id.in_([each["network_id"] for each in found]))
        named = {row.id: row.name for row in conn.execute(names)}
    return [{"id": each["id"], "ip": each["address"], "fixed_ip": each["fixed_ip_address"], "instance_id": servers.get(each["port_id"]),
             "pool": named.get(each["network_id"]) or each["network_id"]} for each in found]  # fmt: skip
