"""What must stay true without being asked: DHCP servers and routers run on hosts that live, and hosts' rows say what is configured.

Nothing is moved until this process has watched for a while: after the controller was away every host looks dead, and the first to be
heard again would get everything.
"""

import sqlalchemy as sa

from nacre.core import clock, nodes
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.loops import Loop
from nacre.network.plan import scheduling
from nacre.network.service import placing
from nacre.network.tables.routing import router_hosts
from nacre.network.tables.wires import dhcp_servers, switches

_WATCH = nodes.DEAD_AFTER + 15


class Rescheduling:
    """`run` is the loop; `since` when it began to watch."""

    def __init__(self) -> None:
        self.since: float | None = None

    def run(self, cloud: Cloud, who: System) -> None:
        self.since = self.since if self.since is not None else clock.boottime()
        patient = clock.boottime() - self.since > _WATCH
        self._settle(cloud, who, "dhcp", patient)
        self._settle(cloud, who, "l3", patient)

    def _settle(self, cloud: Cloud, who: System, agent: str, patient: bool) -> None:
        table, key = (dhcp_servers, "network_id") if agent == "dhcp" else (router_hosts, "router_id")
        place = placing.place_dhcp if agent == "dhcp" else placing.place_router
        with cloud.db.read() as conn:
            alive = placing.alive_hosts(conn, agent)
            dead = [row.name for row in nodes.all_hosts(conn) if not nodes.alive(row)] if patient else []
            unplaced = sa.select(table).where(sa.or_(table.c.host.is_(None), table.c.host.in_(dead)))
            if not alive or conn.execute(unplaced.limit(1)).first() is None:
                return
            placed = {getattr(row, key): row.host for row in conn.execute(sa.select(table))}
        for move in scheduling.moves(placed, alive, set(dead)):
            with cloud.db.write(who) as tx:
                place(tx, move.id, move.old, move.new)


def configured(cloud: Cloud, who: System) -> None:
    """Each host's row says what the configuration says; documents made of it change with it."""
    mappings = dict(entry.split(":", 1) for entry in cloud.config.ovs.bridge_mappings)
    wanted = {"bridge_mappings": mappings, "dns_domain": cloud.config.DEFAULT.dns_domain}
    with cloud.db.read() as conn:
        differing = [row for row in conn.execute(sa.select(switches)) if row.options != wanted]
    for row in differing:
        with cloud.db.write(who) as tx:
            tx.update(switches, {"host": row.host}, options=wanted)
            nodes.bump(tx, "host", row.host)
            held = nodes.held_by(tx, row.host)
            for network_id in held.get("dhcp", {}):
                nodes.bump(tx, "dhcp", network_id)
            for physical in held.get("outside", {}).keys() - mappings.keys():
                nodes.release(tx, "outside", physical, row.host)
            for physical in mappings:
                nodes.hold(tx, row.host, "outside", physical)


LOOPS: tuple[Loop, ...] = (
    Loop("network-hosts", 60, configured, topic="network-hosts"),
    Loop("network-schedule", 10, Rescheduling().run, topic="network-hosts"),
)
