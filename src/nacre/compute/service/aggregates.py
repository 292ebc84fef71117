"""Host aggregates: hosts that an administrator names together, with metadata; one with an availability zone puts its hosts there.

Placement is told who is in which (its queries by `member_of`), and that counts up the host's generation there. Races: a host's zone changes
with its provider held first and its compute row then, as a claim holds them; so either a server was placed before, and the change is
refused, or the scheduler finds that the host is not as it was seen and looks at it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre import placement
from nacre.compute import tables
from nacre.compute.tables import aggregate_hosts, aggregates
from nacre.core import db, ids, journal, nodes
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Error, NotFound

_MOST = 2**31


@dataclass(frozen=True)
class Aggregate:
    row: db.Row
    hosts: Sequence[str]


def _all(conn: db.Conn, *where: sa.ColumnElement[bool]) -> list[Aggregate]:
    there: dict[int, list[str]] = {}
    rows = list(conn.execute(sa.select(aggregates).where(*where).order_by(aggregates.c.number)))
    members = sa.select(aggregate_hosts).where(aggregate_hosts.c.aggregate.in_([row.number for row in rows])).order_by(aggregate_hosts.c.host)
    for member in conn.execute(members):
        there.setdefault(member.aggregate, []).append(member.host)
    return [Aggregate(row, there.get(row.number, [])) for row in rows]


def _named(conn: db.Conn, caller: Caller, number: str, *, lock: bool = False) -> Aggregate:
    """Raises NotFound."""
    caller.require({})
    wanted = int(number) if number.isdecimal() and int(number) < _MOST else -1
    if lock and isinstance(conn, db.Tx):
        conn.lock(sa.select(aggregates.c.number).where(aggregates.c.number == wanted))
    found = _all(conn, aggregates.c.number == wanted)
    if not found:
        raise NotFound(f"Aggregate {number} could not be found.", kind="AggregateNotFound")
    return found[0]


def listed(caller: Caller) -> list[Aggregate]:
    caller.require({})
    with caller.read() as conn:
        return _all(conn)


def show(caller: Caller, number: str) -> Aggregate:
    with caller.read() as conn:
        return _named(conn, caller, number)


def create(caller: Caller, name: str, zone: str | None) -> Aggregate:
    caller.require({})
    with caller.write() as tx:
        _free(tx, name)
        aggregate_id = ids.uuid()
        tx.insert(aggregates, id=aggregate_id, name=name, zone=zone, meta={}, created_at=tx.now)
        journal.changed(tx, "aggregate", aggregate_id, "create", ("name", "zone"), {"name": name})
        return _all(tx, aggregates.c.id == aggregate_id)[0]


def _free(tx: db.Tx, name: str, but: str = "") -> None:
    if tx.first(sa.select(aggregates.c.id).where(aggregates.c.name == name, aggregates.c.id != but)) is not None:
        raise Conflict(f"Aggregate {name} already exists.", kind="AggregateNameExists")


def update(caller: Caller, number: str, values: Mapping[str, Any]) -> Aggregate:
    """`values`: columns name, zone."""
    with caller.write() as tx:
        found = _named(tx, caller, number, lock=True)
        if "name" in values:
            _free(tx, values["name"], found.row.id)
        if values.get("zone", found.row.zone) != found.row.zone:
            _move_all(tx, found, values["zone"])
        return _write(tx, found, values)


def set_metadata(caller: Caller, number: str, items: Mapping[str, str | None], zone: Mapping[str, str | None]) -> Aggregate:
    """What is None goes, the rest of what there was stays; `zone`: the column, if it is named."""
    with caller.write() as tx:
        found = _named(tx, caller, number, lock=True)
        if zone and zone["zone"] != found.row.zone:
            _move_all(tx, found, zone["zone"])
        meta = {name: value for name, value in (found.row.meta | items).items() if value is not None}
        return _write(tx, found, {"meta": meta, **zone})


def _move_all(tx: db.Tx, found: Aggregate, zone: str | None) -> None:
    for host in found.hosts:
        placement.join_aggregate(tx, _node(tx, host).id, found.row.id)
        _may_change(tx, host, zone, found, BadRequest)


def _write(tx: db.Tx, found: Aggregate, values: Mapping[str, Any]) -> Aggregate:
    tx.update(aggregates, {"number": found.row.number}, **values, updated_at=tx.now)
    journal.changed(tx, "aggregate", found.row.id, "update", values)
    return _all(tx, aggregates.c.number == found.row.number)[0]


def delete(caller: Caller, number: str) -> None:
    with caller.write() as tx:
        found = _named(tx, caller, number, lock=True)
        if found.hosts:
            raise BadRequest(f"Cannot delete aggregate {number}. Reason: Host aggregate is not empty: {', '.join(found.hosts)}.",
                             kind="InvalidAggregateAction")  # fmt: skip
        tx.delete(aggregates, number=found.row.number)
        journal.changed(tx, "aggregate", found.row.id, "delete")


def add_host(caller: Caller, number: str, host: str) -> Aggregate:
    with caller.write() as tx:
        found = _named(tx, caller, number, lock=True)
        node = _node(tx, host)
        if host in found.hosts:
            raise Conflict(f"Aggregate {number} already has host {host}.", kind="AggregateHostExists")
        placement.join_aggregate(tx, node.id, found.row.id)
        if found.row.zone is not None:
            _may_change(tx, host, found.row.zone, found, Conflict)
        tx.insert(aggregate_hosts, aggregate=found.row.number, host=host)
        return _write(tx, found, {})


def remove_host(caller: Caller, number: str, host: str) -> Aggregate:
    with caller.write() as tx:
        found = _named(tx, caller, number, lock=True)
        if host not in found.hosts:
            raise NotFound(f"Cannot remove host {host} in aggregate {number}: it is not in it.", kind="AggregateHostNotFound")
        placement.leave_aggregate(tx, _node(tx, host).id, found.row.id)
        if found.row.zone is not None:
            _may_change(tx, host, None, found, Conflict)
        tx.delete(aggregate_hosts, aggregate=found.row.number, host=host)
        return _write(tx, found, {})


def _node(tx: db.Tx, host: str) -> db.Row:
    """Raises NotFound for what is no compute host."""
    row = nodes.host_named(tx, host)
    if row is None or host not in tables.disabled_hosts(tx, [host]):
        raise NotFound(f"Compute host {host} could not be found.", kind="ComputeHostNotFound")
    return row


def _may_change(tx: db.Tx, host: str, zone: str | None, found: Aggregate, refusal: type[Error]) -> None:
    """Whether a host, whose provider is held, may be in `zone` (None: the default one): it is in one, and servers do not change theirs."""
    tx.lock(sa.select(tables.compute_hosts.c.host).where(tables.compute_hosts.c.host == host))
    said = f"Cannot change aggregate {found.row.number}. Reason: "
    elsewhere = [other.row.zone for other in _all(tx, aggregates.c.number != found.row.number, aggregates.c.zone.is_not(None)) if host in other.hosts]
    if zone is not None and any(other != zone for other in elsewhere):
        raise refusal(f"{said}Host {host} is already in availability zone {elsewhere[0]}.", kind="InvalidAggregateAction")
    mine = found.row.zone if host in found.hosts else None
    before, after = elsewhere[0] if elsewhere else mine or tables.ZONE, zone or (elsewhere[0] if elsewhere else tables.ZONE)
    servers = tables.servers.c
    there = tx.first(sa.select(servers.id).where(servers.host == host, servers.deleted_at.is_(None)).limit(1)) if before != after else None
    if there is not None:
        raise refusal(f"{said}Host {host} has instances in availability zone {before}, among them {there.id}.", kind="InvalidAggregateAction")
