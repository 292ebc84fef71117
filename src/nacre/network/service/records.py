"""What all resources share: who may see and change them, their standard columns, their tags, their lists.

A *record* is a row as a dict, with what belongs to it from other tables. Records are read in batches, so a list costs as many queries as
one of its rows does. A resource that the caller may not see does not exist for him (404); what he may see but not change is a 403.

Races: a verb that changes a resource holds its row (`held`) before it reads what it decides on, and what it is under before that: a subnet's
verb the network, since addresses and the DHCP server are decided among all subnets. The order is router, network, subnet, port, floating IP,
group; of one sort by id.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, journal, paging
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Error
from nacre.core.statements import Statement, given_list
from nacre.network import rules
from nacre.network.faults import fault
from nacre.network.tables import tags

Record = dict[str, Any]
Target = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A resource. `columns`: wire name -> what it is in SQL; `special`: wire name -> filter made of the values asked for.
    `complete(conn, rows)` makes records; `target(record)` is what policy looks at; `mine(project)` is SQL for what a project may see.
    `under`: the column and table of what it is decided under, and how its verbs hold that."""

    name: str
    table: sa.Table
    columns: Mapping[str, sa.ColumnElement[Any]]
    complete: Callable[[db.Conn, Sequence[db.Row]], list[Record]]
    target: Callable[[Record], Target]
    mine: Callable[[str | None], sa.ColumnElement[bool]]
    missing: Callable[[str], Error]
    special: Mapping[str, Callable[[Sequence[str]], sa.ColumnElement[bool]]] = field(default_factory=dict)
    extra: Mapping[str, sa.ColumnElement[Any]] = field(default_factory=dict)
    under: tuple[str, sa.Table, db.Hold] | None = None

    @cached_property
    def chosen(self) -> Statement:
        """Rows by `ids`."""
        return Statement(self.select().where(self.table.c.id.in_(given_list("ids"))))

    def select(self) -> sa.Select[Any]:
        return sa.select(self.table, *(value.label(name) for name, value in self.extra.items()))


@dataclass(frozen=True)
class Asked:
    """A list as asked for. `filters`: wire name -> values, one of which it must have."""

    filters: Mapping[str, Sequence[str]]
    page: paging.Page


def standard_columns(table: sa.Table) -> dict[str, sa.ColumnElement[Any]]:
    plain = {name: table.c[name] for name in ("id", "name", "description", "project_id", "revision_number", "created_at", "updated_at")}
    return {**plain, "tenant_id": table.c.project_id}


def new(tx: db.Tx, project_id: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The standard columns of a row to be."""
    return {"id": ids.uuid(), "project_id": project_id, "name": wanted.get("name") or "", "description": wanted.get("description") or "",
            "revision_number": 0, "created_at": tx.now, "updated_at": tx.now}  # fmt: skip


def project_of(caller: Caller, wanted: Mapping[str, Any]) -> str:
    """In which project a new resource is. Raises BadRequest."""
    given = {wanted[name] for name in ("project_id", "tenant_id") if wanted.get(name)}
    if len(given) > 1:
        raise BadRequest("'project_id' and 'tenant_id' do not match", kind="HTTPBadRequest")
    project = next(iter(given), None) or caller.project_id
    if not project:
        raise BadRequest("Running without keystone AuthN requires tenant_id to be specified", kind="HTTPBadRequest")
    return str(project)


def touch(tx: db.Tx, kind: Kind, id_: str, **values: Any) -> None:
    """Writes columns, counts the revision up, and a line in the journal."""
    tx.update(kind.table, {"id": id_}, **values, updated_at=tx.now, revision_number=kind.table.c.revision_number + 1)
    journal.changed(tx, kind.name, id_, "update", values)


def one(conn: db.Conn, kind: Kind, id_: str) -> Record | None:
    return next(iter(by_ids(conn, kind, [id_])), None)


def by_ids(conn: db.Conn, kind: Kind, wanted: Sequence[str]) -> list[Record]:
    """In the order asked for."""
    rows = {row.id: row for row in kind.chosen.rows(conn, ids=wanted)}
    return kind.complete(conn, [rows[id_] for id_ in wanted if id_ in rows])


def visible(conn: db.Conn, caller: Caller, kind: Kind, id_: str) -> Record:
    """Raises the kind's NotFound when it is not there for the caller."""
    record = one(conn, kind, id_)
    if record is None or not caller.allowed(f"get_{kind.name}", kind.target(record)):
        raise kind.missing(id_)
    return record


def lock(tx: db.Tx, table: sa.Table, ids_: Iterable[str], how: db.Hold) -> None:
    """Holds the rows, in the order of their ids, until the transaction ends; those that are gone are nobody's."""
    wanted = sorted(set(ids_))
    if wanted and not tx.alone:
        tx.lock(sa.select(table.c.id).where(table.c.id.in_(wanted)).order_by(table.c.id), how)


def held(tx: db.Tx, caller: Caller, kind: Kind, id_: str, how: db.Hold = "change") -> Record:
    """`visible`, as it stays for others until the transaction ends; what it is under is held first."""
    if kind.under is not None and not tx.alone:
        column, table, least = kind.under
        lock(tx, table, filter(None, [tx.scalar(sa.select(kind.table.c[column]).where(kind.table.c.id == id_))]), least)
    lock(tx, kind.table, [id_], how)
    return visible(tx, caller, kind, id_)


def permit(caller: Caller, verb: str, target: Target, wanted: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
    """Asks the verb's rule and those of the attributes given (on creation, only where they differ from the default). Raises Forbidden."""
    caller.require(target, verb)
    for name, value in wanted.items():
        if defaults is not None and name in defaults and value == defaults[name]:
            continue
        if f"{verb}:{name}" in rules.RULES:
            caller.require(target, f"{verb}:{name}")
        parts = value if isinstance(value, list) else [value]
        for part in {key for one in parts if isinstance(one, Mapping) for key in one}:
            if f"{verb}:{name}:{part}" in rules.RULES:
                caller.require(target, f"{verb}:{name}:{part}")


def show(caller: Caller, kind: Kind, id_: str) -> Record:
    with caller.read() as conn:
        record = visible(conn, caller, kind, id_)
    caller.require(kind.target(record), f"get_{kind.name}")
    return record


def listed(caller: Caller, kind: Kind, asked: Asked) -> tuple[list[Record], bool]:
    """The page's records and whether more follow. Raises BadRequest for a filter that is not one."""
    rule = f"get_{kind.name}"
    caller.asked.add(rule)
    select = kind.select().where(*_filters(kind, asked.filters))
    if not caller.allowed("context_is_admin", {}):
        select = select.where(kind.mine(caller.project_id))
    with caller.read() as conn:
        rows, more = paging.take(conn, select, kind.table, asked.page)
        records = kind.complete(conn, rows)
    return [record for record in records if caller.allowed(rule, kind.target(record))], more


def _filters(kind: Kind, filters: Mapping[str, Sequence[str]]) -> list[sa.ColumnElement[bool]]:
    found = []
    for name, values in filters.items():
        if name in kind.special:
            found.append(kind.special[name](values))
        elif name in kind.columns:
            column = kind.columns[name]
            found.append(column.in_([_typed(name, column, value) for value in values]))
        elif name in _TAG_FILTERS:
            found.append(_tagged(kind.table, name, [tag for value in values for tag in value.split(",")]))
        else:
            raise BadRequest(f"['{name}'] is invalid attribute for filtering", kind="HTTPBadRequest")
    return found


def _typed(name: str, column: sa.ColumnElement[Any], value: str) -> Any:
    if isinstance(column.type, sa.Boolean):
        if value.lower() not in ("true", "false", "1", "0"):
            raise BadRequest(f"Invalid input for {name}. Reason: '{value}' is not a boolean.", kind="HTTPBadRequest")
        return value.lower() in ("true", "1")
    if isinstance(column.type, sa.Integer):
        if not value.removeprefix("-").isdecimal():
            raise BadRequest(f"Invalid input for {name}. Reason: '{value}' is not an integer.", kind="HTTPBadRequest")
        return int(value)
    return value


_TAG_FILTERS = ("tags", "tags-any", "not-tags", "not-tags-any")


def _tagged(table: sa.Table, name: str, asked: Sequence[str]) -> sa.ColumnElement[bool]:
    have = [sa.exists().where(tags.c.resource_id == table.c.id, tags.c.tag == tag) for tag in asked]
    clause = sa.or_(*have) if name.endswith("any") else sa.and_(*have)
    return ~clause if name.startswith("not") else clause


_TAGS = Statement(sa.select(tags).where(tags.c.resource_id.in_(given_list("ids"))).order_by(tags.c.tag))


def tags_of(conn: db.Conn, resource_ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {id_: [] for id_ in resource_ids}
    for row in _TAGS.rows(conn, ids=resource_ids):
        found[row.resource_id].append(row.tag)
    return found


def grouped(conn: db.Conn, select: Statement, key: str, keys: Sequence[str]) -> dict[str, list[db.Row]]:
    """The rows that `select` gives for the `ids` in `keys`, by their column `key`; every one of `keys` is there."""
    found: dict[str, list[db.Row]] = {id_: [] for id_ in keys}
    for row in select.rows(conn, ids=keys):
        found.setdefault(getattr(row, key), []).append(row)
    return found


def deleted(tx: db.Tx, kind: Kind, id_: str) -> None:
    """Removes the row and what every resource has."""
    tx.delete(tags, resource_id=id_)
    if not tx.delete(kind.table, id=id_):
        raise kind.missing(id_)
    journal.changed(tx, kind.name, id_, "delete")


def set_tags(caller: Caller, kind: Kind, id_: str, wanted: Sequence[str]) -> list[str]:
    with caller.write() as tx:
        record = held(tx, caller, kind, id_)
        caller.require(kind.target(record), f"update_{kind.name}:tags")
        tx.delete(tags, resource_id=id_)
        for tag in dict.fromkeys(wanted):
            tx.insert(tags, resource_id=id_, tag=tag)
        touch(tx, kind, id_)
    return list(dict.fromkeys(wanted))


def add_tag(caller: Caller, kind: Kind, id_: str, tag: str) -> None:
    with caller.write() as tx:
        record = held(tx, caller, kind, id_)
        caller.require(kind.target(record), f"update_{kind.name}:tags")
        if tag not in record["tags"]:
            tx.insert(tags, resource_id=id_, tag=tag)
            touch(tx, kind, id_)


def remove_tags(caller: Caller, kind: Kind, id_: str, tag: str | None = None) -> None:
    """One tag, or all. Raises TagNotFound."""
    with caller.write() as tx:
        record = held(tx, caller, kind, id_)
        caller.require(kind.target(record), f"delete_{kind.name}:tags")
        if tag is not None and tag not in record["tags"]:
            raise fault("TagNotFound", tag=tag)
        tx.delete(tags, resource_id=id_, **({"tag": tag} if tag is not None else {}))
        touch(tx, kind, id_)


def read_tags(caller: Caller, kind: Kind, id_: str, tag: str | None = None) -> list[str]:
    """Raises TagNotFound when `tag` is asked for and not there."""
    with caller.read() as conn:
        record = visible(conn, caller, kind, id_)
    caller.require(kind.target(record), f"get_{kind.name}:tags")
    if tag is not None and tag not in record["tags"]:
        raise fault("TagNotFound", tag=tag)
    return list(record["tags"])
