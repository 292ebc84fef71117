"""Where a server goes: what `plan` decides on is read here, of as few hosts as do.

A decision looks first at the hosts that the request names (by name, or by servers to be with), then at hosts with room, 32 that chance
picks and then more, until one of them may take the server: it costs the same among a hundred hosts and among ten thousand. Only when none
may, every host is read, so that each has its reason told.

Races: nothing read here is held. Who acts on a decision claims it in a transaction, which counts the room again (`tasks`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from nacre import placement
from nacre.compute import explanation, plan, tables
from nacre.core import db, nodes


@dataclass(frozen=True)
class Decision:
    request: plan.Request
    choice: plan.Choice


def resources(row: db.Row) -> dict[str, int]:
    """What a server takes of its host, by resource class."""
    flavor = row.flavor
    return {"VCPU": flavor["vcpus"], "MEMORY_MB": flavor["memory_mb"],
            "DISK_GB": flavor["root_gb"] + flavor["ephemeral_gb"] + -(-flavor["swap_mb"] // 1024)}  # fmt: skip


def decide(conn: db.Conn, row: db.Row, filters: Sequence[str], left: explanation.Refused) -> Decision:
    """`left`: hosts that are not asked (any more), and why."""
    request, looked = request_of(conn, row, left), list[plan.Host]()
    for offers in _first_looks(conn, request, filters):
        looked += _hosts(conn, offers)
        choice = plan.choose(looked, request, filters)
        if choice.candidates:
            return Decision(request, choice)
    return Decision(request, plan.choose(hosts(conn, request.resources), request, filters))


def _first_looks(conn: db.Conn, request: plan.Request, filters: Sequence[str]) -> Iterator[list[placement.Candidate]]:
    if named := plan.named(request, filters):
        yield placement.candidates(conn, request.resources, _ids(conn, named))
    yield from placement.with_room(conn, request.resources)


def look_again(conn: db.Conn, decision: Decision, filters: Sequence[str]) -> Sequence[plan.Host]:
    """Its candidates as they are now, those that still may, best first."""
    request, ids = decision.request, [host.provider_id for host in decision.choice.candidates]
    return plan.choose(_hosts(conn, placement.candidates(conn, request.resources, ids)), request, filters).candidates


def host_named(conn: db.Conn, name: str, wanted: Mapping[str, int]) -> plan.Host | None:
    return next(iter(_hosts(conn, placement.candidates(conn, wanted, _ids(conn, [name])))), None)


def hosts(conn: db.Conn, wanted: Mapping[str, int]) -> list[plan.Host]:
    """Every host: for who asks why."""
    return _seen(placement.candidates(conn, wanted), nodes.all_hosts(conn), tables.disabled_hosts(conn), tables.zones(conn))


def _hosts(conn: db.Conn, offers: Sequence[placement.Candidate]) -> list[plan.Host]:
    rows = nodes.hosts_with(conn, ids=[offer.provider_id for offer in offers])
    names = [row.name for row in rows]
    return _seen(offers, rows, tables.disabled_hosts(conn, names), tables.zones(conn, names))


def _seen(offers: Sequence[placement.Candidate], rows: Sequence[db.Row], flags: Mapping[str, db.Row], zones: Mapping[str, str]) -> list[plan.Host]:
    there, found = {row.id: row for row in rows}, []
    for offer in offers:
        row = there.get(offer.provider_id)
        flag = flags.get(row.name) if row is not None else None
        if row is None or flag is None:
            continue
        free = {name: float(i.capacity - offer.usages.get(name, 0)) for name, i in offer.inventories.items()}
        zone, alive = zones.get(row.name, tables.ZONE), nodes.alive(row) and not flag.forced_down
        found.append(plan.Host(row.name, offer.provider_id, offer.generation, alive, *tables.disabled(row, flag), zone, offer.missing, free,
                               row.seen, offer.holders))  # fmt: skip
    return found


def _ids(conn: db.Conn, names: Collection[str]) -> list[str]:
    return [row.id for row in nodes.hosts_with(conn, names=names)]


def request_of(conn: db.Conn, row: db.Row, left: explanation.Refused) -> plan.Request:
    """What is to be placed for a server."""
    named = [i for hint in ("same_host", "different_host") for i in plan.words(row.hints.get(hint))]
    query = sa.select(tables.servers.c.id, tables.servers.c.host).where(tables.servers.c.id.in_(named), tables.servers.c.host.is_not(None))
    return plan.Request(resources(row), row.image.get("properties", {}), row.pinned_availability_zone, row.wanted_host, row.hints,
                        {found.id: found.host for found in conn.execute(query)} if named else {}, group_of(conn, row), left)  # fmt: skip


def group_of(conn: db.Conn, row: db.Row) -> plan.Group | None:
    """Its server group."""
    if row.group_id is None:
        return None
    group = conn.execute(sa.select(tables.server_groups).where(tables.server_groups.c.id == row.group_id)).first()
    if group is None:
        return None
    c = tables.servers.c
    others = sa.select(c.host, sa.func.count()).where(c.group_id == row.group_id, c.id != row.id, c.host.is_not(None), c.deleted_at.is_(None))
    return plan.Group(group.policy, int(group.rules.get("max_server_per_host", 1)), {row[0]: row[1] for row in conn.execute(others.group_by(c.host))})


def rooms(conn: db.Conn, wanted: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """host -> resource class -> the most that one server may take of it."""
    names = {row.id: row.name for row in nodes.all_hosts(conn)}
    return {names[offer.provider_id]: {name: min(i.capacity - offer.usages.get(name, 0), i.max_unit) for name, i in offer.inventories.items()}
            for offer in placement.candidates(conn, wanted) if offer.provider_id in names}  # fmt: skip


def smallest_change(conn: db.Conn, row: db.Row, filters: Sequence[str], refused: explanation.Refused) -> tuple[str, str]:
    """(for the owner, for the administrator) what would make a host take the server."""
    request = request_of(conn, row, {})
    return explanation.smallest(hosts(conn, request.resources), request, filters, rooms(conn, request.resources), refused)
