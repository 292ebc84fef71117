"""Tables of compute. Columns without a comment are written by the verb that the user called.

A deleted server keeps its row (`deleted_at`) for `changes-since` and `deleted=true`. `vm_state` and `task_state` are written only by
`move`, which proves the generation and the table of states and bumps the server's document when the wanted power changed; `task_id` goes
with them, so a task that lost the server to a later verb (a delete, a hard reboot, a reset by an administrator) can tell; `host` only
by the claim (task create) and its undo; `server_seen` only by node reports.

Reports are counted twice, because the counts say different things. `hosts.reports` (core/nodes.py) is the number that a node and the
control plane agree on, so that a late report is told from the next one: every report that tells something takes one. `compute_hosts.reports`
counts those among them that told which guests there are: a server that moved after the n-th of these (`moved_after`) is as it was seen only
after one more. Were it the first count, a report of documents, or of a host whose libvirtd hangs, would vouch for what was seen before the move.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from nacre.compute import states
from nacre.core import db, nodes
from nacre.core.errors import Conflict
from nacre.core.statements import Statement, given, given_list

_big = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_alive: dict[str, Any] = {"sqlite_where": sa.text("deleted_at IS NULL"), "postgresql_where": sa.text("deleted_at IS NULL")}

flavors = sa.Table(
    "flavors", db.metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("description", sa.Text),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mb", sa.Integer, nullable=False),
    sa.Column("root_gb", sa.Integer, nullable=False),
    sa.Column("ephemeral_gb", sa.Integer, nullable=False),
    sa.Column("swap_mb", sa.Integer, nullable=False),
    sa.Column("rxtx_factor", sa.Float, nullable=False),
    sa.Column("is_public", sa.Boolean, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("extra_specs", db.Json, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime),
)  # fmt: skip
flavor_access = sa.Table(
    "flavor_access", db.metadata,
    sa.Column("flavor_id", sa.String(255), sa.ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", sa.String(64), primary_key=True),
)  # fmt: skip
keypairs = sa.Table(
    "keypairs", db.metadata,
    sa.Column("id", _big, primary_key=True, autoincrement=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.UniqueConstraint("user_id", "name"),
)  # fmt: skip
servers = sa.Table(
    "servers", db.metadata,
    sa.Column("number", _big, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("hostname", sa.String(255), nullable=False),
    sa.Column("reservation_id", sa.String(32), nullable=False, index=True),
    sa.Column("launch_index", sa.Integer, nullable=False),
    sa.Column("flavor_id", sa.String(255), nullable=False),
    sa.Column("flavor", db.Json, nullable=False),            # the flavor as it was
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mb", sa.Integer, nullable=False),
    sa.Column("image_id", sa.String(36)),
    sa.Column("image", db.Json, nullable=False),             # the image as it was: what ServerSpec and filters need
    sa.Column("trusted_image_certificates", db.Json),        # ids, None: none were named
    sa.Column("key_name", sa.String(255)),
    sa.Column("key", db.Json),                               # the public key as it was
    sa.Column("user_data", sa.Text),                         # base64, as it came
    sa.Column("injected_files", db.Json),                    # {"path", "contents" in base64} each; for its config drive
    sa.Column("seed", sa.String(64), nullable=False),        # what the guest's random_seed is made from
    sa.Column("guest_password", sa.Text),                    # the guest, by the node API
    sa.Column("config_drive", sa.String(16), nullable=False),
    sa.Column("meta", db.Json, nullable=False),
    sa.Column("availability_zone", sa.String(255)),          # claim
    sa.Column("pinned_availability_zone", sa.String(255)),
    sa.Column("hints", db.Json, nullable=False),
    sa.Column("wanted_host", sa.String(255)),
    sa.Column("access_ip_v4", sa.String(64)),
    sa.Column("access_ip_v6", sa.String(64)),
    sa.Column("disk_config", sa.String(16), nullable=False),
    sa.Column("root_device_name", sa.String(255)),
    sa.Column("root_device_tag", sa.String(60)),             # what its user calls the root disk
    sa.Column("locked_by", sa.String(16)),
    sa.Column("locked_reason", sa.String(255)),
    sa.Column("host", sa.String(255), index=True),           # claim, its undo
    sa.Column("vm_state", sa.String(32), nullable=False),    # move
    sa.Column("task_state", sa.String(32)),                  # move
    sa.Column("task_id", sa.String(36)),                     # move: the task that task_state belongs to
    sa.Column("generation", sa.Integer, nullable=False),     # move
    sa.Column("moved_at", sa.DateTime, nullable=False),      # move
    sa.Column("moved_after", sa.Integer, nullable=False),    # move: how many reports its host had made by then
    sa.Column("fault", db.Json),                             # tasks, when they fail
    sa.Column("resized_from", db.Json),                      # task resize: {"flavor", "before"} until confirmed or reverted
    sa.Column("rescued_with", db.Json),                      # task rescue: {"image", "before"} until unrescued
    sa.Column("group_id", sa.String(36), index=True),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("launched_at", sa.DateTime),                   # task create
    sa.Column("terminated_at", sa.DateTime),                 # task delete
    sa.Column("deleted_at", sa.DateTime),                    # task delete
    sa.Index("ix_servers_project", "project_id", "created_at", "id", **_alive),
    sa.Index("ix_servers_created", "created_at", "id", **_alive),
    sa.Index("ix_servers_updated", "updated_at"),
)  # fmt: skip
server_tags = sa.Table(
    "server_tags", db.metadata,
    sa.Column("server_id", sa.String(36), primary_key=True),
    sa.Column("tag", sa.String(60), primary_key=True, index=True),
)  # fmt: skip
server_groups = sa.Table(
    "server_groups", db.metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(64), nullable=False, index=True),
    sa.Column("user_id", sa.String(64), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("policy", sa.String(32), nullable=False),
    sa.Column("rules", db.Json, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
)  # fmt: skip
server_seen = sa.Table(
    "server_seen", db.metadata,
    sa.Column("server_id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False, index=True),
    sa.Column("power", sa.String(16), nullable=False),       # states.POWER, or "missing"
)  # fmt: skip
server_decisions = sa.Table(
    "server_decisions", db.metadata,
    sa.Column("server_id", sa.String(36), primary_key=True),
    sa.Column("at", sa.DateTime, nullable=False),            # task create: the last decision
    sa.Column("request_id", sa.String(64), nullable=False),
    sa.Column("host", sa.String(255)),                       # None: no host could take it
    sa.Column("body", db.Json, nullable=False),              # explanation.py
)  # fmt: skip
compute_hosts = sa.Table(
    "compute_hosts", db.metadata,
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("service_id", sa.String(36), nullable=False, unique=True),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("disabled_reason", sa.String(255)),
    sa.Column("forced_down", sa.Boolean, nullable=False),
    sa.Column("reported_at", sa.DateTime, nullable=False),   # reports
    sa.Column("reports", sa.Integer, nullable=False),        # reports: how many have told which guests it sees
    sa.Column("offered", db.Json, nullable=False),           # loop: the inventories that placement was told
)  # fmt: skip
server_migrations = sa.Table(
    "server_migrations", db.metadata,
    sa.Column("number", _big, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("server_id", sa.String(36), nullable=False, index=True),
    sa.Column("project_id", sa.String(64), nullable=False),
    sa.Column("user_id", sa.String(64)),                     # who asked
    sa.Column("kind", sa.String(16), nullable=False),        # resize
    sa.Column("status", sa.String(16), nullable=False),      # the verb, then the tasks resize, confirm, revert
    sa.Column("source", sa.String(255), nullable=False),
    sa.Column("target", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime),
)  # fmt: skip
aggregates = sa.Table(
    "aggregates", db.metadata,
    sa.Column("number", _big, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("zone", sa.String(255)),                       # the availability zone of its hosts, None: it makes none
    sa.Column("meta", db.Json, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime),
)  # fmt: skip
aggregate_hosts = sa.Table(
    "aggregate_hosts", db.metadata,
    sa.Column("aggregate", _big, sa.ForeignKey("aggregates.number", ondelete="CASCADE"), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True, index=True),
)  # fmt: skip
console_tokens = sa.Table(
    "console_tokens", db.metadata,
    sa.Column("digest", sa.String(64), primary_key=True),    # sha256 of the token
    sa.Column("server_id", sa.String(36), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("expires_at", sa.DateTime, nullable=False),
)  # fmt: skip

ZONE, NUMBERS = "nova", "numbers:servers"
HYPERVISOR = "libvirtd"


def disabled(row: db.Row, flag: db.Row) -> tuple[bool, str | None]:
    """Whether a host takes no new server, and why: an administrator's word, or its hypervisor does not answer.
    Source: nova, `LibvirtDriver._set_host_enabled`."""
    lost = nodes.troubled(row, HYPERVISOR)
    if flag.disabled or not lost:
        return flag.disabled, flag.disabled_reason
    return True, f"AUTO: Connection to libvirt lost: {lost}"


_ANY = Statement(sa.select(servers).where(servers.c.id == given("id")))
_LIVING = Statement(sa.select(servers).where(servers.c.id == given("id"), servers.c.deleted_at.is_(None)))
_LOCKED = Statement(sa.select(servers).where(servers.c.id == given("id"), servers.c.deleted_at.is_(None)).with_for_update())
_POWERS = Statement(sa.select(server_seen.c.server_id, server_seen.c.power).where(server_seen.c.server_id.in_(given_list("ids"))))
_TAGS = Statement(sa.select(server_tags).where(server_tags.c.server_id.in_(given_list("ids"))).order_by(server_tags.c.tag))
_USAGE = Statement(sa.select(sa.func.count(), sa.func.sum(servers.c.vcpus), sa.func.sum(servers.c.memory_mb)).where(
    servers.c.project_id == given("project"), servers.c.deleted_at.is_(None)))  # fmt: skip
_REPORTS = Statement(sa.select(compute_hosts.c.reports).where(compute_hosts.c.host == given("host")))
_COMPUTE_HOSTS = Statement(sa.select(compute_hosts))
_flags = sa.select(compute_hosts.c.host, compute_hosts.c.disabled, compute_hosts.c.disabled_reason, compute_hosts.c.forced_down)
_SOME_HOSTS = Statement(_flags.where(compute_hosts.c.host.in_(given_list("names"))))
_zoned = (sa.select(aggregate_hosts.c.host, aggregates.c.zone).join(aggregates, aggregates.c.number == aggregate_hosts.c.aggregate)
          .where(aggregates.c.zone.is_not(None)))  # fmt: skip
_ZONES, _SOME_ZONES = Statement(_zoned), Statement(_zoned.where(aggregate_hosts.c.host.in_(given_list("names"))))


def by_id(conn: db.Conn, server_id: str, *, deleted: bool = False) -> db.Row | None:
    return (_ANY if deleted else _LIVING).first(conn, id=server_id)


def next_number(tx: db.Tx) -> dict[str, int]:
    """The column `number` of a new server where the database would give a number too low: those below belong to guests of before a restore."""
    floor = nodes.fact(tx, NUMBERS)
    return {"number": floor} if floor is not None and (tx.scalar(sa.select(sa.func.max(servers.c.number))) or 0) < floor else {}


def locked(tx: db.Tx, server_id: str) -> db.Row | None:
    """The row of a server that is not deleted, held until the transaction ends."""
    return _LOCKED.first(tx, id=server_id)


def owned(tx: db.Tx, server_id: str, task_id: str) -> db.Row | None:
    """The same while what is being done to it is this task's to say."""
    row = locked(tx, server_id)
    return row if row is not None and row.task_id == task_id else None


def move(tx: db.Tx, row: db.Row, vm_state: str, task_state: str | None, **values: Any) -> None:
    """The only write of `vm_state` and `task_state`; who begins a verb gives `task_id`. Raises Conflict when somebody else wrote first."""
    if task_state not in states.VALID[vm_state]:
        raise RuntimeError(f"no server may be {vm_state}/{task_state} (it is {row.vm_state}/{row.task_state})")
    if task_state is None:
        values["task_id"] = None
    where, host = {"id": row.id, "generation": row.generation}, values.get("host", row.host)
    told = _REPORTS.scalar(tx, host=host) or 0
    written = tx.update(servers, where, vm_state=vm_state, task_state=task_state, generation=row.generation + 1, moved_at=tx.now,
                        moved_after=told, updated_at=tx.now, **values)  # fmt: skip
    if not written:
        raise Conflict(f"Server {row.id} was changed by somebody else meanwhile, try it again.")
    if states.wanted_power(vm_state, task_state) != states.wanted_power(row.vm_state, row.task_state):
        nodes.bump(tx, "server", row.id)


def see(tx: db.Tx, server_id: str, host: str, power: str) -> None:
    """What a node said of a server, in a report or as the value of a call."""
    if not tx.update(server_seen, {"server_id": server_id}, host=host, power=power):
        tx.insert(server_seen, server_id=server_id, host=host, power=power)


def powers(conn: db.Conn, server_ids: Iterable[str]) -> dict[str, str]:
    return {row.server_id: row.power for row in _POWERS.rows(conn, ids=list(server_ids))}


def tags_of(conn: db.Conn, server_ids: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in _TAGS.rows(conn, ids=list(server_ids)):
        found.setdefault(row.server_id, []).append(row.tag)
    return found


def set_tags(tx: db.Tx, server_id: str, tags: Iterable[str]) -> None:
    tx.delete(server_tags, server_id=server_id)
    for tag in sorted(set(tags)):
        tx.insert(server_tags, server_id=server_id, tag=tag)


def usage(conn: db.Conn, project_id: str) -> dict[str, int]:
    """What the project's servers take of its quota: instances, cores, ram (MiB)."""
    count, cores, ram = tuple(_USAGE.rows(conn, project=project_id)[0])
    return {"instances": int(count or 0), "cores": int(cores or 0), "ram": int(ram or 0)}


def disabled_hosts(conn: db.Conn, names: Collection[str] | None = None) -> Mapping[str, db.Row]:
    """host (of `names`) -> its row of flags."""
    rows = _COMPUTE_HOSTS.rows(conn) if names is None else _SOME_HOSTS.rows(conn, names=list(names))
    return {row.host: row for row in rows}


def zones(conn: db.Conn, names: Collection[str] | None = None) -> Mapping[str, str]:
    """host (of `names`) -> the availability zone that an aggregate puts it in; those not named are in ZONE."""
    rows = _ZONES.rows(conn) if names is None else _SOME_ZONES.rows(conn, names=list(names))
    return {row.host: row.zone for row in rows}


def migrated(tx: db.Tx, server_id: str, before: str, after: str) -> None:
    """What became of the server's migration that was `before`."""
    tx.update(server_migrations, {"server_id": server_id, "status": before}, status=after, updated_at=tx.now)
