"""The worker's half of durable tasks: claim, run as far as it goes, unwind, renew leases (theory: `tasks.py`).

Races: two workers may look at the same task; the claim is one `UPDATE` in a write transaction. A lease is renewed by a thread of its
own every third of its time; a worker stalled for longer loses the task and notices at its next step. Of a place (a home, which has one
worker at a time) the next worker does not wait for leases: what the one before was running is queued again, and if that one only stalled
it stands down like any other. A database that goes away in the middle of a step is no failure of the task: its thread stands down and,
when the database is back, claims what it still holds; neither is one that cannot take the end of a task that has done all its steps.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, leases, log
from nacre.core.cloud import Cloud
from nacre.core.statements import Statement, given, given_list
from nacre.core.tasks import KINDS, OPEN, Cancelled, Collected, Lost, Parked, Run, StepFailed, steps, tasks

LEASE = 30.0
Fault = Callable[[str, str], None]
_log = logging.getLogger("nacre.tasks")


_older = tasks.alias("older")
_blocked = sa.exists().where(_older.c.resource == tasks.c.resource, _older.c.seq < tasks.c.seq, _older.c.state.in_(OPEN))
_due = sa.and_(tasks.c.until.is_not(None), leases.over(tasks.c.boot, tasks.c.until, (given("boot_now"), sa.bindparam("instant", type_=sa.Float))))
_dropped = sa.and_(tasks.c.state == "running", tasks.c.owner == given("asking"))  # who asks runs nothing at the moment
_free = sa.or_(tasks.c.state == "queued", sa.and_(tasks.c.state.in_(("running", "parked")), _due), _dropped)
_next = sa.select(tasks.c.seq).where(
    tasks.c.finished_at.is_(None), tasks.c.kind.in_(given_list("kinds")), _free, ~_blocked).order_by(tasks.c.seq).limit(1)  # fmt: skip
_RUNNABLE, _HELD = Statement(_next), Statement(_next.with_for_update(skip_locked=True))
_TAKE = Statement(tasks.update().where(tasks.c.seq == given("number")).values(
    state="running", owner=given("asking"), boot=given("boot_now"), until=sa.bindparam("end", type_=sa.Float), waiting=None,
    attempt=tasks.c.attempt + 1, updated_at=given("now")))  # fmt: skip
_TASK = Statement(sa.select(tasks).where(tasks.c.seq == given("number")))
_STEPS = Statement(sa.select(steps).where(steps.c.task_id == given("task")))


def claim(cloud: Cloud, owner: str, who: db.Who, slow: bool | None = None) -> tuple[db.Row, dict[str, db.Row]] | None:
    """The oldest task that may run, leased to `owner`, with its saved steps. `slow`: of such kinds only, or of no such kind (None: any)."""
    lane: dict[str, Any] = {"asking": owner, "kinds": [kind.name for kind in KINDS.values() if slow in (None, kind.slow)]}
    with cloud.db.read() as conn:
        boot, instant = leases.now(conn)
        if _RUNNABLE.first(conn, boot_now=boot, instant=instant, **lane) is None:
            return None
    with cloud.db.write(who) as tx:
        boot, instant = leases.now(tx)
        found = _HELD.first(tx, boot_now=boot, instant=instant, **lane)
        if found is None:
            return None
        _TAKE.change(tx, number=found.seq, asking=owner, boot_now=boot, end=instant + LEASE, now=tx.now)
        row = _TASK.first(tx, number=found.seq)
        assert row is not None
        saved = {step.name: step for step in _STEPS.rows(tx, task=row.id)}
    return row, saved


def no_fault(when: str, step: str) -> None:
    pass


def run_one(cloud: Cloud, owner: str, who: db.Who, fault: Fault = no_fault, *, slow: bool | None = None) -> bool:
    """Claim and run one task as far as it goes; False when there was none. Raises db.Unreachable: the task is still `owner`'s.
    `fault(when, step)` is the tests' way in."""
    claimed = claim(cloud, owner, who, slow)
    if claimed is None:
        return False
    row, saved = claimed
    named = log.request_id.set(row.request_id)
    run = Run(cloud, row, saved, fault)
    failing = saved.get("failed")
    try:
        if failing is None:
            try:
                KINDS[row.kind].function(run)
            except db.Unreachable:
                raise
            except Exception as error:
                _unwind(run, error, recorded=False)
            else:
                run.end("done", None)
        else:
            _collect(run, KINDS[row.kind].function)
            told = failing.result
            _unwind(run, (Cancelled if told["cancelled"] else StepFailed)(told["message"], told["detail"]), recorded=True)
    except (Parked, Lost):
        pass
    finally:
        log.request_id.reset(named)
    return True


def _unwind(run: Run, error: Exception, recorded: bool) -> None:
    if not isinstance(error, StepFailed):
        _log.error("task %s (%s) failed", run.id, run.kind, exc_info=error)
    run.phase = "undoing"
    if not recorded:
        cancelled = isinstance(error, Cancelled)
        run.here("failed", lambda tx: {"message": str(error), "detail": getattr(error, "detail", ""), "cancelled": cancelled})
    run.unwind()
    run.end("failed", error)


def _collect(run: Run, function: Callable[[Run], None]) -> None:
    """Passes the begun steps again to know their undos."""
    run.phase = "collecting"
    try:
        function(run)
    except db.Unreachable:
        raise
    except (Collected, Exception):  # whatever made it fail may happen again; the undos of the steps before are known by then
        pass


class Worker:
    """Threads that run tasks until told to stop; woken by the bell `tasks`, and by the clock for what no bell told. `place` names the one
    worker after the other that works there. Slow tasks have as many threads of their own, so that data that does not come never holds up
    the others."""

    def __init__(self, cloud: Cloud, place: str, threads: int = 4, poll: float = 2.0, fault: Fault = no_fault) -> None:
        self.cloud, self.place, self.poll, self.fault = cloud, place, poll, fault
        self.owner = f"{place}.{ids.hex_id()[:8]}"
        self._wake = threading.Condition()
        self._rung, self._stopping = 0, threading.Event()
        cloud.bells.listen("tasks", self._ring)
        lanes = [False] * threads + [True] * threads
        self._threads = [threading.Thread(target=self._work, args=(n, each), name=f"task-{n}", daemon=True) for n, each in enumerate(lanes)]
        self._threads.append(threading.Thread(target=self._renew, name="leases", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)

    def _ring(self) -> None:
        with self._wake:
            self._rung += 1
            self._wake.notify_all()

    def _work(self, number: int, slow: bool) -> None:
        owner, who = f"{self.owner}/{number}", _Idle()
        while not self._stopping.is_set():
            heard = self._rung
            try:
                if run_one(self.cloud, owner, who, self.fault, slow=slow):
                    continue
            except db.Unreachable:
                clock_wait = 0.5
            except Exception:
                _log.exception("a task could not be run; it is tried again")
                clock_wait = 0.5
            else:
                clock_wait = self.poll + number % 4
            with self._wake:
                if self._rung == heard and not self._stopping.is_set():
                    self._wake.wait(clock_wait)

    def _inherit(self) -> None:
        of_us = tasks.c.owner.startswith(f"{self.place}.", autoescape=True)
        left = sa.and_(tasks.c.state == "running", of_us, ~tasks.c.owner.startswith(f"{self.owner}/", autoescape=True))
        with self.cloud.db.write(_Idle()) as tx:
            if tx.execute(tasks.update().where(left).values(state="queued", owner=None, updated_at=tx.now)).rowcount:
                tx.ring("tasks")

    def _renew(self) -> None:
        inherited = False
        while not inherited and not self._stopping.is_set():
            try:
                self._inherit()
                inherited = True
            except db.Unreachable:
                self._stopping.wait(0.5)
        mine = tasks.c.owner.startswith(f"{self.owner}/", autoescape=True)
        while not self._stopping.wait(LEASE / 3):
            try:
                with self.cloud.db.read() as conn:
                    if conn.execute(sa.select(tasks.c.seq).where(tasks.c.state == "running", mine).limit(1)).first() is None:
                        continue
                with self.cloud.db.write(_Idle()) as tx:
                    tx.execute(tasks.update().where(tasks.c.state == "running", mine).values(until=leases.now(tx)[1] + LEASE))
            except db.Unreachable:
                pass
            except Exception:
                _log.exception("leases could not be renewed")


@dataclass(frozen=True)
class _Idle:
    request_id: str = "-"
    user_id: str | None = None
    project_id: str | None = None
