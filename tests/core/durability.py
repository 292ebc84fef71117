"""The harness every task is tested with: each step repeated, each step failed, the worker killed at every boundary.

A `Stage` is a cloud without threads: the test itself is the worker (`settle`) and the world (`act`: nodes do what they were asked).
`begin()` asks for something and gives its id; `check(id, went_well)` says what must be true when nothing moves any more.

A kill is a BaseException out of the worker at a boundary, as SIGKILL would leave the database: whatever was committed is there, the
lease is held by nobody. A failure is an ordinary error at a step's beginning, or a node that says no.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nacre.core import worker
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.tasks import StepFailed, tasks

Boundary = tuple[str, str]
WHO = System("req-harness")
_TURNS = 400


class Killed(BaseException):
    """The worker is gone."""


class Injected(Exception):
    """A step could not be done, for no reason that anybody expected."""


@dataclass
class Stage:
    """`act()` is the world's turn: True if it did anything. `repeat`: nodes do each call twice; `refuse`: verbs that fail."""

    cloud: Cloud
    act: Callable[["Stage"], bool]
    repeat: bool = False
    refuse: set[str] = field(default_factory=set)


@dataclass
class Plan:
    """What goes wrong in one run: `kill` once at a boundary, `fail` whenever a step begins."""

    kill: Boundary | None = None
    fail: Boundary | None = None
    passed: list[Boundary] = field(default_factory=list)

    def __call__(self, when: str, step: str) -> None:
        at = (when, step)
        self.passed.append(at)
        if at == self.kill:
            self.kill = None
            raise Killed
        if at == self.fail:
            raise Injected("injected")


def settle(stage: Stage, fault: Plan | None = None) -> list[Boundary]:
    """Runs tasks and world until nothing moves; the boundaries that were passed."""
    plan = fault or Plan()
    for turn in range(_TURNS):
        try:
            moved = worker.run_one(stage.cloud, f"worker-{turn}", WHO, plan)
        except Killed:
            _lose_leases(stage.cloud)
            moved = True
        if not stage.act(stage) and not moved:
            return plan.passed
    raise AssertionError(f"it never comes to rest: {plan.passed[-20:]}")


def _lose_leases(cloud: Cloud) -> None:
    with cloud.db.write(WHO) as tx:
        tx.execute(tasks.update().where(tasks.c.state == "running").values(until=0.0))


def expire_waits(cloud: Cloud) -> None:
    """Every parked wait is over its time."""
    from nacre.core.tasks import steps

    with cloud.db.write(WHO) as tx:
        tx.execute(steps.update().where(steps.c.until.is_not(None), steps.c.state == "waiting").values(until=0.0))
        tx.execute(tasks.update().where(tasks.c.state == "parked", tasks.c.until.is_not(None)).values(until=0.0))


Begin = Callable[[], str]
Check = Callable[[str, bool], None]


def clean(stage: Stage, begin: Begin, check: Check) -> list[Boundary]:
    """One run in which nothing goes wrong; its boundaries."""
    made = begin()
    passed = settle(stage)
    check(made, True)
    return passed


def every_step_repeated(stage: Stage, begin: Begin, check: Check) -> None:
    """A node does each call twice, as when its answer was lost."""
    stage.repeat = True
    try:
        clean(stage, begin, check)
    finally:
        stage.repeat = False


def killed_at_every_boundary(stage: Stage, begin: Begin, check: Check) -> int:
    """How many boundaries there were; after each kill another worker brings it to the same end."""
    boundaries = _distinct(clean(stage, begin, check))
    for boundary in boundaries:
        made = begin()
        settle(stage, Plan(kill=boundary))
        check(made, True)
    return len(boundaries)


def every_step_failed(stage: Stage, begin: Begin, check: Check, keep: Iterable[str] = ()) -> int:
    """Each step fails for good; while the effects are taken back the worker is killed at every boundary too. `keep`: steps that may not be
    failed by the harness (their failure means something else). How many runs there were."""
    names = [step for when, step in _distinct(clean(stage, begin, check)) if when == "before" and step not in keep]
    runs = 0
    for name in names:
        made = begin()
        passed = settle(stage, Plan(fail=("before", name)))
        check(made, False)
        undoing = _distinct(passed[passed.index(("before", name)) + 1 :])
        for boundary in undoing:
            made = begin()
            settle(stage, Plan(fail=("before", name), kill=boundary))
            check(made, False)
        runs += 1 + len(undoing)
    return runs


def every_call_refused(stage: Stage, begin: Begin, check: Check, verbs: Iterable[str]) -> None:
    """A node says no to each verb in turn, for as long as it is asked."""
    for verb in verbs:
        stage.refuse = {verb}
        try:
            made = begin()
            settle(stage)
            check(made, False)
        finally:
            stage.refuse = set()


def _distinct(boundaries: Iterable[Boundary]) -> list[Boundary]:
    return list(dict.fromkeys(boundaries))


__all__ = ["Injected", "Killed", "Plan", "Stage", "StepFailed", "clean", "every_call_refused", "every_step_failed", "every_step_repeated",
           "expire_waits", "killed_at_every_boundary", "settle"]  # fmt: skip
