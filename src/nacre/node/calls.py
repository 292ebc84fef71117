"""What was asked once: calls of the control plane, run on this machine.

Calls of one resource run one at a time in the order in which they came; different resources run side by side in a bounded pool.
A call is answered exactly once here: by its verb, by `expire` when its time is over, or with "fenced" when a newer attempt for its
resource is known. A verb whose call was answered for it still holds its resource until it returns; its late result is dropped.

What may race: the same call comes again while it runs (a feed answer was lost) or just after its result was acknowledged (the
answer was under way); both are known by id and ignored. After kill -9 the call comes again and runs again, which every verb bears.
A call whose fence the disk cannot keep is not taken: it comes again with the next answer.
A verb that does not return, because what it asked hangs, costs its thread; the pool takes another one for it once its call was answered.
"""

import errno
import logging
import os
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from queue import SimpleQueue
from typing import Any

import msgspec

from nacre.core.log import request_id
from nacre.node.commands import CommandFailed
from nacre.node.deadline import Deadline, NodeError, Unreachable
from nacre.node.fences import Fence, Fences, Result, Results
from nacre.node.trace import recording

log = logging.getLogger(__name__)
_REMEMBERED = 1000
_LONGEST = 3600.0
_PATIENCE, _PAUSE = 60.0, 0.5


class Call(msgspec.Struct, frozen=True):
    """`deadline`: seconds left when the call was sent; None: as long as it takes, within reason."""

    id: str
    verb: str
    args: dict[str, Any] = {}
    fence: Fence = (0, 0)
    deadline: float | None = None
    request_id: str | None = None


class Verb(msgspec.Struct, frozen=True):
    """`run(call, deadline)` gives the value. `resource` is the name of the argument that names what it works on. Only calls that
    `change` something are fenced and queue for their resource; reads run at once."""

    run: Callable[[Call, Deadline], dict[str, Any]]
    resource: str
    change: bool = True


class Pool:
    """At most `size` daemon threads, started when needed, and one for each that is given up as lost."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._idle = 0

    def lend(self, threads: int) -> None:
        """One thread more while another hangs, one fewer when it is back."""
        with self._lock:
            self.size += threads
            self._man()

    def submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._work.put(work)
            self._man()

    def _man(self) -> None:
        if self._idle < self._work.qsize() and self._threads < self.size:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"call-{self._threads}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._lock:
                if self._threads > self.size:
                    self._threads -= 1
                    return
                self._idle += 1
            work = self._work.get()
            with self._lock:
                self._idle -= 1
            try:
                work()
            except Exception:
                log.exception("a call's thread met what no call should raise")


class _Job:
    def __init__(self, call: Call, key: str, fenced: bool) -> None:
        self.call, self.key, self.fenced, self.came = call, key, fenced, time.monotonic()
        self.limit = _LONGEST if call.deadline is None else call.deadline
        self.deadline = Deadline(self.limit)
        self.running = self.given_up = False


class Calls:
    """`rang()` is called, from any thread, when there is a result to report or another deadline to `expire`. Reads have a pool of their
    own, so that changes that wait for a daemon do not hold them up."""

    def __init__(self, verbs: Mapping[str, Verb], fences: Fences, results: Results, pool: Pool, rang: Callable[[], None]) -> None:
        self.verbs, self.fences, self.results, self.pool, self.rang = verbs, fences, results, pool, rang
        self.reads = Pool(pool.size)
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._queues: dict[str, deque[Callable[[], None]]] = {}
        self._running: dict[str, _Job] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._closed = False

    def accept(self, calls: Iterable[Call]) -> bool:
        """Starts or queues what is not known yet; False when some could not be taken now and must come again."""
        taken = True
        for call in calls:
            with self._lock:
                known = call.id in self._jobs or self.results.holds(call.id) or call.id in self._answered
            if known:
                continue
            try:
                self._start(call)
            except OSError as error:
                log.warning("%s cannot be taken yet: its fence cannot be kept: %s", call.verb, error)
                taken = False
        return taken

    def open(self) -> list[str]:
        """Ids that need not be sent again: being worked on, or with a result that waits to be acknowledged."""
        with self._lock:
            working = list(self._jobs)
        return working + [result.id for result in self.results.all()]

    def acknowledge(self, ids: Iterable[str]) -> None:
        """The control plane has these results."""
        ids = list(ids)
        with self._lock:
            for call_id in ids:
                self._answered[call_id] = None
            while len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        self.results.drop(ids)

    def close(self) -> None:
        """What is under way is answered by the next agent, to which its call comes again: the end of this one is no failure of it."""
        with self._lock:
            self._closed = True

    def expire(self) -> float:
        """Answers for calls whose time is over; seconds until the next one's is (an hour if there is none)."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            if job.deadline.over():
                self._give_up(job)
                self._answer(job, Result(job.call.id, False, error=f"{job.call.verb} took longer than {job.limit:g} s"))
        return min((job.deadline.left() for job in jobs if not job.deadline.over()), default=3600.0)

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            hangs = job.running and not job.given_up
            job.given_up = job.given_up or hangs
        if hangs:
            (self.pool if job.fenced else self.reads).lend(1)

    def enqueue(self, resource: str, work: Callable[[], None]) -> None:
        """Runs `work` after everything that was asked for `resource` before."""
        with self._lock:
            if resource in self._queues:
                self._queues[resource].append(work)
                return
            self._queues[resource] = deque([work])
        self.pool.submit(lambda: self._drain(resource))

    def _start(self, call: Call) -> None:
        verb = self.verbs.get(call.verb)
        if verb is None or not isinstance(name := call.args.get(verb.resource, _inside(call.args, verb.resource)), str):
            why = f"this node knows no {call.verb}" if verb is None else f"{call.verb} without {verb.resource}"
            self._refuse(call, why)
            return
        if verb.change and not self.fences.admit(name, call.fence):
            self._refuse(call, "fenced")
            return
        job = _Job(call, name, verb.change)
        with self._lock:
            self._jobs[call.id] = job
            older = self._running.get(name)
        self.rang()
        if not verb.change:
            self.reads.submit(lambda: self._run(job, verb))
            return
        if older is not None and older.call.fence < call.fence:
            older.deadline.cancel("fenced")
        self.enqueue(name, lambda: self._run(job, verb))

    def _drain(self, resource: str) -> None:
        while True:
            with self._lock:
                if not self._queues[resource]:
                    del self._queues[resource]
                    return
                work = self._queues[resource].popleft()
            try:
                work()
            except Exception:
                log.exception("work on %s met what it should not raise", resource)

    def _run(self, job: _Job, verb: Verb) -> None:
        call, began = job.call, time.monotonic()
        request_id.set(call.request_id)
        with self._lock:
            if call.id not in self._jobs:
                return
            job.running = True
            if job.fenced:
                self._running[job.key] = job
        if job.fenced and (self.fences.current(job.key) or call.fence) > call.fence:
            job.deadline.cancel("fenced")
        with recording(began - job.came) as trace:
            try:
                result = Result(call.id, True, value=self._result(job, verb))
            except Exception as error:
                result = failure(call.id, error)
        result.timing = trace.told()
        with self._lock:
            job.running, back = False, job.given_up
            if job.fenced:
                self._running.pop(job.key, None)
        if back:
            (self.pool if job.fenced else self.reads).lend(-1)
        level = logging.INFO if result.ok else logging.WARNING
        told = "done" if result.ok else f"{result.error} {result.detail or ''}".strip()
        log.log(level, "%s %s in %.2f s: %s", call.verb, job.key, time.monotonic() - began, told)
        self._answer(job, result)

    def _result(self, job: _Job, verb: Verb) -> dict[str, Any]:
        """Verbs bear being repeated: one whose libvirtd went away meanwhile is, for a while; what is asked for ever, as long as it takes."""
        patience = Deadline(_PATIENCE)
        while True:
            job.deadline.check()
            try:
                return verb.run(job.call, job.deadline)
            except Unreachable as error:
                if job.call.deadline is not None and (patience.over() or job.deadline.left() < _PAUSE):
                    raise
                log.warning("%s %s is tried again: %s %s", job.call.verb, job.key, error, error.detail)
            job.deadline.sleep(_PAUSE)

    def _answer(self, job: _Job, result: Result) -> None:
        with self._lock:
            if self._closed or self._jobs.get(job.call.id) is not job:
                return
            if result.ok or not (job.call.deadline is None and job.deadline.over()):
                self.results.put(result)  # else it is asked for ever: it comes again
            del self._jobs[job.call.id]
        self.rang()

    def _refuse(self, call: Call, why: str) -> None:
        self.results.put(Result(call.id, False, error=why))
        self.rang()


def _inside(args: Mapping[str, Any], resource: str) -> Any:
    spec = args.get("spec")
    return spec.get("id") if resource == "server_id" and isinstance(spec, dict) else None


def failure(call_id: str, error: Exception) -> Result:
    """The result that tells about `error`: a sentence for the user, the cause for the operator."""
    if _no_room(error):
        what = f"{error}: " if isinstance(error, NodeError) else ""
        return Result(call_id, False, error=f"{what}there is no room left on the host's disk", detail=getattr(error, "detail", "") or str(error))
    if isinstance(error, NodeError):
        return Result(call_id, False, error=str(error), detail=error.detail or None)
    if isinstance(error, CommandFailed):
        return Result(call_id, False, error=f"{error.argv[0]} failed on the host", detail=str(error))
    if isinstance(error, msgspec.ValidationError):
        return Result(call_id, False, error=f"the call cannot be read: {error}")
    detail = "".join(traceback.format_exception(error))[-4000:]
    return Result(call_id, False, error=f"unexpected {type(error).__name__} on the host", detail=detail)


def _no_room(error: BaseException | None) -> bool:
    """Whether a full disk is behind it, in whatever words: ours, a command's, libvirt's."""
    while error is not None:
        words = f"{error} {getattr(error, 'detail', '')} {getattr(error, 'stderr', '')}"
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in words:
            return True
        error = error.__cause__
    return False
