"""A database that is older than the world: whatever was under way in it is over, and no guest is the worse for it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

from core import durability as harness
from fake_node import SteppedNode
from nacre import image, program
from nacre.compute import states, tables
from nacre.compute.service import life, servers
from nacre.core import backup, leases, nodes, schema, tasks, worker
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.db import Database
from nacre.node.fences import Fences

from .test_durability import World, world  # noqa: F401 - the fixture

WHO = System("req-test")
WHEN = "2026-01-01 00:00:00 UTC"


@dataclass
class Restored:
    """The world of today with the database of the moment when this was made."""

    cloud: Cloud
    epoch: int

    def row(self, server_id: str) -> Any:
        with self.cloud.db.read() as conn:
            return tables.by_id(conn, server_id)

    def state(self, server_id: str) -> tuple[str, str | None]:
        row = self.row(server_id)
        return row.vm_state, row.task_state

    def rests(self, node: SteppedNode) -> None:
        """Nothing is to be done, by the worker or by a host."""
        assert not worker.run_one(self.cloud, "new/1", WHO)
        with self.cloud.db.read() as conn:
            assert nodes.open_calls(conn, node.host) == []


@pytest.fixture
def snapshot(world: World, tmp_path: Path) -> Iterator[Path]:  # noqa: F811
    yield tmp_path / "snapshot.db"
    harness.settle(world.stage)


def taken(world: World, path: Path) -> Any:  # noqa: F811
    return backup.take(world.cloud, path, program.CONTENTS)


def restored(world: World, path: Path, *there: str) -> Restored:  # noqa: F811
    epoch = program.settle_backup(path, WHEN, backup.There(there, ["nacre-1"]))
    return Restored(replace(world.cloud, db=Database(f"sqlite:///{path}")), epoch)


def half_way(world: World, verb: str) -> None:  # noqa: F811
    """Until a host is asked for `verb`."""
    for turn in range(50):
        worker.run_one(world.cloud, f"half/{turn}", WHO)
        with world.cloud.db.read() as conn:
            if any(call.verb == verb for call in nodes.open_calls(conn, world.node.host)):
                return
        world.node.act()
    raise AssertionError(f"{verb} is not asked for")


def test_a_snapshot_says_what_is_in_it(world: World, snapshot: Path) -> None:  # noqa: F811
    server = world.active()
    told = taken(world, snapshot)
    assert {"id": server, "host": "nacre-1"} in told["servers"] and told["images"] == [("file", world.image_id)]
    assert [path.name for path in snapshot.parent.iterdir()] == ["snapshot.db"]
    world.delete(server)
    harness.settle(world.stage)


def test_a_create_that_was_under_way_never_takes_the_guest_away(world: World, snapshot: Path) -> None:  # noqa: F811
    server = world.create()
    half_way(world, "ensure_server")
    taken(world, snapshot)
    harness.settle(world.stage)
    assert world.node.hypervisor.servers()[server].power == "running", "since the backup it has lived"
    now = restored(world, snapshot, server)
    assert now.state(server) == (states.ERROR, None)
    assert "taken while the server was spawning" in now.row(server).fault["message"] and WHEN in now.row(server).fault["message"]
    now.rests(world.node)
    assert world.node.hypervisor.servers()[server].power == "running"
    world.delete(server)
    harness.settle(world.stage)


def test_a_delete_and_a_tombstone_are_not_gone_on_with(world: World, snapshot: Path) -> None:  # noqa: F811
    server = world.active()
    world.delete(server)
    half_way(world, "absent_server")
    with world.cloud.db.write(WHO) as tx:
        nodes.call(tx, "nacre-1", nodes.NewCall("absent_server", {"server_id": server}, None))
    taken(world, snapshot)
    now = restored(world, snapshot, server)
    assert now.state(server) == (states.ACTIVE, None) and "was deleting" in now.row(server).fault["message"]
    now.rests(world.node)
    harness.settle(world.stage)


def test_a_snapshot_image_that_was_under_way(world: World, snapshot: Path) -> None:  # noqa: F811
    server = world.active()
    image_id = life.snapshot(world.caller("servers:create_image"), server, "shot", {})
    half_way(world, "upload_image")
    taken(world, snapshot)
    now = restored(world, snapshot, server)
    assert now.state(server) == (states.ACTIVE, None)
    with now.cloud.db.read() as conn:
        assert image_id not in image.known(conn) and world.image_id in image.known(conn)
    harness.settle(world.stage)
    world.delete(server)
    harness.settle(world.stage)


def test_old_fences_are_refused_and_nobody_holds_anything(world: World, snapshot: Path) -> None:  # noqa: F811
    server = world.active()
    assert leases.take(world.cloud.db, WHO, "loop:x", "somebody", 1000)
    taken(world, snapshot)
    second = Path(shutil.copy(snapshot, snapshot.with_name("second.db")))
    with world.cloud.db.read() as conn:
        before = nodes.epoch(conn)
    now = restored(world, snapshot, server)
    assert now.epoch > max(before, 1_700_000_000)
    fences = Fences(snapshot.parent / "fences")
    assert fences.admit(server, (before, 10**9)) and fences.admit(server, (now.epoch, 1))
    assert not fences.admit(server, (before, 10**9 + 1)), "what the cloud of before still asks"
    with now.cloud.db.read() as conn:
        assert nodes.epoch(conn) == now.epoch
        assert conn.execute(sa.select(sa.func.count()).select_from(leases.table)).scalar() == 0
        assert not conn.execute(sa.select(nodes.holders.c.applied).where(nodes.holders.c.applied != 0)).first()
        assert all(not nodes.alive(row) for row in nodes.all_hosts(conn))
        assert conn.execute(sa.select(tables.server_seen)).first() is None
        assert conn.execute(sa.select(tasks.tasks.c.id).where(tasks.tasks.c.state.in_(tasks.OPEN))).first() is None
    assert program.settle_backup(snapshot, WHEN, backup.There([server], ["nacre-1"])) > now.epoch, "each restore has its own"
    assert program.settle_backup(snapshot, WHEN, backup.There([server], ["nacre-1"], 1 << 40)) == (1 << 40) + 1, "hosts may be further on"
    assert restored(world, second, server).epoch >= now.epoch
    world.delete(server)
    harness.settle(world.stage)


def test_new_servers_have_no_number_of_a_newer_guest(world: World, snapshot: Path) -> None:  # noqa: F811
    older = world.active()
    taken(world, snapshot)
    newer = world.active()
    now = restored(world, snapshot, older)
    order = servers.Order(name="s", flavor_id="1", image_id=world.image_id, networks=None)
    made = [servers.create(replace(world.caller("servers:create"), cloud=now.cloud), order)[0][0] for _ in range(2)]
    first, second = (now.row(server).number for server in made)
    assert second == first + 1 and first == now.epoch + 1 > world.row(newer).number, "and after another restore of the same file, higher ones"
    for server in (older, newer):
        world.delete(server)
    harness.settle(world.stage)


def test_servers_without_a_disk(world: World, snapshot: Path) -> None:  # noqa: F811
    kept, lost = world.active(), world.active()
    taken(world, snapshot)
    elsewhere = Path(shutil.copy(snapshot, snapshot.with_name("second.db")))
    now = restored(world, snapshot, kept)
    assert now.state(kept) == (states.ACTIVE, None) and now.row(kept).fault is None
    assert now.state(lost) == (states.STOPPED, None)
    assert now.row(lost).fault["message"] == f"The cloud was restored from a backup of {WHEN} that has no disk of this server: rebuild it."
    assert now.row(lost).fault["stands"]
    program.settle_backup(elsewhere, WHEN, backup.There([], ["nacre-9"]))
    other = Database(f"sqlite:///{elsewhere}")
    with other.read() as conn:
        row = tables.by_id(conn, lost)
    assert row is not None and row.vm_state == states.ACTIVE, "of a host that is not here nothing is known"
    other.close()
    for server in (kept, lost):
        world.delete(server)
    harness.settle(world.stage)


def test_an_older_schema_is_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    database, config = Database(f"sqlite:///{path}"), Config()
    config.set_main_option("script_location", str(schema.FOLDER))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(config, script, fn=lambda revision, _: script._upgrade_revs("0002", revision)) as steps, database.engine.begin() as conn:
        steps.configure(connection=conn, render_as_batch=True)
        steps.run_migrations()
    assert schema.current(database) == "0002"
    database.close()
    program.settle_backup(path, WHEN, backup.There([], []))
    database = Database(f"sqlite:///{path}")
    assert schema.current(database) == schema.head()
    database.close()
