"""What one request did, from HTTP to the commands of nodes, in the order of time (law 11): what `nacre why` prints.

It is put together when somebody asks, from what is kept anyway: journal lines, tasks with their steps, node calls with what the node
told of them (docs/node-contract.md), and the logs. Only the logs know of HTTP; lines of a time are found by halving a file, so a
request whose rows say when it was costs no more in a large log. A request without rows (it changed nothing) is looked for everywhere.

Times of a node are its own clock's; where they contradict ours the call began when it was made. Nothing here writes.
"""

import json
import mmap
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal, nodes, tasks

LISTED = 50
_AROUND, _AFTER = timedelta(seconds=120), timedelta(seconds=30)
_LINES = 500
_ORDER = ("http", "change", "task", "step", "call", "command", "log")
_HTTP = re.compile(r"([A-Z]+) (\S+) (\d{3})")
_SECRET = re.compile(r"(/consoles?/)[\w-]+")


@dataclass(frozen=True)
class Event:
    """`kind` is one of _ORDER. `ms`: how long it took, None: an instant, or it goes on. `problem`: why it did not go well. What `host`
    and `inside` say is for administrators."""

    at: datetime
    kind: str
    text: str
    ms: float | None = None
    problem: str = ""
    host: str | None = None
    inside: str = ""


@dataclass(frozen=True)
class Request:
    """One request that touched a resource: when first, whose it was, what it did there."""

    id: str
    at: datetime
    user_id: str | None
    project_id: str | None
    did: tuple[str, ...]


def requests_of(conn: db.Conn, resource_id: str, limit: int = LISTED) -> list[Request]:
    """The requests that touched a resource, newest first."""
    line, task = journal.lines.c, tasks.tasks.c
    changes = sa.select(journal.lines).where(line.resource_id == resource_id).order_by(line.id.desc()).limit(10 * limit)
    rows = [(row.at, row.request_id, row.user_id, row.project_id, f"{row.kind} {row.action}") for row in conn.execute(changes)]
    asked = sa.select(tasks.tasks).where(task.resource.in_(_resources(conn, resource_id))).order_by(task.seq.desc()).limit(10 * limit)
    rows += [(row.created_at, row.request_id, row.user_id, row.project_id, "") for row in conn.execute(asked)]
    found: dict[str, Request] = {}
    for at, request_id, user_id, project_id, did in sorted(rows, key=lambda row: row[0]):
        before = found.get(request_id) or Request(request_id, at, user_id, project_id, ())
        done = (*before.did, did) if did and did not in before.did else before.did
        found[request_id] = replace(before, did=done, user_id=before.user_id or user_id, project_id=before.project_id or project_id)
    return sorted(found.values(), key=lambda request: request.at, reverse=True)[:limit]


def _resources(conn: db.Conn, resource_id: str) -> list[str]:
    """How tasks name a resource: "server:<id>". The journal knows its kind."""
    kinds = sa.select(journal.lines.c.kind).where(journal.lines.c.resource_id == resource_id).distinct()
    return [f"{kind}:{resource_id}" for kind in {"server", *conn.execute(kinds).scalars()}]


def project_of(conn: db.Conn, request_id: str) -> tuple[bool, str | None]:
    """(whether anything of the request is kept, whose request it was)."""
    line, task = journal.lines.c, tasks.tasks.c
    found = list(conn.execute(sa.select(line.project_id).where(line.request_id == request_id).distinct()).scalars())
    found += list(conn.execute(sa.select(task.project_id).where(task.request_id == request_id).distinct()).scalars())
    return bool(found), next((project for project in found if project), None)


def of_request(conn: db.Conn, logs: Path, request_id: str, *, everywhere: bool = False) -> list[Event]:
    """Everything that is known of a request, in the order of time. `everywhere`: without rows to go by, look through whole logs."""
    events = [*_changes(conn, request_id), *_tasks(conn, request_id), *_calls(conn, request_id)]
    if events:
        moments = [event.at for event in events] + [event.at + timedelta(milliseconds=event.ms or 0) for event in events]
        events += _logged(logs, request_id, min(moments) - _AROUND, max(moments) + _AFTER)
    elif everywhere:
        events = list(_logged(logs, request_id, None, None))
    return sorted(events, key=lambda event: (event.at, _ORDER.index(event.kind)))


def _changes(conn: db.Conn, request_id: str) -> Iterator[Event]:
    query = sa.select(journal.lines).where(journal.lines.c.request_id == request_id).order_by(journal.lines.c.id)
    for row in conn.execute(query):
        fields = f" ({', '.join(row.fields)})" if row.fields else ""
        values = ", ".join(f"{name}={value}" for name, value in row.values.items())
        yield Event(row.at, "change", f"{row.kind} {row.resource_id} {row.action}{fields}", inside=values)


def _tasks(conn: db.Conn, request_id: str) -> Iterator[Event]:
    for row in list(conn.execute(sa.select(tasks.tasks).where(tasks.tasks.c.request_id == request_id).order_by(tasks.tasks.c.seq))):
        state = {"queued": "waits for a worker", "running": "is being run", "parked": f"waits for {row.waiting}"}.get(row.state, row.state)
        state += ", cancelled" if row.cancelling else ""
        yield Event(row.created_at, "task", f"task {row.kind} of {row.resource}: {state}", _ms(row.created_at, row.finished_at),
                    row.error["message"] if row.error else "", inside=row.error["detail"] if row.error else "")  # fmt: skip
        for step in tasks.steps_of(conn, row.id):
            text = f"step {step.name}" + ("" if step.state == "done" or row.finished_at else ": goes on")
            yield Event(step.started_at, "step", text, _ms(step.started_at, step.finished_at), host=step.host)


def _calls(conn: db.Conn, request_id: str) -> Iterator[Event]:
    query = sa.select(nodes.calls).where(nodes.calls.c.request_id == request_id).order_by(nodes.calls.c.number)
    for row in list(conn.execute(query)):
        state = {"open": ": not answered yet", "failed": ": failed"}.get(row.state, "")
        yield Event(row.created_at, "call", f"node call {row.verb}{state}", _ms(row.created_at, row.finished_at), row.error or "",
                    row.host, row.detail or "")  # fmt: skip
        if row.timing:
            yield from _commands(row)


def _commands(row: db.Row) -> Iterator[Event]:
    """What the node did. Its words are shown, never trusted: what is no timing is passed over."""
    try:
        began = datetime.fromtimestamp(float(row.timing["at"]), UTC).replace(tzinfo=None)
        if not row.created_at <= began <= (row.finished_at or began):
            began = row.created_at
        waited = float(row.timing["waited_ms"])
        text = f"{row.verb} began" + (f", having waited {waited:.1f} ms" if waited >= 1 else "")
        yield Event(began, "command", text, float(row.timing["ms"]), host=row.host)
        for offset, took, what, ok in row.timing["commands"]:
            yield Event(began + timedelta(milliseconds=float(offset)), "command", str(what), float(took), "" if ok else "failed", row.host)
        if row.timing.get("more"):
            yield Event(row.finished_at or began, "command", f"and {int(row.timing['more'])} more", host=row.host)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return


def _ms(began: datetime, ended: datetime | None) -> float | None:
    return round((ended - began).total_seconds() * 1000, 2) if ended is not None else None


# the logs


def _logged(folder: Path, request_id: str, since: datetime | None, until: datetime | None) -> Iterator[Event]:
    for facts in _lines(folder, request_id, since, until):
        try:
            at = datetime.strptime(facts["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
            message, logger = str(facts["message"]), facts["logger"]
        except (KeyError, TypeError, ValueError):
            continue
        http = _HTTP.fullmatch(message) if logger == "nacre.http" else None
        if http is not None:
            took = float(facts.get("ms") or 0)
            path = _SECRET.sub(r"\1...", http[2])
            yield Event(at - timedelta(milliseconds=took), "http", f"{http[1]} {path}: {http[3]}", took, str(facts.get("refused") or ""))
        elif logger != "nacre.node.calls":  # the calls themselves say more
            trace = str(facts.get("trace") or "").strip().rpartition("\n")[2]
            yield Event(at, "log", f"{facts.get('process')}: {facts['level']} {message}"[:500], inside=trace)


def _lines(folder: Path, request_id: str, since: datetime | None, until: datetime | None) -> list[Mapping[str, Any]]:
    """The lines of a request, at most _LINES; a log that cannot be read has none."""
    if not re.fullmatch(r"[\w.-]+", request_id):
        return []
    found: list[Mapping[str, Any]] = []
    for path in sorted([*folder.glob("*.log.1"), *folder.glob("*.log")]):
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                start = _at(text, since) if since is not None else 0
                end = _at(text, until) if until is not None else len(text)
                for line in _hits(text, f'"request_id": "{request_id}"'.encode(), start, end):
                    found.append(json.loads(line))
                    if len(found) >= _LINES:
                        return found
        except (OSError, ValueError):
            continue  # an empty file cannot be mapped; one that is just rotated is found by its other name
    return found


def _hits(text: mmap.mmap, needle: bytes, start: int, end: int) -> Iterator[bytes]:
    while (at := text.find(needle, start, end)) >= 0:
        begin = text.rfind(b"\n", 0, at) + 1
        stop = text.find(b"\n", at)
        start = stop if stop >= 0 else len(text)
        yield text[begin:start]


def _at(text: mmap.mmap, moment: datetime) -> int:
    """The first line that is not before `moment`; lines are in the order of time but for what processes write at once."""
    wanted = moment.strftime("%Y-%m-%dT%H:%M:%S").encode()
    low, high = 0, len(text)
    while low < high:
        middle = (low + high) // 2
        begin = text.rfind(b"\n", low, middle) + 1 or low
        if text[begin + 10 : begin + 29] < wanted:
            after = text.find(b"\n", middle, high)
            low = after + 1 if after >= 0 else high
        else:
            high = begin
    return low


# what is shown


def shown(events: Iterable[Event], *, whole: bool, hosts: Collection[str]) -> list[dict[str, Any]]:
    """For the wire. Not `whole`: without what only administrators see, and no name of a host in what is left."""
    if whole:
        return [_wire(event) | {"host": event.host, "inside": event.inside} for event in events]
    plain = [event for event in events if event.kind not in ("command", "log")]
    return [_wire(replace(event, text=without_hosts(event.text, hosts), problem=without_hosts(event.problem, hosts))) for event in plain]


def without_hosts(text: str, hosts: Collection[str]) -> str:
    """The text for who may not know the names of hosts."""
    names = "|".join(re.escape(name) for name in sorted(hosts, key=len, reverse=True)) or "(?!)"
    plain = re.sub(rf"(\bhost )?(?<![\w.-])({names})(?![\w-])", "a host", text)
    return re.sub(r"a host(?:, a host)+", lambda found: f"{found[0].count('a host')} hosts", plain)


def _wire(event: Event) -> dict[str, Any]:
    return {"at": event.at.isoformat(timespec="microseconds") + "Z", "kind": event.kind, "text": event.text, "ms": event.ms, "problem": event.problem}


def asked(request: Request) -> dict[str, Any]:
    return {"id": request.id, "at": request.at.isoformat(timespec="microseconds") + "Z", "user_id": request.user_id,
            "project_id": request.project_id, "did": list(request.did)}  # fmt: skip


def held(conn: db.Conn, resource_id: str) -> Sequence[Mapping[str, Any]]:
    """Which hosts hold a document of the resource, and whether they have reported it true."""
    holder, document = nodes.holders.c, nodes.documents.c
    join = nodes.holders.join(nodes.documents, sa.and_(holder.kind == document.kind, holder.id == document.id))
    query = sa.select(holder.kind, holder.host, (holder.applied == document.version).label("true")).select_from(join)
    return [{"kind": row.kind, "host": row.host, "true": bool(row.true)} for row in conn.execute(query.where(holder.id == resource_id))]
