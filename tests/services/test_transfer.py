"""Copying a cloud from SQLite into PostgreSQL: everything arrives, ids go on, waits go on, and what cannot be done changes nothing."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import postgres
from conftest import TestHome, make_cloud
from nacre import identity, network, program
from nacre.core import clock, journal, leases, nodes, postgresql, schema, tasks, transfer, worker
from nacre.core.bells import Bells
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.config import Config
from nacre.core.db import Database, Unreachable, metadata
from nacre.core.postgresql import History, Unsuitable

pytestmark = pytest.mark.services
WHO = System("req-transfer")
LEFT = 500.0


@tasks.task("transfer.waits", failed=lambda tx, run, error: None)
def waits(run: tasks.Run) -> None:
    run.wait("rain", "h", lambda conn: None, lambda conn, _: "rain", LEFT)


@pytest.fixture(scope="module")
def started() -> Iterator[postgres.Postgres]:
    with postgres.cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cloud with rows of many kinds, among them a task that waits, one that was running and one that another boot left."""
    made = make_cloud(tmp_path_factory.mktemp("home") / "cloud")
    with made.db.write(WHO) as tx:
        identity.bootstrap(tx, made, {"admin": "secret", "demo": "secret"}, program.SERVICES)
        network.bootstrap(tx)
        for number in range(1100):  # more than a batch
            journal.changed(tx, "thing", f"thing-{number}", "create", ["näme"], {"deep": [1, 2.5, None, {"ключ": "値"}]})
        nodes.register(tx, "nacre-1")
        nodes.call(tx, "nacre-1", nodes.NewCall("ensure_server", {"id": "x"}))
        tasks.start(tx, "transfer.waits", "thing:1", {})
    assert worker.run_one(made, "somebody/1", WHO)
    with made.db.write(WHO) as tx:
        tx.update(tasks.tasks, {"resource": "thing:1"}, until=clock.boottime() + LEFT)  # it has just looked, and does not again for a while
        journal.advance(tx, "metering", journal.after(tx, journal.START, 10)[-1])
        tasks.start(tx, "transfer.waits", "thing:2", {"was": "running"})
        tx.update(tasks.tasks, {"resource": "thing:2"}, state="running", owner="gone/1", boot=clock.boot_id(), until=clock.boottime() + 1000)
        tasks.start(tx, "transfer.waits", "thing:3", {"was": "parked"})
        tx.update(tasks.tasks, {"resource": "thing:3"}, state="parked", waiting="rain", boot="another boot", until=1e9)
    assert leases.take(made.db, WHO, "loop:x", "somebody", 1000)
    made.db.close()
    return made.home.path


@pytest.fixture
def cloud(home: Path, tmp_path: Path) -> Iterator[Cloud]:
    """A copy of its own of that cloud."""
    made = TestHome(Path(shutil.copytree(home, tmp_path / "cloud")))
    database = Database(made.database_url)
    yield Cloud(home=made, config=Config(), db=database, bells=Bells(None), policies={}, authenticate=identity.authenticate)
    database.close()


@pytest.fixture
def target(started: postgres.Postgres) -> Iterator[Database]:
    made = Database(started.fresh())
    yield made
    made.close()


def content(database: Database) -> dict[str, list[str]]:
    with database.read() as conn:
        return {table.name: sorted(repr(tuple(row)) for row in conn.execute(sa.select(table))) for table in metadata.sorted_tables}


def names(database: Database) -> frozenset[str]:
    with database.read() as conn:
        return postgresql.relations(conn)


def opens(cloud: Cloud) -> Callable[[sa.Connection], bool]:
    return lambda conn: identity.fits(cloud, conn)


def test_everything_arrives_and_ids_go_on(cloud: Cloud, target: Database) -> None:
    before = content(cloud.db)
    counts = transfer.copy(cloud.db, target, WHO, "mark-1")
    assert counts["journal"] == len(before["journal"]) == 1100 and counts["leases"] == 0
    assert content(cloud.db) == before, "the source stays as it was"
    after, timed = content(target), {"leases", "tasks", "task_steps", "node_calls", "cloud_facts"}
    assert {name: rows for name, rows in after.items() if name not in timed} == {name: rows for name, rows in before.items() if name not in timed}
    assert set(before["cloud_facts"]) < set(after["cloud_facts"])
    assert schema.current(target) == schema.head()
    postgresql.refuse(target, History(used=True, copy="mark-1"), opens(cloud))
    with target.write(WHO) as tx:
        highest = tx.scalar(sa.select(sa.func.max(journal.lines.c.id)))
        journal.changed(tx, "thing", "next", "create")
        call = nodes.call(tx, "nacre-1", nodes.NewCall("ensure_server", {"id": "y"}))
        assert tx.scalar(sa.select(journal.lines.c.id).where(journal.lines.c.resource_id == "next")) == highest + 1
        assert tx.scalar(sa.select(nodes.calls.c.number).where(nodes.calls.c.id == call)) == 2, "a node refuses numbers that it has seen"
        assert [line.resource_id for line in journal.after(tx, journal.cursor_of(tx, "metering"), 2)] == ["thing-10", "thing-11"]


def test_waits_go_on_and_nobody_holds_anything(cloud: Cloud, target: Database) -> None:
    transfer.copy(cloud.db, target, WHO, "mark")
    with target.read() as conn:
        instant = leases.now(conn)
        rows: dict[str, Any] = {row.resource: row for row in conn.execute(sa.select(tasks.tasks))}
        step, call = conn.execute(sa.select(tasks.steps)).one(), conn.execute(sa.select(nodes.calls)).one()
        over = set(conn.execute(sa.select(tasks.tasks.c.resource).where(leases.over(tasks.tasks.c.boot, tasks.tasks.c.until, instant))).scalars())
        assert over == {"thing:2", "thing:3"}
    assert rows["thing:1"].boot == step.boot == instant[0]
    assert LEFT - 60 < step.until - instant[1] <= LEFT and LEFT - 60 < rows["thing:1"].until - instant[1] <= LEFT
    assert call.boot == instant[0] and call.seconds - 60 < call.until - instant[1] <= call.seconds
    moved = Cloud(home=cloud.home, config=cloud.config, db=target, bells=cloud.bells, policies={}, authenticate=cloud.authenticate)
    claimed = worker.claim(moved, "new/1", WHO)
    assert claimed is not None and claimed[0].resource == "thing:2", "what was running is taken up at once"
    assert leases.take(target, WHO, "loop:x", "another", 10)


def test_a_lost_server_leaves_nothing_and_the_next_try_succeeds(cloud: Cloud, target: Database, started: postgres.Postgres) -> None:
    before = content(cloud.db)
    for at in (1, 3, 40, 90, 130):
        _lose_connection_at(target, at)
        with pytest.raises(Unreachable):
            transfer.copy(cloud.db, target, WHO, "mark")
        _lose_connection_at(target, 0)
        assert names(target) == frozenset(), at
        assert content(cloud.db) == before
    assert transfer.copy(cloud.db, target, WHO, "mark")["journal"] == len(before["journal"])


_lost: dict[Database, Any] = {}


def _lose_connection_at(target: Database, at: int) -> None:
    """The server ends the connection at the n-th statement; 0: it does not any more."""
    if old := _lost.pop(target, None):
        sa.event.remove(target.engine, "before_cursor_execute", old)
    if not at:
        return
    count = itertools.count(1)

    def look(conn: sa.Connection, *_: Any) -> None:
        if next(count) == at:
            other = target.dial()
            other.execute("SELECT pg_terminate_backend(%s)", [conn.connection.dbapi_connection.info.backend_pid])
            other.close()

    _lost[target] = look
    sa.event.listen(target.engine, "before_cursor_execute", look)


def test_an_unused_copy_is_replaced_and_never_taken_for_the_cloud(cloud: Cloud, target: Database) -> None:
    transfer.copy(cloud.db, target, WHO, "first")
    with cloud.db.write(WHO) as tx:
        journal.changed(tx, "thing", "made since", "create")
    postgresql.refuse(target, History(used=True, moving=True), opens(cloud))
    with pytest.raises(Unsuitable, match="interrupted move left"):
        postgresql.refuse(target, History(used=True), opens(cloud))
    transfer.copy(cloud.db, target, WHO, "second")
    with target.read() as conn:
        assert postgresql.unused_copy(conn) == "second"
        assert conn.execute(sa.select(journal.lines.c.id).where(journal.lines.c.resource_id == "made since")).first()


def test_a_used_database_is_refused(cloud: Cloud, target: Database) -> None:
    transfer.copy(cloud.db, target, WHO, "mark")
    with target.write(WHO) as tx:
        postgresql.use_copy(tx.conn)
    before = content(target)
    with pytest.raises(Unsuitable, match="not empty"):
        postgresql.refuse(target, History(used=True, moving=True), opens(cloud))
    with pytest.raises(Unsuitable, match="not empty"):
        transfer.copy(cloud.db, target, WHO, "again")
    assert content(target) == before


def test_another_cloud_is_refused(cloud: Cloud, target: Database, tmp_path: Path) -> None:
    transfer.copy(cloud.db, target, WHO, "mark")
    other = make_cloud(tmp_path / "other")
    with other.db.write(WHO) as tx:
        identity.bootstrap(tx, other, {"admin": "x", "demo": "x"}, program.SERVICES)
    for history in (History(), History(used=True, moving=True), History(used=True, copy="mark")):
        with pytest.raises(Unsuitable, match="another cloud"):
            postgresql.refuse(target, history, opens(other))
    other.db.close()


def test_somebody_elses_tables_are_refused_and_stay(cloud: Cloud, target: Database) -> None:
    with target.write(WHO) as tx:
        tx.execute(sa.text("CREATE TABLE invoices (id int)"))
    for history in (History(), History(used=True, moving=True)):
        with pytest.raises(Unsuitable, match="it has invoices"):
            postgresql.refuse(target, history, opens(cloud))
    with pytest.raises(Unsuitable, match="not empty"):
        transfer.copy(cloud.db, target, WHO, "mark")
    assert names(target) == {"invoices"}


def test_an_empty_database_is_no_home_for_a_cloud_that_has_state(cloud: Cloud, target: Database) -> None:
    postgresql.refuse(target, History(), opens(cloud))
    with pytest.raises(Unsuitable, match="state elsewhere"):
        postgresql.refuse(target, History(used=True), opens(cloud))


def test_a_row_that_does_not_fit_is_named_and_nothing_changes(cloud: Cloud, target: Database) -> None:
    with cloud.db.write(WHO) as tx:
        journal.changed(tx, "thing", "with\0nul", "create")
    with pytest.raises(Unsuitable, match="row of table journal does not fit"):
        transfer.copy(cloud.db, target, WHO, "mark")
    assert names(target) == frozenset()


def test_a_source_at_another_step_is_refused(cloud: Cloud, target: Database) -> None:
    with cloud.db.write(WHO) as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(Unsuitable, match="at step 0001"):
        transfer.copy(cloud.db, target, WHO, "mark")
    assert names(target) == frozenset()


def test_one_copy_at_a_time(cloud: Cloud, target: Database) -> None:
    with target.read() as conn:
        conn.execute(sa.text(f"SELECT pg_advisory_xact_lock({transfer._ONE_AT_A_TIME})"))
        with pytest.raises(Unsuitable, match="another copy"):
            transfer.copy(cloud.db, target, WHO, "mark")
    assert names(target) == frozenset()


def test_a_server_that_will_not_do(cloud: Cloud, started: postgres.Postgres) -> None:
    def complaint(url: str) -> str:
        database = Database(url)
        try:
            with pytest.raises((Unsuitable, Unreachable)) as refused:
                postgresql.refuse(database, History(), opens(cloud))
            return str(getattr(refused.value, "reason", refused.value))
        finally:
            database.close()

    started.sql("CREATE ROLE guest LOGIN")
    url = sa.make_url(started.fresh())
    assert "may not make tables" in complaint(url.set(username="guest").render_as_string(False))
    started.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    assert "encoding LATIN1" in complaint(url.set(database="latin").render_as_string(False))
    assert 'database "absent" does not exist' in complaint(url.set(database="absent").render_as_string(False))
    nobody = complaint("postgresql://somebody:secret-word@127.0.0.1:1/x")
    assert "does not answer" in nobody and "refused" in nobody and "secret-word" not in nobody


def test_a_snapshot_of_postgresql_is_of_one_moment_and_goes_back(cloud: Cloud, target: Database, started: postgres.Postgres, tmp_path: Path) -> None:
    """What a backup holds of a cloud on PostgreSQL: SQLite that is equal row by row, also to what a second PostgreSQL gets of it."""
    transfer.copy(cloud.db, target, WHO, "mark")
    with target.write(WHO) as tx:
        postgresql.use_copy(tx.conn)
        journal.changed(tx, "thing", "of PostgreSQL", "create", ["näme"], {"deep": [1, 2.5, None, {"ключ": "値"}]})
    before, wrote = content(target), list[str]()

    def write_meanwhile(_conn: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM network" in statement and not wrote:
            wrote.append("done")
            with target.write(System("req-meanwhile")) as tx:
                journal.changed(tx, "thing", "meanwhile", "create")
                tx.update(nodes.facts, {"name": "identity_epoch"}, value=77)

    sa.event.listen(target.engine, "after_cursor_execute", write_meanwhile)
    transfer.snapshot(target, tmp_path / "snapshot.db")
    sa.event.remove(target.engine, "after_cursor_execute", write_meanwhile)
    assert wrote and [path.name for path in tmp_path.iterdir() if path.name != "cloud"] == ["snapshot.db"]
    made = Database(f"sqlite:///{tmp_path / 'snapshot.db'}")
    after = content(made)
    assert len(after["journal"]) == len(before["journal"]) and schema.current(made) == schema.head()
    for put_in_order in ("journal", "journal_cursors"):
        del before[put_in_order], after[put_in_order]
    assert after == before
    with made.write(WHO) as tx:
        journal.changed(tx, "thing", "next", "create")
        unread = journal.after(tx, journal.cursor_of(tx, "metering"), 5000)
    assert {"of PostgreSQL", "next"} <= {line.resource_id for line in unread}, "readers miss nothing"
    third = Database(started.fresh())
    transfer.copy(made, third, WHO, "mark")
    assert content(third)["servers"] == before["servers"] and len(content(third)["journal"]) == 1102
    third.close()
    made.close()
