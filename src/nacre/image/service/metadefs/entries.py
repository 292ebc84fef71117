"""What namespaces hold: objects, properties and tags. They are made, read, changed and removed in the same way; the namespace decides who
may."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from starlette.datastructures import QueryParams

from nacre.core import db, journal, paging
from nacre.core.caller import Caller
from nacre.core.errors import Conflict, NotFound
from nacre.image import filters
from nacre.image.service.metadefs import namespaces, resource_types
from nacre.image.tables.metadefs import entries


@dataclass(frozen=True)
class Kind:
    """`fields`: what of a body is kept besides the name; None: all of it."""

    word: str
    fields: tuple[str, ...] | None


OBJECT = Kind("object", ("description", "required", "properties"))
PROPERTY = Kind("property", None)
TAG = Kind("tag", ())


def insert(tx: db.Tx, kind: Kind, namespace: db.Row, body: Mapping[str, Any]) -> None:
    """As the system. Raises Conflict."""
    name = str(body["name"])
    if _find(tx, kind, namespace, name) is not None:
        raise Conflict(f"A metadata definition {kind.word} with name={name} already exists in namespace={namespace.namespace}.", kind="Duplicate")
    tx.insert(entries, namespace_id=namespace.id, kind=kind.word, name=name, content=_content(kind, body), created_at=tx.now, updated_at=tx.now)


def _content(kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "name" and (kind.fields is None or name in kind.fields)}


def _find(conn: db.Conn, kind: Kind, namespace: db.Row, name: str) -> db.Row | None:
    return conn.execute(sa.select(entries).filter_by(namespace_id=namespace.id, kind=kind.word, name=name)).first()


def _load(conn: db.Conn, kind: Kind, namespace: db.Row, name: str) -> db.Row:
    row = _find(conn, kind, namespace, name)
    if row is None:
        raise NotFound(f"The metadata definition {kind.word} with name={name} was not found in namespace={namespace.namespace}.")
    return row


def of(conn: db.Conn, namespace_id: int) -> dict[str, list[db.Row]]:
    """Everything that a namespace holds, by kind, in the order in which it was made."""
    found: dict[str, list[db.Row]] = {}
    for row in conn.execute(sa.select(entries).where(entries.c.namespace_id == namespace_id).order_by(entries.c.id)):
        found.setdefault(row.kind, []).append(row)
    return found


def create(caller: Caller, kind: Kind, namespace: str, body: Mapping[str, Any]) -> db.Row:
    with caller.write() as tx:
        row = namespaces.load(tx, caller, namespace, lock=True)
        caller.require(namespaces.target(row))
        insert(tx, kind, row, body)
        journal.changed(tx, "metadef", namespace, "update", (kind.word,), {"name": body["name"]})
        return _load(tx, kind, row, body["name"])


def replace_tags(caller: Caller, namespace: str, names: Iterable[str], *, append: bool) -> None:
    """These tags, instead of all others or besides them."""
    with caller.write() as tx:
        row = namespaces.load(tx, caller, namespace, lock=True)
        caller.require(namespaces.target(row))
        if not append:
            tx.delete(entries, namespace_id=row.id, kind=TAG.word)
        for name in names:
            insert(tx, TAG, row, {"name": name})
        journal.changed(tx, "metadef", namespace, "update", ("tags",))


def listed(caller: Caller, kind: Kind, namespace: str, query: QueryParams) -> list[db.Row]:
    page = filters.metadefs_page(query, caller.cloud.config.DEFAULT, ("created_at", "updated_at", "name", "id"))
    with caller.read() as conn:
        row = namespaces.load(conn, caller, namespace)
        caller.require(namespaces.target(row))
        marker = str(_load(conn, kind, row, page.marker).id) if page.marker is not None else None
        wanted = sa.select(entries).where(entries.c.namespace_id == row.id, entries.c.kind == kind.word)
        return paging.take(conn, wanted, entries, paging.Page(page.limit, marker, page.keys))[0]


def every(caller: Caller, kind: Kind, namespace: str) -> list[db.Row]:
    with caller.read() as conn:
        row = namespaces.load(conn, caller, namespace)
        caller.require(namespaces.target(row))
        return of(conn, row.id).get(kind.word, [])


def show(caller: Caller, kind: Kind, namespace: str, name: str, resource_type: str | None = None) -> db.Row:
    """`resource_type`: the name is given as it is on such resources, with the prefix."""
    with caller.read() as conn:
        row = namespaces.load(conn, caller, namespace)
        caller.require(namespaces.target(row))
        if resource_type:
            caller.require(namespaces.target(row), "get_metadef_resource_type")
            prefix = resource_types.prefix(conn, row, resource_type)
            if not prefix or not name.startswith(prefix):
                raise NotFound(f"Property {name} does not start with the expected resource type association prefix of '{prefix}'.")
            name = name.removeprefix(prefix)
        return _load(conn, kind, row, name)


def update(caller: Caller, kind: Kind, namespace: str, name: str, body: Mapping[str, Any]) -> db.Row:
    with caller.write() as tx:
        row = namespaces.load(tx, caller, namespace, lock=True)
        caller.require(namespaces.target(row))
        found = _load(tx, kind, row, name)
        if body["name"] != name and _find(tx, kind, row, body["name"]) is not None:
            said = f"Invalid update. It would result in a duplicate {kind.word} with same name={body['name']} in namespace={namespace}."
            raise Conflict(said, kind="Duplicate")
        tx.update(entries, {"id": found.id}, name=body["name"], content=_content(kind, body), updated_at=tx.now)
        journal.changed(tx, "metadef", namespace, "update", (kind.word,), {"name": body["name"]})
        return _load(tx, kind, row, body["name"])


def delete(caller: Caller, kind: Kind, namespace: str, name: str | None) -> None:
    """None: all of the kind, which only who may delete the namespace may do, too."""
    with caller.write() as tx:
        row = namespaces.load(tx, caller, namespace, lock=True)
        caller.require(namespaces.target(row))
        if name is None:
            caller.require(namespaces.target(row), "delete_metadef_namespace")
        chosen = {"id": _load(tx, kind, row, name).id} if name is not None else {}
        namespaces.deletable(row)
        tx.delete(entries, namespace_id=row.id, kind=kind.word, **chosen)
        journal.changed(tx, "metadef", namespace, "update", (kind.word,), {"name": name})
