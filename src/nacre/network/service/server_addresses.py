"""Addresses of servers, as compute's actions of before 2.44 change them: for the user, under the network's own rules.

They are one transaction with compute's: what an update of the port or of the floating IP would do, and the same documents bumped.
"""

from dataclasses import replace

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Error, Forbidden, NotFound
from nacre.network.service import floating_ips, making, records, wiring
from nacre.network.service.kinds import FLOATING_IP, PORT
from nacre.network.service.records import Record
from nacre.network.service.servers import held_of_server, of_server
from nacre.network.tables.routing import floating_ips as table
from nacre.network.tables.wires import subnets


def add_fixed_ip(tx: db.Tx, caller: Caller, server_id: str, network_id: str) -> None:
    """One more address on the server's port in the network. Raises NotFound, BadRequest when no address is free."""
    port = next((port for port in held_of_server(tx, server_id) if port["network_id"] == network_id), None)
    if port is None:
        raise NotFound(f"Network {network_id} is not associated with the instance {server_id}", kind="NetworkNotFoundForInstance")
    under = tx.all(sa.select(subnets.c.id).where(subnets.c.network_id == network_id).order_by(subnets.c.created_at, subnets.c.id))
    _permit(caller, port, [{"subnet_id": row.id} for row in under])
    for row in under:
        try:
            with tx.nested():
                return _set(tx, port, [*port["fixed_ips"], {"subnet_id": row.id}])
        except Error as error:
            if error.name != "IpAddressGenerationFailure":
                raise
    raise BadRequest(f"No fixed IP addresses available for network: {network_id}", kind="NoMoreFixedIps")


def remove_fixed_ip(tx: db.Tx, caller: Caller, server_id: str, address: str) -> None:
    """Raises BadRequest when it is not the server's."""
    for port in held_of_server(tx, server_id):
        kept = [fixed for fixed in port["fixed_ips"] if fixed["ip_address"] != address]
        if len(kept) < len(port["fixed_ips"]):
            _permit(caller, port, [])
            return _set(tx, port, kept)
    raise BadRequest(f"Fixed IP {address} not found for instance {server_id}", kind="FixedIpNotFoundForInstance")


def add_floating_ip(tx: db.Tx, caller: Caller, server_id: str, address: str, fixed: str | None) -> None:
    """Leads the floating IP to the server's address `fixed`, or to its first IPv4 one. Raises NotFound, BadRequest, Forbidden."""
    floating, ports = _floating(tx, caller, address), of_server(tx, server_id)
    mine = [(port, one["ip_address"]) for port in ports for one in port["fixed_ips"]]
    if not mine:
        raise BadRequest("No fixed IPs associated to instance")
    found = next((pair for pair in mine if (pair[1] == fixed if fixed is not None else ":" not in pair[1])), None)
    if found is None:
        raise BadRequest("Specified fixed address not assigned to instance" if fixed is not None else f"Unable to associate floating IP {address} "
                         f"to any fixed IPs for instance {server_id}. Instance has no fixed IPv4 addresses to associate.")  # fmt: skip
    try:
        floating_ips.lead(tx, _as_user(caller, "update_floatingip"), floating["id"], {"port_id": found[0]["id"], "fixed_ip_address": found[1]})
    except Forbidden:
        raise
    except Error as error:
        raise BadRequest(error.message, kind="FloatingIpAssociateFailed") from error


def remove_floating_ip(tx: db.Tx, caller: Caller, server_id: str, address: str) -> None:
    """Raises NotFound, Conflict when it does not lead to the server."""
    floating = _floating(tx, caller, address)
    if floating["port_id"] not in {port["id"] for port in of_server(tx, server_id)}:
        raise Conflict(f"Floating IP {address} is not associated with instance {server_id}.")
    floating_ips.lead(tx, _as_user(caller, "update_floatingip"), floating["id"], {"port_id": None})


def _as_user(caller: Caller, rule: str) -> Caller:
    return replace(caller, service="network", rule=rule, asked=set())


def _permit(caller: Caller, port: Record, wanted: list[dict[str, str]]) -> None:
    records.permit(_as_user(caller, "update_port"), "update_port", PORT.target(port), {"fixed_ips": wanted})


def _set(tx: db.Tx, port: Record, fixed: list[dict[str, str]]) -> None:
    making.set_addresses(tx, port, fixed)
    records.touch(tx, PORT, port["id"])
    wiring.port_changed(tx, making.found(tx, port["id"]), {"fixed_ips"})


def _floating(tx: db.Tx, caller: Caller, address: str) -> Record:
    query = sa.select(table.c.id).where(table.c.address == address)
    found = tx.scalar(query if caller.is_admin else query.where(table.c.project_id == caller.project_id))
    if found is None:
        raise NotFound("floating IP not found")
    return records.by_ids(tx, FLOATING_IP, [found])[0]
