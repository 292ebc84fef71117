"""What of a backup is the database's: a snapshot with what it names, the calls by which hosts copy disks, and what becomes of a snapshot
before a cloud starts on it again. Run by short jobs of the unprivileged user; cli/backup.py and cli/restore.py do the rest.

A restored database is older than the world: whatever was under way in it is over. Its tasks, calls and tombstones are ended without their
undo, for a step that it would take back may be a guest that has lived since (law 5). The epoch rises to the second of the restore, so
hosts refuse what the cloud of before still asks, and fetch every document anew; what was seen of hosts is forgotten.
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from nacre.core import db, doctor, ids, leases, nodes, schema, tasks, transfer
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.db import Database
from nacre.core.postgresql import Unsuitable

FILE = "backup.db"
COPY_SECONDS, TIDY_SECONDS = 6 * 3600.0, 60.0


@dataclass(frozen=True)
class Contents:
    """What services have in a snapshot. `servers(conn)`: [{"id", "host"}] of those that may have disks; `images(conn)`: (store,
    id) of all data. `servers_restored(tx, when, without)` and `images_restored(tx)` make their rows what they are after a restore; of servers
    in `without` there is no disk."""

    servers: Callable[[sa.Connection], Sequence[Mapping[str, Any]]]
    images: Callable[[sa.Connection], Sequence[tuple[str, str]]]
    servers_restored: Callable[[db.Tx, str, Collection[str]], None]
    images_restored: Callable[[db.Tx], None]


def take(cloud: Cloud, path: Path, contents: Contents) -> dict[str, Any]:
    """Writes the snapshot to `path`: {"schema", "servers", "images"}. Raises postgresql.Unsuitable, db.Unreachable."""
    transfer.snapshot(cloud.db, path)
    made = Database(f"sqlite:///{path}")
    try:
        schema.upgrade(made)  # of a stopped cloud that an older program has left
        with made.read() as conn:
            return {"schema": schema.current(made), "servers": list(contents.servers(conn)), "images": list(contents.images(conn))}
    finally:
        made.close()
        for name in (".lock", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)


class Session:
    """Answers what `nacre backup` asks, one question after another. Use as a context: copies that nobody has let go are let go."""

    def __init__(self, cloud: Cloud, contents: Contents) -> None:
        self.cloud, self.contents = cloud, contents
        self.path = cloud.home.reach / "db" / FILE
        self._held: tuple[str, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
        if self._held is not None:
            self._call("absent_copies", TIDY_SECONDS)

    def snapshot(self) -> dict[str, Any]:
        return take(self.cloud, self.path, self.contents)

    def copy(self, host: str, server_id: str) -> Any:
        """What the host has copied (docs/node-contract.md); no disks of a server that is deleted meanwhile. Raises StepFailed."""
        self._held = (host, server_id)
        try:
            return doctor.answer(self.cloud, self._call("ensure_copies", COPY_SECONDS), COPY_SECONDS + 20)
        except tasks.StepFailed:
            with self.cloud.db.read() as conn:
                if server_id in {server["id"] for server in self.contents.servers(conn)}:
                    raise
            return {"folder": "", "disks": {}}

    def let_go(self) -> None:
        """Raises StepFailed."""
        doctor.answer(self.cloud, self._call("absent_copies", TIDY_SECONDS), TIDY_SECONDS + 20)
        self._held = None

    def _call(self, verb: str, seconds: float) -> str:
        assert self._held is not None
        host, server_id = self._held
        with self.cloud.db.write(System(ids.request_id())) as tx:
            return nodes.call(tx, host, nodes.NewCall(verb, {"server_id": server_id}, seconds))


def serve(session: Session, questions: Iterable[dict[str, Any]], tell: Callable[[dict[str, Any]], None]) -> None:
    """Each is {"what": snapshot | copy | let_go, and its arguments}; the answer {"told"} or {"refused": the reason}."""
    for asked in questions:
        table: dict[str, Callable[..., Any]] = {"snapshot": session.snapshot, "copy": session.copy, "let_go": session.let_go}
        try:
            tell({"told": table[asked.pop("what")](**asked)})
        except (Unsuitable, tasks.StepFailed, OSError, sqlite3.Error) as error:
            tell({"refused": f"{error} {getattr(error, 'detail', '')}".strip()})
        except db.Unreachable as error:
            tell({"refused": error.reason})


@dataclass(frozen=True)
class There:
    """The servers that have a disk on one of the `hosts` of which that is known; the highest epoch that these have followed."""

    servers: Collection[str]
    hosts: Collection[str]
    epoch: int = 0


def settle(database: Database, when: str, there: There, contents: Contents) -> int:
    """Makes a snapshot taken at `when` a database to start on; its epoch. Harmless to repeat."""
    schema.upgrade(database)
    with database.write(System(ids.request_id())) as tx:
        raised = max(nodes.epoch(tx) + 1, there.epoch + 1, int(time.time()))
        nodes.set_fact(tx, "epoch", raised)
        on_hosts = contents.servers(tx.conn)
        lost = {server["id"] for server in on_hosts if server["host"] in there.hosts and server["id"] not in there.servers}
        contents.servers_restored(tx, when, lost)
        contents.images_restored(tx)
        _end(tx, f"The cloud was restored from a backup of {when}, in which this was not finished.")
    return raised


def _end(tx: db.Tx, why: str) -> None:
    """Nothing is under way, nobody holds anything, no host is known to be or to have anything."""
    unfinished = tasks.tasks.c.state.in_(tasks.OPEN)
    tx.execute(tasks.tasks.update().where(unfinished).values(state="failed", finished_at=tx.now, updated_at=tx.now, owner=None, waiting=None,
                                                             error={"message": why, "detail": ""}))  # fmt: skip
    tx.execute(nodes.calls.update().where(nodes.calls.c.state == "open").values(state="failed", error=why, finished_at=tx.now))
    tx.execute(nodes.holders.update().values(applied=0))
    tx.execute(nodes.hosts.update().values(last_seen=None, heard=None))
    tx.execute(leases.table.delete())
