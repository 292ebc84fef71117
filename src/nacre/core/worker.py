"""The worker's half of durable tasks: claim, run as far as it goes, unwind, renew leases (theory: `tasks.py`).

Races: two workers may look at the same task; the claim is one `UPDATE` in a write transaction. A lease is renewed by a thread of its
own every third of its time; a worker stalled for longer loses the task and notices at its next step. Of a place (a home, which has one
worker at a time) the next worker does not wait for leases: what the one before was running is queued again, and if that one only stalled
it stands down like any other. A database that goes away in the middle of a step is no failure of the task: its thread stands down and,
when the database is back, claims what it still holds; neither is one that cannot take the end of a task that has done all its steps.

A bell says that there may be work, not how much, and most threads sleep when it rings. One of them is woken, *looks* (a read), and takes a
place for what it found; only if there was more than that, or the bell rang since, it wakes the next, and so on: so many are woken as there
is work, and one where there is none. Nobody is forgotten, because all of this is said under one lock:
* Rings are counted. A thread sleeps only while somebody else looks, or the last look (`_seen`) was begun after the last ring and left
  nothing. Who comes from a task asks the same before it sleeps, so a ring that finds nobody asleep needs to wake nobody.
* A ring during a look is not seen by it: whoever looks compares the count after it, and looks again or wakes the next.
* One that was woken and has not come yet (`_called`) looks when it comes, so a second ring needs no second thread.
* What nobody rings for, as a lease that is over or a bell that was lost, is found by the clock, which rings every two seconds.
* A look leaves out the lane (quick or slow tasks) that has no place left; who gives one back there after such a look rings.
* A look that fails is as none: the count was not reached, and whoever failed looks again.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import sqlalchemy as sa

from nacre.core import db, ids, leases, log
from nacre.core.cloud import Cloud
from nacre.core.statements import Statement, given, given_list
from nacre.core.tasks import KINDS, OPEN, Cancelled, Collected, Lost, Parked, Run, StepFailed, steps, tasks

LEASE = 30.0
T = TypeVar("T")
Fault = Callable[[str, str], None]
_log = logging.getLogger("nacre.tasks")


_older = tasks.alias("older")
_blocked = sa.exists().where(_older.c.resource == tasks.c.resource, _older.c.seq < tasks.c.seq, _older.c.state.in_(OPEN))
_due = sa.and_(tasks.c.until.is_not(None), leases.over(tasks.c.boot, tasks.c.until, (given("boot_now"), sa.bindparam("instant", type_=sa.Float))))
_dropped = sa.and_(tasks.c.state == "running", tasks.c.owner == given("asking"))  # who asks runs nothing at the moment
_free = sa.or_(tasks.c.state == "queued", sa.and_(tasks.c.state.in_(("running", "parked")), _due), _dropped)
_next = sa.select(tasks.c.seq, tasks.c.kind).where(
    tasks.c.finished_at.is_(None), tasks.c.kind.in_(given_list("kinds")), _free, ~_blocked).order_by(tasks.c.seq)  # fmt: skip
_RUNNABLE, _HELD = Statement(_next.limit(2)), Statement(_next.limit(1).with_for_update(skip_locked=True))
_TAKE = Statement(tasks.update().where(tasks.c.seq == given("number")).values(
    state="running", owner=given("asking"), boot=given("boot_now"), until=sa.bindparam("end", type_=sa.Float), waiting=None,
    attempt=tasks.c.attempt + 1, updated_at=given("now")))  # fmt: skip
_TASK = Statement(sa.select(tasks).where(tasks.c.seq == given("number")))
_STEPS = Statement(sa.select(steps).where(steps.c.task_id == given("task")))


def _kinds(lanes: Collection[bool]) -> list[str]:
    return [kind.name for kind in KINDS.values() if kind.slow in lanes]


def look(cloud: Cloud, owner: str, lanes: Collection[bool]) -> list[bool]:
    """The lanes (slow or not) of the two oldest tasks in `lanes` that `owner` may claim."""
    with cloud.db.read() as conn:
        boot, instant = leases.now(conn)
        return [KINDS[row.kind].slow for row in _RUNNABLE.rows(conn, boot_now=boot, instant=instant, asking=owner, kinds=_kinds(lanes))]


def claim(cloud: Cloud, owner: str, who: db.Who, lanes: Collection[bool] = (False, True)) -> tuple[db.Row, dict[str, db.Row]] | None:
    """The oldest task in `lanes` that may run, leased to `owner`, with its saved steps."""
    with cloud.db.write(who) as tx:
        boot, instant = leases.now(tx)
        found = _HELD.first(tx, boot_now=boot, instant=instant, asking=owner, kinds=_kinds(lanes))
        if found is None:
            return None
        _TAKE.change(tx, number=found.seq, asking=owner, boot_now=boot, end=instant + LEASE, now=tx.now)
        row = _TASK.first(tx, number=found.seq)
        assert row is not None
        saved = {step.name: step for step in _STEPS.rows(tx, task=row.id)}
    return row, saved


def no_fault(when: str, step: str) -> None:
    pass


def run_one(cloud: Cloud, owner: str, who: db.Who, fault: Fault = no_fault, lanes: Collection[bool] = (False, True)) -> bool:
    """Claim and run one task as far as it goes; False when there was none. Raises db.Unreachable: the task is still `owner`'s.
    `fault(when, step)` is the tests' way in."""
    claimed = claim(cloud, owner, who, lanes)
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
    worker after the other that works there. So many quick tasks may run as there are `threads`, and as many slow ones, so that data that does
    not come never holds up the others."""

    def __init__(self, cloud: Cloud, place: str, threads: int = 4, poll: float = 2.0, fault: Fault = no_fault) -> None:
        self.cloud, self.place, self.poll, self.fault = cloud, place, poll, fault
        self.owner = f"{place}.{ids.hex_id()[:8]}"
        self._lock, self._stopping = threading.Condition(), threading.Event()
        self._rung, self._seen, self._asleep = 1, 0, 0
        self._looking = self._called = False
        self._places, self._left_out = {False: threads, True: threads}, set[bool]()
        cloud.bells.listen("tasks", self._ring)
        self._threads = [threading.Thread(target=self._work, args=(n,), name=f"task-{n}", daemon=True) for n in range(2 * threads)]
        self._threads += [threading.Thread(target=at, name=at.__name__.strip("_"), daemon=True) for at in (self._leases, self._clock)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._lock:
            self._lock.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)

    def _ring(self) -> None:
        with self._lock:
            self._rung += 1
            self._call()

    def _call(self) -> None:
        """Somebody who sleeps should look, unless somebody does or will."""
        if self._asleep and not self._looking and not self._called:
            self._called = True
            self._lock.notify()

    def _clock(self) -> None:
        while not self._stopping.wait(self.poll):
            self._ring()

    def _work(self, number: int) -> None:
        owner, who = f"{self.owner}/{number}", _Idle()
        while not self._stopping.is_set():
            heard = self._to_look()
            lane = self._looked(heard, self._tried(lambda: look(self.cloud, owner, self._open()))) if heard else None
            if lane is None:
                continue
            run = partial(run_one, self.cloud, owner, who, self.fault, (lane,))
            while self._tried(run) is None and not self._stopping.is_set():
                pass  # what it holds it holds still
            self._give_back(lane)

    def _tried(self, do: Callable[[], T]) -> T | None:
        """None half a second after it could not be done."""
        try:
            return do()
        except db.Unreachable:
            pass
        except Exception:
            _log.exception("a task could not be run; it is tried again")
        self._stopping.wait(0.5)
        return None

    def _to_look(self) -> int:
        """Sleeps until it is this thread's turn to look; how often the bell had rung by then. 0 at the end."""
        with self._lock:
            while not self._stopping.is_set() and (self._looking or self._seen == self._rung):
                self._asleep += 1
                self._lock.wait()
                self._asleep -= 1
                self._called = False
            if self._stopping.is_set():
                return 0
            self._looking = True
            return self._rung

    def _open(self) -> list[bool]:
        """The lanes that a look looks at."""
        with self._lock:
            self._left_out |= {lane for lane, places in self._places.items() if not places}
            return [lane for lane, places in self._places.items() if places]

    def _looked(self, heard: int, found: list[bool] | None) -> bool | None:
        """The lane in which this thread has a place now, if there was work."""
        with self._lock:
            self._looking = False
            if found is not None and len(found) < 2:
                self._seen = heard
            if not found:
                return None
            if self._seen != self._rung:
                self._call()
            self._places[found[0]] -= 1
            return found[0]

    def _give_back(self, lane: bool) -> None:
        with self._lock:
            self._places[lane] += 1
            if lane in self._left_out:
                self._left_out.discard(lane)
                self._rung += 1

    def _inherit(self) -> None:
        of_us = tasks.c.owner.startswith(f"{self.place}.", autoescape=True)
        left = sa.and_(tasks.c.state == "running", of_us, ~tasks.c.owner.startswith(f"{self.owner}/", autoescape=True))
        with self.cloud.db.write(_Idle()) as tx:
            if tx.execute(tasks.update().where(left).values(state="queued", owner=None, updated_at=tx.now)).rowcount:
                tx.ring("tasks")

    def _leases(self) -> None:
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
