"""`nacre doctor`: everything that the database says is compared with what every host sees, and each difference is told with its cause.

Every living host is asked for a survey (a node call, docs/node-contract.md), unless it says that a daemon which a survey asks hangs: that
is told then. The services' checks compare it with their rows. While a cloud works, the two are never looked at in one instant, so a
difference counts only when several looks in a row agree on it.

`repair` does what each difference names as its cure: it starts no guest and ends none, destroys no disk that the database does not know
as deleted, and takes nothing away that others made (that is told as `left` and does not count). What has no cure is for people.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, nodes, tasks
from nacre.core.caller import System
from nacre.core.cloud import Cloud

LOOKS, PAUSE, SURVEY_SECONDS, REPAIR_SECONDS = 3, 0.7, 20.0, 45.0
_ASKED = ("libvirtd", "ovsdb-server", "ovs-vswitchd")
Survey = Mapping[str, Any]
Repair = Callable[[Cloud, System], None]


@dataclass(frozen=True)
class Difference:
    """`kind` and `what` (and `host`) name it; `cure`: what a repair does, empty when nothing does. `left`: others made it."""

    kind: str
    what: str
    cause: str
    host: str | None = None
    cure: str = ""
    repair: Repair | None = field(default=None, compare=False)
    left: bool = False

    @property
    def key(self) -> tuple[str, str, str | None]:
        return self.kind, self.what, self.host


Check = Callable[[Cloud, sa.Connection, Mapping[str, Survey]], Iterable[Difference]]


def run(cloud: Cloud, checks: Sequence[Check], *, repair: bool) -> dict[str, Any]:
    """{"differences", "found", "repaired", "left"}"""
    who = System(ids.request_id())
    found, repaired = _steady(cloud, who, checks), list[Difference]()
    if repair:
        curable = [one for one in found if one.repair is not None]
        failed = {one.key: why for one in curable if (why := _cure(cloud, who, one))}
        end = time.monotonic() + REPAIR_SECONDS
        while True:
            found = _steady(cloud, who, checks)
            left = {one.key for one in found}
            if not left & {one.key for one in curable if one.key not in failed} or time.monotonic() > end:
                break
            time.sleep(PAUSE)
        repaired = [one for one in curable if one.key not in left]
        found = [one if one.key not in failed else Difference(one.kind, one.what, f"{one.cause}; it cannot be repaired: {failed[one.key]}",
                                                              one.host, one.cure) for one in found]  # fmt: skip
    counted = [one for one in found if not one.left]
    return {"differences": len(counted), "found": [_told(one) for one in counted], "repaired": [_told(one) for one in repaired],
            "left": [_told(one) for one in found if one.left]}  # fmt: skip


def _told(one: Difference) -> dict[str, Any]:
    return {"kind": one.kind, "what": one.what, "host": one.host, "cause": one.cause, "cure": one.cure}


def _cure(cloud: Cloud, who: System, one: Difference) -> str:
    """Why it could not be cured; empty when it was."""
    assert one.repair is not None
    try:
        db.again(lambda: one.repair(cloud, who))  # type: ignore[misc]
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def _steady(cloud: Cloud, who: System, checks: Sequence[Check]) -> list[Difference]:
    """What every one of several looks sees; none is needed after one that sees nothing."""
    found = look(cloud, who, checks)
    for _ in range(LOOKS - 1):
        if all(one.left for one in found):
            break
        time.sleep(PAUSE)
        before = {one.key for one in found}
        found = [one for one in look(cloud, who, checks) if one.key in before]
    return found


def look(cloud: Cloud, who: System, checks: Sequence[Check]) -> list[Difference]:
    """One look."""
    surveys, silent = survey(cloud, who)
    with cloud.db.read() as conn:
        found = [*silent, *_daemons(conn), *_documents(conn, surveys), *_tasks(conn)]
        for check in checks:
            found += check(cloud, conn, surveys)
    return sorted(found, key=lambda one: (one.kind, one.what, one.host or ""))


def survey(cloud: Cloud, who: System) -> tuple[dict[str, Survey], list[Difference]]:
    """host -> what it sees; and the hosts that did not tell."""
    with cloud.db.write(who) as tx:
        rows = nodes.all_hosts(tx)
        able = [row for row in rows if nodes.alive(row) and not any(nodes.troubled(row, daemon) for daemon in _ASKED)]
        calls = {row.name: nodes.call(tx, row.name, nodes.NewCall("survey", {"host": row.name}, SURVEY_SECONDS)) for row in able}
    silent = [Difference("host-down", row.name, f"it was heard of last at {row.last_seen}", row.name) for row in rows if not nodes.alive(row)]
    surveys: dict[str, Survey] = {}
    for host, call_id in calls.items():
        try:
            surveys[host] = answer(cloud, call_id, SURVEY_SECONDS + 10)
        except tasks.StepFailed as error:
            silent.append(Difference("host-silent", host, f"{error} {error.detail}".strip(), host))
    with cloud.db.write(who) as tx:  # they are large, and nobody asks for them again
        tx.execute(nodes.calls.delete().where(nodes.calls.c.id.in_(list(calls.values())), nodes.calls.c.state != "open"))
    return surveys, silent


def answer(cloud: Cloud, call_id: str, seconds: float) -> Any:
    """The value of a call. Raises tasks.StepFailed."""
    end = time.monotonic() + seconds
    while True:
        with cloud.db.read() as conn:
            state, value, error, detail = nodes.outcome(conn, call_id)
        if state == "done":
            return value
        if state == "failed" or time.monotonic() > end:
            raise tasks.StepFailed(error or "it did not answer in time", detail or "")
        time.sleep(0.03)


def call(host: str, verb: str, args: Mapping[str, Any]) -> Repair:
    """A cure that a node does."""

    def repair(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            call_id = nodes.call(tx, host, nodes.NewCall(verb, args, 60.0))
        answer(cloud, call_id, 60.0)

    return repair


def _daemons(conn: sa.Connection) -> Iterable[Difference]:
    """Daemons of living hosts that do not do their work."""
    for row in nodes.all_hosts(conn):
        if nodes.alive(row):
            yield from (Difference("daemon", daemon, why, row.name) for daemon, why in sorted((row.trouble or {}).items()))


def _documents(conn: sa.Connection, surveys: Mapping[str, Survey]) -> Iterable[Difference]:
    """What a host should hold and what it holds; it fetches by itself, so only what lasts is seen here."""
    for host, seen in surveys.items():
        wanted = {(kind, id_): version for kind, held in nodes.held_by(conn, host).items() for id_, version in held.items()}
        there = {(kind, id_): version for kind, held in seen["index"].items() for id_, version in held.items()}
        for kind, id_ in sorted(wanted.keys() | there.keys()):
            if wanted.get((kind, id_)) != there.get((kind, id_)):
                yield Difference("document", f"{kind} {id_}", f"the database has version {wanted.get((kind, id_))}, the host "
                                 f"{there.get((kind, id_))}", host)  # fmt: skip


def _tasks(conn: sa.Connection) -> Iterable[Difference]:
    """Tasks that wait for a call that is answered."""
    table = tasks.tasks.c
    waiting = sa.select(tasks.tasks).where(table.state == "parked", table.waiting.like("call:%"))
    for row in list(conn.execute(waiting)):
        if nodes.outcome(conn, row.waiting[5:])[0] != "open":
            yield Difference("task-asleep", f"{row.kind} of {row.resource}", "what it waits for has come", cure="wake it", repair=_waker(row.waiting))


def _waker(topic: str) -> Repair:
    def repair(cloud: Cloud, who: System) -> None:
        with cloud.db.write(who) as tx:
            tasks.wake(tx, topic)

    return repair
