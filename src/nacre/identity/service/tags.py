"""Tags of projects: words that a project bears, each at most once. Races: who changes them holds the project, so that no word is lost."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, NotFound
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import PROJECTS, Record

MOST = 80


def shown(conn: db.Conn, projects: Sequence[Record]) -> list[Record]:
    """Projects with their tags."""
    found: dict[str, list[str]] = {one["id"]: [] for one in projects}
    query = sa.select(tables.project_tags).order_by(tables.project_tags.c.name)
    few = len(found) <= 1000
    for row in conn.execute(query.where(tables.project_tags.c.project_id.in_(found)) if few else query):
        if row.project_id in found:
            found[row.project_id].append(row.name)
    return [{**one, "tags": found[one["id"]]} for one in projects]


def replace(tx: db.Tx, project_id: str, wanted: Iterable[str]) -> None:
    """Raises BadRequest for a word twice, or too many."""
    names = list(wanted)
    if len(set(names)) != len(names):
        raise BadRequest("Invalid input for field/attribute tags. A tag is named twice.", kind="ValidationError")
    if len(names) > MOST:
        raise BadRequest(f"Invalid input for field/attribute tags. A project has at most {MOST} tags.", kind="ValidationError")
    _lock(tx, project_id)
    tx.delete(tables.project_tags, project_id=project_id)
    for name in names:
        tx.insert(tables.project_tags, project_id=project_id, name=name)


def _lock(tx: db.Tx, project_id: str) -> None:
    tx.lock(sa.select(tables.projects.c.id).where(tables.projects.c.id == project_id), "change")


def listed(caller: Caller, project_id: str) -> list[str]:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return _of(conn, directory.load(conn, caller, PROJECTS, project_id)["id"])


def _of(conn: db.Conn, project_id: str) -> list[str]:
    query = sa.select(tables.project_tags.c.name).where(tables.project_tags.c.project_id == project_id)
    return [row.name for row in conn.execute(query.order_by(tables.project_tags.c.name))]


def put(caller: Caller, project_id: str, wanted: Sequence[str]) -> list[str]:
    """These instead of whatever there are. Raises BadRequest, NotFound, Forbidden (immutable)."""
    with caller.write() as tx:
        _hold(tx, caller, project_id)
        replace(tx, project_id, wanted)
        return _of(tx, project_id)


def _hold(tx: db.Tx, caller: Caller, project_id: str) -> None:
    directory.mutable(PROJECTS, directory.load(tx, caller, PROJECTS, project_id), {})
    journal.changed(tx, "project", project_id, "update", ["tags"])


def check(caller: Caller, project_id: str, name: str) -> None:
    """Raises NotFound when the project does not bear it."""
    if name not in listed(caller, project_id):
        raise _absent(project_id, name)


def add(caller: Caller, project_id: str, name: str) -> None:
    """Harmless when repeated. Raises BadRequest, NotFound."""
    with caller.write() as tx:
        _lock(tx, project_id)
        _hold(tx, caller, project_id)
        if not 1 <= len(name) <= 255 or "," in name or "/" in name:
            raise BadRequest(f"Invalid input for field/attribute value. '{name[:300]}' is no tag: 1 to 255 characters without , and /.",
                             kind="ValidationError")  # fmt: skip
        replace(tx, project_id, dict.fromkeys((*_of(tx, project_id), name)))


def remove(caller: Caller, project_id: str, name: str) -> None:
    """Raises NotFound when the project does not bear it."""
    with caller.write() as tx:
        _hold(tx, caller, project_id)
        if not tx.delete(tables.project_tags, project_id=project_id, name=name):
            raise _absent(project_id, name)


def clear(caller: Caller, project_id: str) -> None:
    put(caller, project_id, ())


def _absent(project_id: str, name: str) -> NotFound:
    return NotFound(f"Could not find project tag: {name} in project {project_id}.")
