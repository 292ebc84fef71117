"""The worker's threads: as many are woken as there is work, and none too few. Its clock is so slow that every bell must have been heard."""

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from conftest import make_cloud
from fake_node import until
from nacre.core import db, ids, tasks, worker
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.tasks import Run

WHO = System("req-worker")


def _meet(run: Run) -> None:
    """Ends when all that are awaited run at once."""
    run.cloud.memory["met"].wait(20)


def _pass(run: Run) -> None:
    run.here("first", lambda tx: None)
    run.here("last", lambda tx: None)


def _ignore(tx: db.Tx, run: Run, error: Exception) -> None:
    pass


for lane, slow in (("quick", False), ("slow", True)):
    tasks.task(f"{lane}.meet", failed=_ignore, slow=slow)(_meet)
    tasks.task(f"{lane}.pass", failed=_ignore, slow=slow)(_pass)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("worker") / "cloud", database=fresh_database())
    yield made
    made.db.close()


@pytest.fixture
def looks(cloud: Cloud) -> Iterator[list[str]]:
    """Every look that the worker took at the tasks."""
    found: list[str] = []

    def heard(conn: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT tasks.seq, tasks.kind") and "LIMIT" in statement and "FOR UPDATE" not in statement:
            found.append(statement)

    made = worker.Worker(cloud, "here", poll=1000)
    made.start()
    time.sleep(0.3)
    sa.event.listen(cloud.db.engine, "before_cursor_execute", heard)
    yield found
    sa.event.remove(cloud.db.engine, "before_cursor_execute", heard)
    made.stop()


def begin(cloud: Cloud, *kinds: str, resource: str = "") -> None:
    with cloud.db.write(WHO) as tx:
        for kind in kinds:
            tasks.start(tx, kind, resource or f"thing:{ids.uuid()}", {})


def left(cloud: Cloud) -> int:
    with cloud.db.read() as conn:
        return int(conn.execute(sa.select(sa.func.count()).where(tasks.tasks.c.finished_at.is_(None))).scalar_one())


def test_a_bell_without_work_wakes_one(cloud: Cloud, looks: list[str]) -> None:
    for n in range(1, 6):
        cloud.bells.ring({"tasks"})
        until(lambda n=n: len(looks) >= n)
        time.sleep(0.05)
        assert len(looks) == n


def test_one_task_costs_few_looks(cloud: Cloud, looks: list[str]) -> None:
    begin(cloud, "quick.pass")
    until(lambda: left(cloud) == 0)
    time.sleep(0.2)
    assert len(looks) <= 3  # it is found, and its end rings


@pytest.mark.parametrize("lane", ["quick", "slow"])
def test_one_bell_wakes_as_many_as_there_is_work(cloud: Cloud, looks: list[str], lane: str) -> None:
    cloud.memory["met"] = threading.Barrier(4)
    begin(cloud, *[f"{lane}.meet"] * 4)
    until(lambda: left(cloud) == 0, 20)
    assert not cloud.memory["met"].broken


def test_a_full_lane_does_not_hold_up_the_other_and_is_emptied(cloud: Cloud, looks: list[str]) -> None:
    cloud.memory["met"] = threading.Barrier(5)  # four of them, and this test
    begin(cloud, *["slow.meet"] * 4)
    until(lambda: cloud.memory["met"].n_waiting == 4)
    begin(cloud, *["slow.pass"] * 6, *["quick.pass"] * 6)
    until(lambda: left(cloud) == 10)
    cloud.memory["met"].wait(20)
    until(lambda: left(cloud) == 0)


def test_no_bell_is_missed(cloud: Cloud, looks: list[str]) -> None:
    """Tasks come one by one and in heaps, some of them one after another on one resource, from several writers at once."""

    def write(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(8):
            kinds = dice.choices(["quick.pass", "slow.pass"], k=dice.choice([1, 1, 1, 2, 6]))
            begin(cloud, *kinds, resource=dice.choice(["", "", "thing:one"]))
            time.sleep(dice.choice([0, 0, 0.001, 0.02]))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    until(lambda: left(cloud) == 0, 60)
