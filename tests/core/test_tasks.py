"""Durable tasks: a toy cloud service whose steps write rows and call a node, under the harness."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import make_cloud
from core import durability as harness
from fake_node import until
from nacre.core import db, leases, nodes, tasks, worker
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.tasks import Run, StepFailed

WHO = System("req-toy")
toys = sa.Table("toys", sa.MetaData(), sa.Column("id", sa.String(36), primary_key=True), sa.Column("state", sa.String(16)), sa.Column("writes",
    sa.Integer))


def _set(tx: db.Tx, toy: str, state: str) -> str:
    tx.update(toys, {"id": toy}, state=state, writes=toys.c.writes + 1)
    return state


def _failed(tx: db.Tx, run: Run, error: Exception) -> None:
    _set(tx, run.args["id"], "cancelled" if isinstance(error, tasks.Cancelled) else "error")


@tasks.task("toy.make", failed=_failed)
def make(run: Run) -> None:
    toy = run.args["id"]
    run.here("first", lambda tx: _set(tx, toy, "begun"), undo=lambda tx, result: _set(tx, toy, f"not {result}") and None)
    run.node("build", "toybox", nodes.NewCall("ensure_toy", {"id": toy}), undo=nodes.NewCall("absent_toy", {"id": toy}))
    run.wait("dry", "h", lambda conn: None, lambda conn, _: "dry" if toy in run.cloud.memory["wet"] else None, 60)
    run.here("last", lambda tx: _set(tx, toy, "done"))


@tasks.task("toy.paint", failed=_failed)
def paint(run: Run) -> None:
    toy = run.args["id"]
    run.node("build", "toybox", nodes.NewCall("ensure_toy", {"id": toy}), undo=nodes.NewCall("absent_toy", {"id": toy}))
    run.here("first", lambda tx: _set(tx, toy, "primed"))
    run.last("last", lambda tx: _set(tx, toy, "done"))


class Toybox:
    """The node: makes and takes away toys, and counts."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.here, self.calls = cloud, set[str](), Counter[str]()

    def act(self, stage: harness.Stage) -> bool:
        with self.cloud.db.read() as conn:
            calls = nodes.open_calls(conn, "toybox")
        for call in calls:
            self.calls[call.verb] += 1
            ok = call.verb not in stage.refuse
            if ok:
                (self.here.add if call.verb == "ensure_toy" else self.here.discard)(call.args["id"])
            with self.cloud.db.write(WHO) as tx:
                nodes.finish(tx, call.id, ok, {}, "" if ok else "no", "")
                tasks.wake(tx, f"call:{call.id}")
        return bool(calls)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[Toybox]:
    cloud = make_cloud(tmp_path_factory.mktemp("toys") / "cloud", database=fresh_database())
    toys.create(cloud.db.engine)
    cloud.memory["wet"] = set()
    yield Toybox(cloud)
    cloud.db.close()


@pytest.fixture
def stage(box: Toybox) -> harness.Stage:
    return harness.Stage(box.cloud, box.act)


_number = iter(range(10**6))


def begin(box: Toybox, kind: str = "toy.make") -> str:
    toy = f"toy-{next(_number)}"
    with box.cloud.db.write(WHO) as tx:
        tx.insert(toys, id=toy, state="new", writes=0)
        tasks.start(tx, kind, f"toy:{toy}", {"id": toy})
    return toy


def row(box: Toybox, toy: str) -> Any:
    with box.cloud.db.read() as conn:
        return conn.execute(sa.select(toys).where(toys.c.id == toy)).one()


def check(box: Toybox, toy: str, well: bool) -> None:
    found = row(box, toy)
    assert found.state == ("done" if well else "error")
    assert (toy in box.here) == well
    if well:
        assert found.writes == 2  # each `here` exactly once, whatever was killed


def test_every_kill_ends_the_same(box: Toybox, stage: harness.Stage) -> None:
    assert harness.killed_at_every_boundary(stage, lambda: begin(box), lambda toy, well: check(box, toy, well)) == 8


def test_every_failure_takes_back_what_was_done(box: Toybox, stage: harness.Stage) -> None:
    assert harness.every_step_failed(stage, lambda: begin(box), lambda toy, well: check(box, toy, well)) > 12


def test_the_last_step_and_the_end_are_one(box: Toybox, stage: harness.Stage) -> None:
    harness.killed_at_every_boundary(stage, lambda: begin(box, "toy.paint"), lambda toy, well: check(box, toy, well))
    harness.every_step_failed(stage, lambda: begin(box, "toy.paint"), lambda toy, well: check(box, toy, well))
    toy = begin(box, "toy.paint")
    harness.settle(stage)
    with box.cloud.db.read() as conn:
        task = tasks.history(conn, f"toy:{toy}")[0]
        last = {step.name: step for step in tasks.steps_of(conn, task.id)}["last"]
    assert task.state == "done" and task.finished_at == last.finished_at


def test_only_what_was_waited_for_wakes(box: Toybox, stage: harness.Stage) -> None:
    """A wait that is over at the first look never sleeps; one that is not sleeps until its own topic rings."""
    quick, slow = begin(box), begin(box)
    box.cloud.memory["wet"].add(slow)
    harness.settle(stage)
    assert (row(box, quick).state, row(box, slow).state) == ("done", "begun")
    with box.cloud.db.write(WHO) as tx:
        tasks.wake(tx, "wet", "rain")
    box.cloud.memory["wet"].discard(slow)
    harness.settle(stage)
    assert row(box, slow).state == "begun", "nothing that it waits for rang"
    with box.cloud.db.write(WHO) as tx:
        tasks.wake(tx, "wind", "dry")
    harness.settle(stage)
    assert row(box, slow).state == "done"


def test_a_node_that_refuses(box: Toybox, stage: harness.Stage) -> None:
    harness.every_call_refused(stage, lambda: begin(box), lambda toy, well: check(box, toy, well), ("ensure_toy",))


def test_a_wait_that_is_over_fails_and_one_that_came_later_does_not_count(box: Toybox, stage: harness.Stage) -> None:
    toy = begin(box)
    box.cloud.memory["wet"].add(toy)
    harness.settle(stage)
    assert row(box, toy).state == "begun"
    harness.expire_waits(box.cloud)
    harness.settle(stage, harness.Plan(kill=("after", "failed")))
    box.cloud.memory["wet"].clear()
    harness.settle(stage)
    check(box, toy, False)


def test_tasks_of_one_resource_run_in_order(box: Toybox, stage: harness.Stage) -> None:
    toy = begin(box)
    with box.cloud.db.write(WHO) as tx:
        second = tasks.start(tx, "toy.make", f"toy:{toy}", {"id": toy})
    worker.run_one(box.cloud, "a", WHO)
    worker.run_one(box.cloud, "b", WHO)
    with box.cloud.db.read() as conn:
        assert tasks.steps_of(conn, second) == []
    harness.settle(stage)
    with box.cloud.db.read() as conn:
        assert [task.state for task in tasks.history(conn, f"toy:{toy}")] == ["done", "done"]


def test_cancel_at_every_boundary_takes_everything_back(box: Toybox, stage: harness.Stage) -> None:
    boundaries = list(dict.fromkeys(harness.clean(stage, lambda: begin(box), lambda toy, well: check(box, toy, well))))
    for boundary in boundaries[:-1]:
        toy = begin(box)
        plan = _Cancelling(at=boundary, box=box, toy=toy)
        harness.settle(stage, plan)
        assert row(box, toy).state == "cancelled", boundary
        assert toy not in box.here


class _Cancelling(harness.Plan):
    def __init__(self, at: harness.Boundary, box: Toybox, toy: str) -> None:
        super().__init__()
        self.at, self.box, self.toy = at, box, toy

    def __call__(self, when: str, step: str) -> None:
        if (when, step) == self.at:
            with self.box.cloud.db.write(WHO) as tx:
                tasks.cancel(tx, f"toy:{self.toy}")
            self.at = ("", "")
        super().__call__(when, step)


def test_who_lost_the_lease_stands_down_and_undoes_nothing(box: Toybox, stage: harness.Stage) -> None:
    toy = begin(box)

    class Stolen(harness.Plan):
        def __call__(self, when: str, step: str) -> None:
            if (when, step) == ("before", "last"):
                with box.cloud.db.write(WHO) as tx:
                    tx.update(tasks.tasks, {"resource": f"toy:{toy}"}, owner="somebody", until=leases.now(tx)[1] + 1000)

    harness.settle(stage, Stolen())
    assert (row(box, toy).state, toy in box.here) == ("begun", True)
    with box.cloud.db.write(WHO) as tx:
        tx.update(tasks.tasks, {"resource": f"toy:{toy}"}, until=0.0)
    harness.settle(stage)
    check(box, toy, True)


def test_the_next_worker_of_a_place_goes_on_at_once_and_one_that_only_stalled_stands_down(box: Toybox, stage: harness.Stage) -> None:
    toy, stalled, go_on = begin(box), threading.Event(), threading.Event()

    def fault(when: str, step: str) -> None:
        if (when, step) == ("before", "last"):
            stalled.set()
            go_on.wait(30)

    first, second = worker.Worker(box.cloud, "here", threads=1, fault=fault), worker.Worker(box.cloud, "here", threads=1)
    first.start()
    until(lambda: stage.act(stage) or stalled.is_set())
    until(stalled.is_set)
    begun = time.monotonic()
    second.start()
    until(lambda: row(box, toy).state == "done")
    assert time.monotonic() - begun < worker.LEASE / 3
    go_on.set()
    first.stop()
    second.stop()
    check(box, toy, True)


def test_a_task_whose_end_cannot_be_written_now_is_not_undone(box: Toybox, stage: harness.Stage) -> None:
    toy, refused = begin(box), []

    def full(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE tasks") and "finished_at" in statement.partition("WHERE")[0] and not refused:
            refused.append(statement)
            raise OSError("there is no room")

    sa.event.listen(box.cloud.db.engine, "before_cursor_execute", full)
    try:
        with pytest.raises(OSError):
            while worker.run_one(box.cloud, "a/0", WHO) or stage.act(stage):
                pass
    finally:
        sa.event.remove(box.cloud.db.engine, "before_cursor_execute", full)
    check(box, toy, True)
    assert worker.run_one(box.cloud, "a/0", WHO)
    with box.cloud.db.read() as conn:
        assert tasks.history(conn, f"toy:{toy}")[0].state == "done"
    check(box, toy, True)


def test_a_call_that_ends_while_its_task_goes_to_sleep_again(box: Toybox, stage: harness.Stage) -> None:
    toy, reports = begin(box, "toy.paint"), list[threading.Thread]()
    assert worker.run_one(box.cloud, "a/0", WHO)
    with box.cloud.db.write(WHO) as tx:
        call, = nodes.open_calls(tx, "toybox")
        tasks.wake(tx, f"call:{call.id}")

    def report(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE tasks") and "waiting" in statement and "attempt" not in statement and not reports:
            reports.append(threading.Thread(target=box.act, args=(stage,)))
            reports[0].start()
            reports[0].join(0.5)  # it is done, or waits for us

    sa.event.listen(box.cloud.db.engine, "before_cursor_execute", report)
    try:
        assert worker.run_one(box.cloud, "a/0", WHO)
    finally:
        sa.event.remove(box.cloud.db.engine, "before_cursor_execute", report)
    reports[0].join()
    harness.settle(stage)
    assert row(box, toy).state == "done"


def test_what_a_node_says_reaches_the_task(box: Toybox, stage: harness.Stage) -> None:
    stage.refuse = {"ensure_toy"}
    toy = begin(box)
    harness.settle(stage)
    with box.cloud.db.read() as conn:
        assert tasks.history(conn, f"toy:{toy}")[0].error == {"message": "no", "detail": ""}


def test_an_unknown_task_is_refused_at_once(box: Toybox) -> None:
    with pytest.raises(KeyError), box.cloud.db.write(WHO) as tx:
        tasks.start(tx, "toy.unknown", "toy:x", {})
    assert issubclass(tasks.Cancelled, StepFailed)


@tasks.task("toy.fetch", failed=_failed, slow=True)
def fetch(run: Run) -> None:
    run.here("first", lambda tx: _set(tx, run.args["id"], "fetched"))


def test_slow_tasks_have_threads_of_their_own(box: Toybox) -> None:
    """What waits for data never stands before what does not, nor the other way round."""
    with box.cloud.db.write(WHO) as tx:
        for toy, kind in (("slow-1", "toy.fetch"), ("quick-1", "toy.make")):
            tx.insert(toys, id=toy, state="new", writes=0)
            tasks.start(tx, kind, f"toy:{toy}", {"id": toy})
    box.cloud.memory.setdefault("wet", set())
    quick = worker.claim(box.cloud, "a", WHO, lanes=(False,))
    slow = worker.claim(box.cloud, "b", WHO, lanes=(True,))
    assert (quick and quick[0].kind, slow and slow[0].kind) == ("toy.make", "toy.fetch")
    assert worker.claim(box.cloud, "c", WHO, lanes=(False,)) is None
    assert worker.claim(box.cloud, "d", WHO, lanes=(True,)) is None
    with box.cloud.db.write(WHO) as tx:
        tx.execute(tasks.tasks.update().values(state="done", finished_at=tx.now))
