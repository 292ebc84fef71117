"""Which addresses a port has. A row per address; its primary key is what keeps it from being given twice.

An address is chosen at random among the free ones of the subnet's pools (`plan.addresses`), so two that choose at once rarely meet;
when they do the loser's transaction fails on the key and its verb runs again.
"""

import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.network.faults import fault, invalid, refused
from nacre.network.plan import addresses as plan
from nacre.network.plan.subnets import automatic
from nacre.network.tables.wires import ROUTER_PORTS, addresses, ports, subnets

DICE = random.SystemRandom()
Fixed = Mapping[str, Any]


@dataclass(frozen=True)
class Holder:
    """The port that addresses are for."""

    id: str
    network_id: str
    mac_address: str
    device_owner: str

    @property
    def is_router(self) -> bool:
        return self.device_owner in ROUTER_PORTS


def assign(tx: db.Tx, port: Holder, fixed: Sequence[Fixed] | None, kept: Sequence[Fixed] = ()) -> None:
    """Gives the port the addresses asked for (`{"subnet_id", "ip_address"}`, either may be missing); None: one of each IP version.
    `kept` are those it has and keeps. Raises upstream's refusals."""
    under = tx.all(sa.select(subnets).where(subnets.c.network_id == port.network_id).order_by(subnets.c.created_at, subnets.c.id))
    under = [row for row in under if not row.service_types or any(port.device_owner.startswith(kind) for kind in row.service_types)]
    chosen = [(str(one["subnet_id"]), str(one["ip_address"])) for one in kept]

    def take(subnet_id: str, address: str) -> None:
        """At once, so that what is chosen next is another."""
        tx.insert(addresses, subnet_id=subnet_id, number=plan.number(address), address=address, port_id=port.id, position=len(chosen))
        chosen.append((subnet_id, address))

    for subnet_id, address in _automatically(tx, port, under) if fixed is None else ():
        take(subnet_id, address)
    for one in fixed or ():
        take(*_as_asked(tx, port, under, one))
    has = {subnet_id for subnet_id, _ in chosen}
    for row in under if fixed is None or fixed else ():
        if automatic(row.ipv6_address_mode) and row.id not in has and not port.is_router:
            take(row.id, plan.slaac(row.cidr, port.mac_address))


def release(tx: db.Tx, port_id: str) -> None:
    tx.delete(addresses, port_id=port_id)


def _automatically(tx: db.Tx, port: Holder, under: Sequence[db.Row]) -> list[tuple[str, str]]:
    found = []
    for version in (4, 6):
        usable = [row for row in under if row.ip_version == version and not automatic(row.ipv6_address_mode)]
        for row in usable:
            address = free(tx, row)
            if address is not None:
                found.append((row.id, address))
                break
        else:
            if usable:
                raise fault("IpAddressGenerationFailure", net_id=port.network_id)
    return found


def _as_asked(tx: db.Tx, port: Holder, under: Sequence[db.Row], one: Fixed) -> tuple[str, str]:
    subnet_id, address = one.get("subnet_id"), one.get("ip_address")
    if not subnet_id and not address:
        raise refused("IP allocation requires subnet_id or ip_address")
    row = _subnet_for(port, under, subnet_id, address)
    if address is None:
        if automatic(row.ipv6_address_mode) and not port.is_router:
            return row.id, plan.slaac(row.cidr, port.mac_address)
        chosen = free(tx, row)
        if chosen is None:
            raise fault("IpAddressGenerationFailure", net_id=port.network_id)
        return row.id, chosen
    address = str(ipaddress.ip_address(address))
    own = automatic(row.ipv6_address_mode) and not port.is_router
    if own and address != plan.slaac(row.cidr, port.mac_address):
        raise refused(f"IPv6 address {address} can not be directly assigned to a port on subnet {row.id} since the subnet is configured "
                      "for automatic addresses")  # fmt: skip
    taken = tx.first(sa.select(addresses.c.port_id).where(addresses.c.subnet_id == row.id, addresses.c.number == plan.number(address)))
    if taken is not None:
        raise fault("IpAddressAlreadyAllocated", ip=address, subnet_id=row.id)
    return row.id, address


def _subnet_for(port: Holder, under: Sequence[db.Row], subnet_id: str | None, address: str | None) -> db.Row:
    at = None
    if address is not None:
        try:
            at = ipaddress.ip_address(address)
        except ValueError:
            raise invalid("fixed_ips", f"'{address}' is not a valid IP address") from None
    for row in under:
        if subnet_id not in (None, row.id):
            continue
        if at is None:
            return row
        first, last = plan.usable(ipaddress.ip_network(row.cidr))
        if at.version == row.ip_version and first <= int(at) <= last:
            return row
        if subnet_id is not None:
            raise fault("InvalidIpForSubnet", ip_address=address)
    if subnet_id is None:
        raise fault("InvalidIpForNetwork", ip_address=address)
    raise refused(f"Failed to create port on network {port.network_id}, because fixed_ips included invalid subnet {subnet_id}")


def free(tx: db.Tx, subnet: db.Row) -> str | None:
    """A free address of the subnet's pools, None when there is none."""
    mine, number = addresses.c.subnet_id == subnet.id, addresses.c.number

    def taken(values: Sequence[int]) -> list[int]:
        asked = [f"{value:032x}" for value in values]
        return [int(found, 16) for found in tx.conn.execute(sa.select(number).where(mine, number.in_(asked))).scalars()]

    def following(first: int, last: int, limit: int) -> list[int]:
        window = sa.select(number).where(mine, number >= f"{first:032x}", number <= f"{last:032x}").order_by(number).limit(limit)
        return [int(found, 16) for found in tx.conn.execute(window).scalars()]

    value = plan.choose(plan.pools(subnet.allocation_pools), DICE, taken, following)
    return None if value is None else plan.text(value, subnet.ip_version)


def mac(tx: db.Tx, network_id: str, wanted: str | None) -> str:
    """A MAC address that nothing on the network has. Raises MacAddressInUse."""
    for _ in range(16):
        address = wanted or plan.new_mac(DICE)
        if tx.first(sa.select(ports.c.id).where(ports.c.network_id == network_id, ports.c.mac_address == address)) is None:
            return address
        if wanted:
            raise fault("MacAddressInUse", net_id=network_id, mac=wanted)
    raise fault("NetworkMacAddressGenerationFailure", net_id=network_id)
