"""Durable tasks: what was asked once and takes more than one step.

A request writes its rows and a task in one transaction; a worker claims the task and runs its function from the top. The function is
ordinary code whose effects are *steps*; a step that is done is not done again, its stored result is returned, so after a crash the
function simply runs anew:

    run.here(name, do)         database only: `do(tx)` and the step's row are one transaction - exactly once
    run.last(name, do)         the same, and the task's end is in that transaction, too
    run.work(name, make, do)   long work of this process on files or other hosts, outside a transaction (`make`, at least once), then its
                               outcome (`do(tx, made)`) with the step's row - exactly once; kinds that have such steps are `slow`
    run.node(name, host, ...)  on a node: the call is a row written with the step, then the task is *parked* (no thread, no lease)
                               until the report re-queues it - at least once, so node verbs are ensure_x / absent_x
    run.wait(name, host, ...)  until nothing is missing, looked at when the topic of what was missing wakes the task, now and then, and when
                               the host that has to do it dies; what is there at the first look is no transaction of its own

A step may carry an `undo`; when the task fails or is cancelled the undos of every begun step run in reverse, as steps themselves.

Races: tasks of one resource run strictly in the order they were made (an older open task of the resource blocks the younger).
A worker holds a running task by a lease; every step's transaction proves the lease first, and a worker that lost it stands down
and undoes nothing (`Lost`). `cancel` marks the open tasks of a resource; the mark is looked at on each step border.
The hook `failed(tx, run, error)` is written in the transaction that ends the task.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from nacre.core import db, ids, leases, nodes
from nacre.core.cloud import Cloud
from nacre.core.statements import Statement, given, given_list

OPEN = ("queued", "running", "parked")
_AT_ONCE = 200
LOOK_AGAIN = 5.0
"""Seconds after which a task that waits looks again, whatever woke it or did not."""
_log = logging.getLogger("nacre.tasks")

tasks = sa.Table(
    "tasks", db.metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("resource", sa.String(128), nullable=False, index=True),
    sa.Column("request_id", sa.String(64), nullable=False, index=True),
    sa.Column("user_id", sa.String(64)),
    sa.Column("project_id", sa.String(64)),
    sa.Column("args", db.Json, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),          # request: queued; worker: the rest
    sa.Column("cancelling", sa.Boolean, nullable=False),        # the verb that cancels
    sa.Column("owner", sa.String(64)),
    sa.Column("boot", sa.String(64)),
    sa.Column("until", sa.Float),                               # running: lease; parked: wake at the latest
    sa.Column("waiting", sa.String(128)),                       # parked: the topic that wakes it
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("finished_at", sa.DateTime),
    sa.Column("error", db.Json),
    sa.Index("ix_tasks_open", "state", "seq", sqlite_where=sa.text("finished_at IS NULL"), postgresql_where=sa.text("finished_at IS NULL")),
    sa.Index("uq_tasks_running", "resource", unique=True, sqlite_where=sa.text("state = 'running'"), postgresql_where=sa.text("state = 'running'")),
)  # fmt: skip
steps = sa.Table(
    "task_steps", db.metadata,
    sa.Column("task_id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),          # waiting, done, failed
    sa.Column("host", sa.String(255)),
    sa.Column("call_id", sa.String(36)),
    sa.Column("result", db.Json),
    sa.Column("until", sa.Float),
    sa.Column("boot", sa.String(64)),
    sa.Column("started_at", sa.DateTime, nullable=False),
    sa.Column("finished_at", sa.DateTime),
)  # fmt: skip


class StepFailed(Exception):
    """A step could not be done; the message is for the resource's owner, `detail` for the operator."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class HostDown(StepFailed):
    """The host that a step waited for has died."""


class Cancelled(StepFailed):
    """The task was told to stop (its resource is being deleted)."""


class Lost(BaseException):
    """Somebody else has the task now: stand down, undo nothing."""


class Parked(BaseException):
    """The task waits; it will be run from the top again."""


class Collected(BaseException):
    """All steps that had begun were passed again, to know their undos."""


Function = Callable[["Run"], None]
Wanted = Callable[[sa.Connection], Any]
Missing = Callable[[sa.Connection, Any], str | None]
Failed = Callable[[db.Tx, "Run", Exception], None]


T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """`slow`: it may hold a worker's thread for as long as data takes to come; such tasks have threads of their own."""

    name: str
    function: Function
    failed: Failed
    slow: bool = False


KINDS: dict[str, Kind] = {}


def task(name: str, failed: Failed, *, slow: bool = False) -> Callable[[Function], Function]:
    """Registers a task function under `name` ("compute.create_server")."""

    def register(function: Function) -> Function:
        KINDS[name] = Kind(name, function, failed, slow)
        return function

    return register


def start(tx: db.Tx, kind: str, resource: str, args: Mapping[str, Any]) -> str:
    """A new task on `resource` ("server:<id>"), in the caller's transaction. Its id."""
    if kind not in KINDS:
        raise KeyError(f"no task is called {kind}")
    task_id = ids.uuid()
    tx.insert(tasks, id=task_id, kind=kind, resource=resource, request_id=tx.who.request_id, user_id=tx.who.user_id,
              project_id=tx.who.project_id, args=dict(args), state="queued", cancelling=False, attempt=0,
              created_at=tx.now, updated_at=tx.now)  # fmt: skip
    tx.ring("tasks")
    return task_id


def held(tx: db.Tx, resource: str) -> None:
    """Its open tasks stay as they are until the transaction ends. A step holds its task before what it changes, so whoever cancels does, too."""
    tx.lock(sa.select(tasks.c.seq).where(tasks.c.resource == resource, tasks.c.state.in_(OPEN)).order_by(tasks.c.seq), "change")


def cancel(tx: db.Tx, resource: str) -> int:
    """Marks the open tasks of `resource` cancelling and wakes the parked ones; they follow their undo. How many there were."""
    tx.execute(tasks.update().where(tasks.c.resource == resource, tasks.c.state == "parked").values(state="queued", waiting=None))
    found = tx.execute(tasks.update().where(tasks.c.resource == resource, tasks.c.state.in_(OPEN)).values(cancelling=True, updated_at=tx.now))
    tx.ring("tasks")
    return int(found.rowcount)


def wake(tx: db.Tx, *topics: str) -> None:
    """Re-queues the tasks parked on any of `topics`."""
    for start in range(0, len(topics), _AT_ONCE):
        if _WAKE.change(tx, topics=topics[start : start + _AT_ONCE]):
            tx.ring("tasks")


def _waits() -> sa.Select[Any]:
    """Steps of open tasks that wait for a host, calls aside."""
    unfinished = sa.and_(tasks.c.state.in_(OPEN), tasks.c.finished_at.is_(None))
    waiting = sa.and_(steps.c.state == "waiting", steps.c.call_id.is_(None), steps.c.host.is_not(None))
    join = steps.join(tasks, tasks.c.id == steps.c.task_id)
    return sa.select(steps.c.task_id, steps.c.name, steps.c.host).select_from(join).where(unfinished, waiting)


def waited_for(conn: db.Conn) -> set[str]:
    return {row.host for row in conn.execute(_waits())}


def host_died(tx: db.Tx, host: str, why: str) -> None:
    """What waits for `host` does so in vain: the steps have failed, their tasks go on."""
    for step in tx.all(_waits().where(steps.c.host == host)):
        values = {"state": "failed", "result": {"error": why}, "finished_at": tx.now}
        tx.update(steps, {"task_id": step.task_id, "name": step.name, "state": "waiting"}, **values)
        tx.update(tasks, {"id": step.task_id, "state": "parked"}, state="queued", waiting=None)
    tx.ring("tasks")


def is_open(conn: db.Conn, resource: str) -> bool:
    """Whether a task of `resource` is under way; reconciling loops keep their hands off meanwhile (law 9)."""
    return conn.execute(sa.select(tasks.c.seq).where(tasks.c.resource == resource, tasks.c.state.in_(OPEN)).limit(1)).first() is not None


def history(conn: db.Conn, resource: str) -> list[db.Row]:
    """The tasks of a resource, newest first (instance actions read this)."""
    return list(conn.execute(sa.select(tasks).where(tasks.c.resource == resource).order_by(tasks.c.seq.desc())))


def steps_of(conn: db.Conn, task_id: str) -> list[db.Row]:
    return list(conn.execute(sa.select(steps).where(steps.c.task_id == task_id).order_by(steps.c.seq)))


_parked = sa.and_(tasks.c.finished_at.is_(None), tasks.c.state == "parked")  # the first for the index, which has no others
_WAKE = Statement(tasks.update().where(_parked, tasks.c.waiting.in_(given_list("topics"))).values(state="queued", waiting=None))
_STEP = Statement(sa.select(steps).where(steps.c.task_id == given("id"), steps.c.name == given("name")))
_CANCELLING = Statement(sa.select(tasks.c.cancelling).where(tasks.c.id == given("id")))
_MINE = Statement(sa.select(tasks.c.cancelling).where(
    tasks.c.id == given("id"), tasks.c.state == "running", tasks.c.owner == given("owner"), tasks.c.attempt == given("attempt"),
).with_for_update())  # fmt: skip


class Run:
    """One run of a task by one worker. It is the transaction's `who`: changes carry the request that asked for them."""

    def __init__(self, cloud: Cloud, row: db.Row, saved: Mapping[str, db.Row], fault: Callable[[str, str], None]) -> None:
        self.cloud, self.id, self.kind, self.resource = cloud, row.id, row.kind, row.resource
        self.args: Mapping[str, Any] = row.args
        self.request_id, self.user_id, self.project_id = row.request_id, row.user_id, row.project_id
        self.owner, self.attempt = row.owner, row.attempt
        self._saved, self._fault = dict(saved), fault
        self._finished: dict[str, Any] = {}
        self._passed: dict[str, str] = {}
        self.over = False
        self._undo: list[tuple[str, Callable[[], None]]] = []
        self.phase = "doing"  # or finishing (it cannot be cancelled), collecting, undoing, ending
        self._heeded = time.monotonic()

    def here(self, name: str, do: Callable[[db.Tx], Any], undo: Callable[[db.Tx, Any], None] | None = None) -> Any:
        """`do(tx)` once, with its JSON result stored in the same transaction. `undo(tx, result)` if the task fails later."""
        row = self._begun(name)
        if row is None:
            self._fault("before", name)
            result = db.again(lambda: self._do_here(name, do))
            self._fault("after", name)
        else:
            result = row.result
        if undo is not None:
            self._undo.append((name, lambda: self.here(f"undo:{name}", lambda tx: undo(tx, result))))
        return result

    def _do_here(self, name: str, do: Callable[[db.Tx], Any]) -> Any:
        with self._write() as tx:
            result = do(tx)
            self._record(tx, name, state="done", result=result, finished_at=tx.now)
        return result

    def last(self, name: str, do: Callable[[db.Tx], Any]) -> None:
        """`here`, with which the task is done."""
        if self._begun(name) is None:
            self._fault("before", name)
            db.again(lambda: self._do_last(name, do))
            self._fault("after", name)

    def _do_last(self, name: str, do: Callable[[db.Tx], Any]) -> None:
        with self._write() as tx:
            result = do(tx)
            self._record(tx, name, state="done", result=result, finished_at=tx.now)
            self._close(tx, "done", None)
        self.over = True

    def work(self, name: str, make: Callable[[], AbstractContextManager[T]], do: Callable[[db.Tx, T], Any],
             undo: Callable[[db.Tx, Any], None] | None = None) -> Any:  # fmt: skip
        """What `make()` gives when it is entered goes to `do(tx, made)` once, and `make()` is left when that is committed, or came to
        nothing. `make` calls `heed` now and then."""
        row = self._begun(name)
        if row is None:
            self._fault("before", name)
            with make() as made:
                self._fault("within", name)
                result = db.again(lambda: self._do_here(name, lambda tx: do(tx, made)))
            self._fault("after", name)
        else:
            result = row.result
        if undo is not None:
            self._undo.append((name, lambda: self.here(f"undo:{name}", lambda tx: undo(tx, result))))
        return result

    def heed(self) -> None:
        """For long work: whether it is still wanted, and still ours, looked at once a second. Raises Cancelled and Lost."""
        if time.monotonic() - self._heeded < 1:
            return
        self._heeded = time.monotonic()
        with self.cloud.db.read() as conn:
            row = conn.execute(sa.select(tasks.c.cancelling, tasks.c.owner, tasks.c.attempt).where(tasks.c.id == self.id)).first()
        if row is None or (row.owner, row.attempt) != (self.owner, self.attempt):
            raise Lost
        if row.cancelling and self.phase == "doing":
            raise Cancelled("The request was cancelled.")

    def node(self, name: str, host: str, call: nodes.NewCall, undo: nodes.NewCall | None = None, *, no_return: bool = False) -> Any:
        """The value of a call to a node. Raises StepFailed with what the node said. `no_return`: once it is sent, nobody cancels the task
        any more."""
        row = self._begun(name)
        if row is not None and no_return and self.phase == "doing":
            self.phase = "finishing"
        if undo is not None:
            self._undo.append((name, lambda: self._undo_on_node(name, host, undo)))
        if row is None:
            self._fault("before", name)
            db.again(lambda: self._send(name, host, call))
            self._fault("after", name)
            raise Parked
        with self.cloud.db.read() as conn:
            state, value, error, detail = nodes.outcome(conn, row.call_id)
        if state == "open":
            self._may_wait()
            # Held: who finishes it wakes only tasks that are parked by then, and no clock would wake this one.
            open_ = partial(nodes.outcome, call_id=row.call_id, held=True)
            db.again(lambda: self._park(lambda conn: f"call:{row.call_id}" if open_(conn)[0] == "open" else None, None))
            raise Parked
        if state != "done":
            raise StepFailed(error or "the node gave no reason", detail or "")
        if row.state == "waiting" and self.phase != "collecting":
            self._finish_step(name, value)
        return value

    def _send(self, name: str, host: str, call: nodes.NewCall) -> None:
        with self._write() as tx:
            call_id = nodes.call(tx, host, call)
            self._record(tx, name, state="waiting", host=host, call_id=call_id)
            tx.update(tasks, {"id": self.id}, state="parked", waiting=f"call:{call_id}", until=None, owner=None, updated_at=tx.now)

    def _undo_on_node(self, name: str, host: str, call: nodes.NewCall) -> None:
        try:
            self.node(f"undo:{name}", host, call)
        except StepFailed as error:
            _log.warning("task %s could not undo %s on %s: %s", self.id, name, host, error)

    def wait(self, name: str, host: str, wanted: Wanted, missing: Missing, seconds: float) -> None:
        """Until `missing(conn, wanted)` gives no topic any more, of what `wanted(conn)` gave (JSON) when the wait began. Raises StepFailed at
        the end, HostDown when `host` dies meanwhile."""
        row = self._begun(name)
        if row is not None and row.state == "done":
            return
        if row is not None and row.state == "failed":
            raise HostDown(row.result["error"])
        if row is None:
            with self.cloud.db.read() as conn:
                asked = wanted(conn)
                there = missing(conn, asked) is None
            if there:
                return self._pass(name, host)
            db.again(lambda: self._begin_wait(name, host, asked, missing, seconds))
            raise Parked
        begun, collecting = self._saved[name], self.phase == "collecting"
        with self.cloud.db.read() as conn:  # what came since the task failed does not count any more
            there, instant = not collecting and missing(conn, begun.result) is None, leases.now(conn)
        if there:
            return self._finish_step(name, begun.result)
        over = begun.boot != instant[0] or begun.until < instant[1]
        if not (collecting and over):
            self._may_wait()
        if over:
            raise StepFailed(f"{name}: nothing came in {seconds:.0f} s")
        until = min(begun.until, instant[1] + LOOK_AGAIN)
        db.again(lambda: self._park(lambda conn: None if self._in_vain(conn, name) else missing(conn, begun.result), until))
        raise Parked

    def _in_vain(self, conn: sa.Connection, name: str) -> bool:
        row = _STEP.first(conn, id=self.id, name=name)
        return row is not None and bool(row.state == "failed")

    def _begin_wait(self, name: str, host: str, wanted: Any, missing: Missing, seconds: float) -> None:
        with self._write() as tx:
            boot, instant = leases.now(tx)
            self._record(tx, name, state="waiting", host=host, result=wanted, boot=boot, until=instant + seconds)
            self._sleep(tx, missing(tx.conn, wanted), instant + min(seconds, LOOK_AGAIN))

    def _finish_step(self, name: str, value: Any) -> None:
        """Stored with whatever is written next; if nothing is, a later run finds the same outcome."""
        self._fault("before", name)
        self._finished[name] = value
        self._fault("after", name)

    def _pass(self, name: str, host: str) -> None:
        """The same for a wait that had not begun."""
        self._fault("before", name)
        self._passed[name] = host
        self._fault("after", name)

    def _park(self, missing: Callable[[sa.Connection], str | None], until: float | None) -> None:
        """Sleep until the topic of what is missing rings; what came between looking and parking is seen by looking inside the transaction."""
        with self._write() as tx:
            self._sleep(tx, missing(tx.conn), until)

    def _sleep(self, tx: db.Tx, topic: str | None, until: float | None) -> None:
        """Until `topic` rings; for None it is to be run again at once."""
        state = "queued" if topic is None else "parked"
        tx.update(tasks, {"id": self.id}, state=state, waiting=topic, until=until, boot=leases.now(tx)[0], owner=None, updated_at=tx.now)
        if topic is None:
            tx.ring("tasks")

    def _begun(self, name: str) -> db.Row | None:
        row = self._saved.get(name)
        if row is None and self.phase == "collecting":
            raise Collected
        return row

    def _record(self, tx: db.Tx, name: str, **values: Any) -> None:
        tx.insert(steps, task_id=self.id, name=name, seq=len(self._saved), started_at=tx.now, **values)
        self._saved[name] = _STEP.first(tx, id=self.id, name=name)  # type: ignore[assignment]

    @contextmanager
    def _write(self) -> Iterator[db.Tx]:
        """A transaction of the task, as long as it is ours."""
        with self.cloud.db.write(self) as tx:
            self._mine(tx)
            for name, value in self._finished.items():
                tx.update(steps, {"task_id": self.id, "name": name}, state="done", result=value, finished_at=tx.now)
            for name, host in self._passed.items():
                self._record(tx, name, state="done", host=host, finished_at=tx.now)
            yield tx
        self._finished.clear()
        self._passed.clear()

    def _mine(self, tx: db.Tx) -> None:
        """Proves the lease and looks at the cancel mark, in the step's own transaction."""
        row = _MINE.first(tx, id=self.id, owner=self.owner, attempt=self.attempt)
        if row is None:
            raise Lost
        if row.cancelling and self.phase == "doing":
            raise Cancelled("The request was cancelled.")

    def _may_wait(self) -> None:
        if self.phase == "collecting":
            raise Collected
        with self.cloud.db.read() as conn:
            marked = _CANCELLING.scalar(conn, id=self.id)
        if marked and self.phase == "doing":
            raise Cancelled("The request was cancelled.")

    def unwind(self) -> None:
        self.phase = "undoing"
        for _name, undo in reversed(list(self._undo)):
            undo()

    def end(self, state: str, error: Exception | None) -> None:
        """The task's last transaction, with the kind's `failed` hook in it; none when its last step had it."""
        if not self.over:
            db.again(lambda: self._end(state, error))

    def _end(self, state: str, error: Exception | None) -> None:
        self.phase = "ending"
        with self._write() as tx:
            if error is not None:
                KINDS[self.kind].failed(tx, self, error)
            self._close(tx, state, error)

    def _close(self, tx: db.Tx, state: str, error: Exception | None) -> None:
        told = {"message": str(error), "detail": getattr(error, "detail", "")} if error is not None else None
        tx.update(tasks, {"id": self.id}, state=state, finished_at=tx.now, updated_at=tx.now, error=told, owner=None)
        tx.ring("tasks")
        tx.ring(f"task:{self.id}")
