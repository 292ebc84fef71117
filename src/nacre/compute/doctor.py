"""What `nacre doctor` compares for compute: servers with domains, folders, bases, allocations and ports (theory: core/doctor.py).

A server that is at work (a task is open, or its task_state says so) is passed over, unless nothing works at it any more. What a domain's
name says is ours; what the database does not know may be newer than the database, so its guest and disk stay whatever they are: a guest
is told until somebody decides, a folder is set aside. What the database knows as deleted is taken away once it is off.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from nacre import image, network, placement
from nacre.compute import repair, scheduling, states, tables, tasks
from nacre.core import clock, db, journal, nodes
from nacre.core import tasks as durable
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.doctor import Difference, Repair, Survey, call

_STUCK_AFTER = timedelta(seconds=5)
OURS = "instance-"


@dataclass
class _World:
    """Everything that the checks read, once."""

    surveys: Mapping[str, Survey]
    rows: dict[str, db.Row]
    deleted: set[str]
    busy: set[str]
    hosts: dict[str, str]
    domains: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def resting(self) -> Iterator[db.Row]:
        """Servers on a host that told, with nothing being done."""
        for row in self.rows.values():
            if row.host in self.surveys and row.task_state is None and row.id not in self.busy:
                yield row


def check(cloud: Cloud, conn: sa.Connection, surveys: Mapping[str, Survey]) -> Iterable[Difference]:
    world = _world(conn, surveys)
    for part in (_stuck, _servers, _domains, _folders, _allocations):
        yield from part(conn, world)
    yield from _ports(conn, world)
    yield from _files(cloud, conn, world)


def _world(conn: sa.Connection, surveys: Mapping[str, Survey]) -> _World:
    rows = {row.id: row for row in conn.execute(sa.select(tables.servers).where(tables.servers.c.deleted_at.is_(None)))}
    open_ = sa.select(durable.tasks.c.resource).where(durable.tasks.c.state.in_(durable.OPEN))
    busy = {resource.partition(":")[2] for resource in conn.execute(open_).scalars()}
    named = {item["id"] for seen in surveys.values() for part in ("domains", "folders") for item in seen[part]} - rows.keys()
    gone = sa.select(tables.servers.c.id).where(tables.servers.c.id.in_(list(named)))
    waiting = sa.select(nodes.calls.c.args).where(nodes.calls.c.state == "open", nodes.calls.c.verb == "absent_server")
    busy |= {str(args.get("server_id")) for args in conn.execute(waiting).scalars()}
    hosts = {row.name: row.id for row in nodes.all_hosts(conn)}
    domains = {host: {one["id"]: one for one in seen["domains"]} for host, seen in surveys.items()}
    return _World(surveys, rows, set(conn.execute(gone).scalars()), busy, hosts, domains)


# servers that nothing works at


def _stuck(conn: sa.Connection, world: _World) -> Iterator[Difference]:
    for row in world.rows.values():
        if row.task_state is not None and row.id not in world.busy and clock.utcnow() - row.moved_at > _STUCK_AFTER:
            yield Difference("server-stuck", row.id, f"it is {row.task_state} and no task does that", row.host,
                             "delete it" if row.task_state == "deleting" else "end that with a fault", _unstick(row.id))  # fmt: skip


def _unstick(server_id: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, server_id)
            if row is None or row.task_state is None or durable.is_open(tx, f"server:{server_id}"):
                return
            if row.task_state == "deleting":
                durable.start(tx, "compute.delete_server", f"server:{server_id}", {"server_id": server_id})
                return
            after = row.vm_state if row.vm_state != states.BUILDING else states.ERROR
            tasks.fault(tx, row, after, durable.StepFailed(f"The task that was {row.task_state} is gone."))

    return cure


# servers and their domains


def _servers(conn: sa.Connection, world: _World) -> Iterator[Difference]:
    for row in world.resting():
        domain = world.domains[row.host].get(row.id)
        disk = next((one["disk"] for one in world.surveys[row.host]["folders"] if one["id"] == row.id), False)
        if domain is None and row.vm_state != states.ERROR:
            cause = f"the database says {states.status(row.vm_state, None)}, libvirt has no {OURS}{row.number:08x}"
            if disk:
                yield Difference("domain-missing", row.id, f"{cause}; its disk is there", row.host, "define it again, off", _define(row.id))
            else:
                yield Difference("domain-missing", row.id, f"{cause}; its disk is gone, too", row.host, "show it as ERROR", _lost(row.id))
        elif domain is not None and row.vm_state in states.HELD and states.reconciled(row.vm_state, domain["power"]) != row.vm_state:
            yield Difference("power", row.id, f"the database says {row.vm_state}, libvirt {domain['power']}", row.host,
                             "show what libvirt says", _see(row.id, row.host, domain["power"]))  # fmt: skip
        if row.id not in world.surveys[row.host]["index"].get("server", {}) and row.host not in nodes.holders_of(conn, "server", row.id):
            yield Difference("document", f"server {row.id}", "its host is not told of it", row.host, "tell it", _hold(row.id))


def _define(server_id: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            if not durable.is_open(tx, f"server:{server_id}"):
                durable.start(tx, repair.TASK, f"server:{server_id}", {"server_id": server_id})

    return cure


def _lost(server_id: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, server_id)
            if row is not None and row.task_state is None and not durable.is_open(tx, f"server:{server_id}"):
                tasks.fault(tx, row, states.ERROR, durable.StepFailed("The guest and its disk are gone from the host; rebuild the server."))

    return cure


def _see(server_id: str, host: str, power: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, server_id)
            if row is None or row.host != host or row.task_state is not None or durable.is_open(tx, f"server:{server_id}"):
                return
            tables.see(tx, server_id, host, power)
            vm_state = states.reconciled(row.vm_state, power)
            if vm_state != row.vm_state:
                tables.move(tx, row, vm_state, None)
                journal.changed(tx, "server", server_id, "power_seen", ("vm_state",), {"vm_state": vm_state, "power": power})

    return cure


def _hold(server_id: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, server_id)
            if row is not None and row.host is not None:
                nodes.hold(tx, row.host, "server", server_id)

    return cure


def _domains(conn: sa.Connection, world: _World) -> Iterator[Difference]:
    for host, found in world.domains.items():
        for domain in found.values():
            id_, name, power = domain["id"], domain["name"], domain["power"]
            row = world.rows.get(id_)
            if not name.startswith(OURS):
                yield Difference("domain", name, f"it is {power}, and no guest of this cloud by its name", host, left=True)
            elif row is not None and row.host != host and row.id not in world.busy:
                yield Difference("domain-elsewhere", id_, f"{name} is {power} here, and the database has it on host {row.host}", host)
            elif row is None and id_ in world.deleted and id_ not in world.busy:
                off = power in ("shutdown", "crashed")
                yield Difference("domain-deleted", id_, f"{name} is {power}, and the server was deleted", host,
                                 "take it away" if off else "", call(host, "absent_server", {"server_id": id_}) if off else None)  # fmt: skip
            elif row is None and id_ not in world.deleted:
                yield Difference("domain-unknown", id_, f"{name} is {power}, and the database knows no such server", host)


def _folders(conn: sa.Connection, world: _World) -> Iterator[Difference]:
    for host, seen in world.surveys.items():
        for folder in seen["folders"]:
            id_ = folder["id"]
            row = world.rows.get(id_)
            if id_ in world.domains[host] or id_ in world.busy or (row is not None and (row.host == host or row.task_state is not None)):
                continue
            if id_ in world.deleted:
                gone = call(host, "absent_server", {"server_id": id_})
                yield Difference("folder-deleted", id_, "the server was deleted", host, "take it away", gone)
            elif row is not None:
                yield Difference("folder-elsewhere", id_, f"the database has the server on host {row.host}", host, "set it aside", _aside(host, id_))
            else:
                yield Difference("folder-unknown", id_, "the database knows no such server", host, "set it aside", _aside(host, id_))


def _aside(host: str, name: str) -> Repair:
    return call(host, "set_aside", {"host": host, "names": [name]})


# rows of other services


def _allocations(conn: sa.Connection, world: _World) -> Iterator[Difference]:
    names = {provider: host for host, provider in world.hosts.items()}
    held = placement.consumers(conn, names)
    for consumer, providers in sorted(held.items()):
        row = world.rows.get(consumer)
        for provider in sorted(providers):
            if consumer in world.busy or (row is not None and (row.host == names[provider] or row.task_state is not None)):
                continue
            cause = "no server has this id" if row is None else f"the server is on host {row.host}"
            yield Difference("allocation-stray", consumer, cause, names[provider], "release it", _release(consumer, provider))
    for row in world.rows.values():
        there = world.hosts.get(row.host or "")
        if there and row.task_state is None and row.id not in world.busy and there not in held.get(row.id, ()):
            yield Difference("allocation-missing", row.id, "the server takes room that nobody counts", row.host, "claim it", _claim(row.id))


def _release(consumer: str, provider: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, consumer)
            if row is None or row.task_state is None:
                placement.release(tx, consumer, provider)

    return cure


def _claim(server_id: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, server_id)
            if row is None or row.host is None or row.task_state is not None:
                return
            wanted = scheduling.resources(row)
            host = scheduling.host_named(tx, row.host, wanted)
            owner = {"project_id": row.project_id, "user_id": row.user_id}
            if host is None or not placement.claim(tx, row.id, host.provider_id, host.generation, wanted, **owner):
                raise durable.StepFailed(f"host {row.host} has no room that is not taken: " + "; ".join(host.missing if host else ()))

    return cure


def _ports(conn: sa.Connection, world: _World) -> Iterator[Difference]:
    known = set[str]()
    for port_id, server_id, host in network.attached(conn):
        known.add(port_id)
        row = world.rows.get(server_id)
        if row is None and server_id not in world.busy:
            yield Difference("port-without-server", port_id, f"it is attached to server {server_id}, which is no more", host,
                             "delete or detach it", _let_go(server_id))  # fmt: skip
        elif row is not None and row.task_state is None and row.id not in world.busy and row.host is not None and host != row.host:
            yield Difference("port-elsewhere", port_id, f"it is bound to {host or 'no host'}, its server is on {row.host}", row.host,
                             "bind it there", _bind(server_id))  # fmt: skip
    for host, seen in world.surveys.items():
        yield from _wires(host, seen, known)


def _let_go(server_id: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            if tables.locked(tx, server_id) is None:
                network.release_ports(tx, server_id)

    return cure


def _bind(server_id: str) -> Repair:
    def cure(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            row = tables.locked(tx, server_id)
            if row is not None and row.host is not None and row.task_state is None:
                network.bind_ports(tx, server_id, row.host)

    return cure


def _wires(host: str, seen: Survey, ports: set[str]) -> Iterator[Difference]:
    """What the host's own comparison found, and taps of guests' ports that there are not."""
    used = {tap for domain in seen["domains"] for tap in domain["taps"]}
    again = call(host, "repair_wires", {"host": host, "names": []})
    for one in seen["wires"]["found"]:
        yield Difference(one["kind"], one["name"], one["cause"], host, "wire it again", again)
    for tap in seen["wires"]["taps"]:
        if tap["name"] in used or tap["port_id"] in ports:
            continue
        if len(tap["name"]) == 14:
            gone = call(host, "repair_wires", {"host": host, "names": [tap["name"]]})
            yield Difference("tap-stray", tap["name"], "no guest has it and no port is named so", host, "take it away", gone)
        else:
            yield Difference("tap", tap["name"], "its name is none of ours", host, left=True)
    for other in seen["wires"]["others"]:
        yield Difference(other["kind"], other["name"], "it is none of ours", host, left=True)


def _files(cloud: Cloud, conn: sa.Connection, world: _World) -> Iterator[Difference]:
    images = image.known(conn) | {str(row.image_id) for row in world.rows.values()}
    images |= {str(row.rescued_with["image"]["image_id"]) for row in world.rows.values() if row.rescued_with}
    wanted = {hashlib.sha1(id_.encode(), usedforsecurity=False).hexdigest() for id_ in images}
    for host, seen in world.surveys.items():
        named = {path.rpartition("/")[2] for domain in seen["domains"] for path in domain["files"]}
        for base in seen["bases"]:
            if base["name"] not in wanted | named and not base["users"]:
                names = {"host": host, "names": [base["name"]]}
                yield Difference("base-stray", base["name"], "no image and no disk needs it", host, "remove it", call(host, "absent_base", names))
        for path in seen["others"]:
            yield Difference("file", path, "it is none of ours", host, left=True)
    lost, strange = image.compared(cloud, conn)
    for id_ in lost:
        yield Difference("image-data-missing", id_, "the image is active and its data is not there")
    for name in strange:
        yield Difference("image-data", name, "no image has this data; the database may be older", left=True)

