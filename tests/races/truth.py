"""What must be true of a cloud at rest, whatever was done to it: rows against rows, and rows against the host."""

import ipaddress
from collections import Counter
from typing import Any

import sqlalchemy as sa

from nacre.compute import states, tables
from nacre.compute.scheduling import resources
from nacre.core import nodes, tasks
from nacre.image import tables as images
from nacre.network.service import quotas
from nacre.network.tables.routing import floating_ips, interfaces, router_hosts, routers
from nacre.network.tables.security import members, rules
from nacre.network.tables.wires import addresses, bindings, dhcp_servers, networks, ports, subnets
from nacre.placement.tables import allocations
from races.stage import HOST, Stage

POWERS = {states.ACTIVE: "running", states.PAUSED: "paused", states.STOPPED: "shutdown", states.SUSPENDED: "suspended", states.RESCUED: "running"}


def rows(conn: sa.Connection, table: sa.Table, *where: Any) -> list[Any]:
    return list(conn.execute(sa.select(table).where(*where)))


_BESIDE = ("compute.attach_interface", "compute.detach_interface")


def check_always(stage: Stage) -> None:
    """At rest or not: a server is at work just while a task is open that has yet to say what it is then. What was begun between a reset and the
    end of a delete that it did not stop finds no server."""
    with stage.cloud.db.read() as conn:
        t, s = tasks.tasks.c, tasks.steps.c
        said = sa.exists().where(s.task_id == t.id, s.name == "finish", s.state == "done")
        at_work = {row.resource for row in rows(conn, tasks.tasks, t.finished_at.is_(None), ~t.cancelling, t.kind.not_in(_BESIDE), ~said)}
        at_work -= {f"server:{row.id}" for row in rows(conn, tables.servers, tables.servers.c.deleted_at.is_not(None))}
        busy = {f"server:{row.id}" for row in rows(conn, tables.servers, tables.servers.c.task_state.is_not(None))}
    assert at_work == busy, f"at work are {at_work}, busy are {busy}"


def check(stage: Stage) -> None:
    with stage.cloud.db.read() as conn:
        alive = {row.id: row for row in rows(conn, tables.servers, tables.servers.c.deleted_at.is_(None))}
        _at_rest(conn, alive)
        _allocated(conn, alive)
        _guests(conn, stage, alive)
        _ports(conn, alive)
        _floating(conn)
        _documents(conn, alive)
        for resource in ("network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule"):
            shown = stage.ask("GET", f"/network/v2.0/quotas/{stage.project}/details").json()["quota"][resource]["used"]
            assert shown == quotas.used(conn, stage.project, resource)
    used = stage.ask("GET", f"/compute/v2.1/os-quota-sets/{stage.project}/detail").json()["quota_set"]
    assert used["instances"]["in_use"] == len(alive) <= used["instances"]["limit"]
    assert used["cores"]["in_use"] == sum(row.vcpus for row in alive.values()) <= used["cores"]["limit"]


def _at_rest(conn: sa.Connection, alive: dict[str, Any]) -> None:
    assert rows(conn, tasks.tasks, tasks.tasks.c.finished_at.is_(None)) == []
    assert rows(conn, nodes.calls, nodes.calls.c.state == "open") == []
    assert rows(conn, images.images, images.images.c.status.in_(("queued", "saving"))) == [], "a snapshot that nobody makes"
    for row in rows(conn, tables.servers):
        assert row.task_state is None and row.task_id is None, f"{row.id} is {row.vm_state}/{row.task_state} and nobody works at it"
        assert (row.vm_state == states.DELETED) == (row.deleted_at is not None)
        assert row.vm_state != states.BUILDING


def _allocated(conn: sa.Connection, alive: dict[str, Any]) -> None:
    wanted: dict[str, dict[str, int]] = {}
    for row in alive.values():
        if row.host is not None:
            new = resources(row)
            old = resources(_Flavor(row.resized_from["flavor"])) if row.resized_from else new
            wanted[row.id] = {name: max(new[name], old[name]) for name in new}
    held: dict[str, dict[str, int]] = {}
    for row in rows(conn, allocations):
        held.setdefault(row.consumer_id, {})[row.resource_class] = row.used
    assert held == wanted


class _Flavor:
    def __init__(self, flavor: Any) -> None:
        self.flavor = flavor


def _guests(conn: sa.Connection, stage: Stage, alive: dict[str, Any]) -> None:
    there = stage.node.hypervisor.servers()
    assert set(there) == {row.id for row in alive.values() if row.host is not None}
    for row in alive.values():
        if row.host is not None and row.vm_state in POWERS:
            assert there[row.id].power == POWERS[row.vm_state], f"{row.id} is {row.vm_state}, its guest is {there[row.id].power}"
        assert row.host is not None or row.vm_state == states.ERROR, f"{row.id} is {row.vm_state} nowhere"
        if row.host is not None and row.vm_state in POWERS and row.resized_from is None:
            macs = {port.mac_address for port in rows(conn, ports, ports.c.device_id == row.id)}
            assert set(stage.node.hypervisor._guests[row.id].ports) == macs, row.id


def _ports(conn: sa.Connection, alive: dict[str, Any]) -> None:
    under = {row.id: row for row in rows(conn, subnets)}
    found = {row.id: row for row in rows(conn, ports)}
    given = Counter((under[row.subnet_id].network_id, row.address) for row in rows(conn, addresses))
    assert not given or max(given.values()) == 1
    for row in rows(conn, addresses):
        pools = [(ipaddress.ip_address(pool["start"]), ipaddress.ip_address(pool["end"])) for pool in under[row.subnet_id].allocation_pools]
        pooled = any(first <= ipaddress.ip_address(row.address) <= last for first, last in pools)
        assert pooled or (found[row.port_id].device_owner == "network:router_interface" and row.address == under[row.subnet_id].gateway_ip)
    for port in found.values():
        assert not port.attached or port.device_id in alive, f"port {port.id} belongs to a server that is gone"
    legs = Counter(row.port_id for row in rows(conn, interfaces))
    ways = Counter(row.gateway_port_id for row in rows(conn, routers) if row.gateway_port_id)
    assert set(legs) == {port.id for port in found.values() if port.device_owner == "network:router_interface" and port.id in legs}
    assert set(ways) == {port.id for port in found.values() if port.device_owner == "network:router_gateway"}
    served = {row.network_id for row in under.values() if row.enable_dhcp}
    assert {row.network_id for row in rows(conn, dhcp_servers)} == served
    assert Counter(port.network_id for port in found.values() if port.device_owner == "network:dhcp") == Counter(served)


def _floating(conn: sa.Connection) -> None:
    found = {row.id: row for row in rows(conn, ports)}
    own = {row.own_port_id for row in rows(conn, floating_ips)}
    assert own == {port.id for port in found.values() if port.device_owner == "network:floatingip"}
    for row in rows(conn, floating_ips):
        assert (row.port_id is None) == (row.router_id is None) == (row.fixed_ip_address is None)
        if row.port_id is not None:
            fixed = rows(conn, addresses, addresses.c.port_id == row.port_id, addresses.c.address == row.fixed_ip_address)
            assert fixed, f"floating IP {row.address} leads to {row.fixed_ip_address}, which port {row.port_id} has not"
            assert rows(conn, interfaces, interfaces.c.router_id == row.router_id, interfaces.c.subnet_id == fixed[0].subnet_id)
            assert rows(conn, routers, routers.c.id == row.router_id, routers.c.gateway_network_id == row.network_id)


def _documents(conn: sa.Connection, alive: dict[str, Any]) -> None:
    """The one host holds just what is on it."""
    bound = [row.port_id for row in rows(conn, bindings)]
    placed = [row.router_id for row in rows(conn, router_hosts, router_hosts.c.host == HOST)]
    dhcp = {row.network_id for row in rows(conn, dhcp_servers, dhcp_servers.c.host == HOST)}
    inside = {row.group_id for row in rows(conn, members, members.c.port_id.in_(bound))}
    over = {row.network_id for row in rows(conn, ports, ports.c.id.in_(bound))} | dhcp
    legs = [row.port_id for row in rows(conn, interfaces, interfaces.c.router_id.in_(placed))]
    over |= {row.network_id for row in rows(conn, ports, ports.c.id.in_(legs))}
    over |= {row.gateway_network_id for row in rows(conn, routers, routers.c.id.in_(placed), routers.c.gateway_network_id.is_not(None))}
    named = {row.remote_group_id for row in rows(conn, rules, rules.c.security_group_id.in_(inside), rules.c.remote_group_id.is_not(None))}
    tunnels = {row.id for row in rows(conn, networks, networks.c.id.in_(over), networks.c.network_type == "vxlan")}
    wanted = {"server": {row.id for row in alive.values() if row.host}, "port": set(bound), "router": set(placed), "dhcp": dhcp,
              "security_group": inside, "network": over, "address_set": named, "forwarding": tunnels}  # fmt: skip
    held = nodes.held_by(conn, HOST)
    assert {kind: set(held.get(kind, ())) for kind in wanted} == wanted
    assert {row.id for row in rows(conn, routers)} >= set(placed)
