"""What all kinds of the directory share: how a row is found, listed, made, changed and ended.

A *record* is a row as a dict, with what requests said beyond its columns (`extra`) beside them. Who lacks the right is told so (403)
before whether there is such a row (404). Whatever changes what a token is worth counts the identity epoch up in its transaction.
What is immutable (an option of it) changes only together with that option, and does not go.
Races: two who take one name meet at the unique index; the loser is run again whole and finds the name taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, journal, paging
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden, NotFound
from nacre.identity import tables
from nacre.identity.service.filters import Condition, conditions

Record = dict[str, Any]
Wanted = Mapping[str, Any]
DEFAULT_DOMAIN = "default"


@dataclass(frozen=True)
class Kind:
    """A resource of the directory: its word, its table, the columns a list may be filtered by, those that tell it from others of its
    kind, and those that stay as they were made. `path` is where it is if that is not the plural of its word."""

    word: str
    table: sa.Table
    filters: tuple[str, ...]
    unique: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    path: str = ""

    @property
    def plural(self) -> str:
        return f"{self.word[:-1]}ies" if self.word.endswith("y") else f"{self.word}s"

    @property
    def address(self) -> str:
        return f"/v3/{self.path or self.plural}"

    def target(self, record: Wanted) -> Record:
        """What policy looks at, under both of upstream's spellings."""
        named = {f"{self.word}.{name}": value for name, value in record.items()}
        return {**named, **{f"target.{name}": value for name, value in named.items()}}


_HERE = ("domain_id", "name")
DOMAINS = Kind("domain", tables.domains, ("name", "enabled"), ("name",))
PROJECTS = Kind("project", tables.projects, ("name", "domain_id", "parent_id", "enabled"), _HERE, ("domain_id", "parent_id"))
USERS = Kind("user", tables.users, ("name", "domain_id", "enabled", "password_expires_at"), _HERE, ("domain_id",))
GROUPS = Kind("group", tables.groups, ("name", "domain_id"), _HERE, ("domain_id",))
ROLES = Kind("role", tables.roles, ("name",), _HERE, ("domain_id",))
REGIONS = Kind("region", tables.regions, ("parent_region_id",), fixed=("id",))
SERVICES = Kind("service", tables.services, ("name", "type"))
ENDPOINTS = Kind("endpoint", tables.endpoints, ("interface", "service_id", "region_id"))
_MUTABLE = ("domain", "project", "role")
POLICIES = Kind("policy", tables.policies, ("type",))


def record(row: db.Row) -> Record:
    found = dict(row._mapping)
    return {**(found.pop("extra", None) or {}), **found}


def missing(kind: Kind, row_id: str) -> NotFound:
    return NotFound(f"Could not find {kind.word}: {row_id}.")


def existing(conn: db.Conn, kind: Kind, row_id: str) -> db.Row:
    """Raises NotFound."""
    row = tables.by_id(conn, kind.table, row_id)
    if row is None:
        raise missing(kind, row_id)
    return row


def load(conn: db.Conn, caller: Caller, kind: Kind, row_id: str, rule: str = "") -> Record:
    """What the caller may do this to. Raises Forbidden naming the rule, NotFound."""
    row = tables.by_id(conn, kind.table, row_id)
    found = record(row) if row is not None else {}
    caller.require({"target.user.id": row_id, **kind.target(found)}, rule)
    if row is None:
        raise missing(kind, row_id)
    return found


def find(caller: Caller, kind: Kind, row_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return load(conn, caller, kind, row_id)


def listed(caller: Caller, kind: Kind, asked: Mapping[str, str]) -> list[Record]:
    """Raises Forbidden, BadRequest. A domain's token sees what is in its domain."""
    own = caller.domain_id if kind in (DOMAINS, PROJECTS, USERS, GROUPS) else None
    domain = own or (asked.get("id") if kind is DOMAINS else asked.get("domain_id"))
    caller.require({"target.domain_id": domain, "target.domain.id": domain, f"target.{kind.word}.domain_id": domain,
                    "target.user.id": asked.get("user_id")})  # fmt: skip
    mine = [] if own is None else [kind.table.c.id == own if kind is DOMAINS else kind.table.c.domain_id == own]
    with caller.read() as conn:
        return rows(conn, kind, asked, *mine)


def rows(conn: db.Conn, kind: Kind, asked: Mapping[str, str], *where: Condition) -> list[Record]:
    """A page of what the query's filters leave (all of it unless it says a limit), by name. Raises BadRequest."""
    query = sa.select(kind.table).where(*where, *conditions(kind.table, kind.filters, asked))
    keys = (("name", "asc"),) if "name" in kind.table.c else ()
    found, _ = paging.take(conn, query, kind.table, paging.Page(paging.limit_of(asked, None), asked.get("marker"), keys))
    return [record(row) for row in found]


def domain_of(conn: db.Conn, caller: Caller, wanted: Wanted) -> str:
    """The domain of a row to be: said, or the caller's own. Raises NotFound."""
    domain_id = wanted.get("domain_id") or caller.domain_id or caller.project_domain_id or DEFAULT_DOMAIN
    if tables.by_id(conn, tables.domains, domain_id) is None:
        raise missing(DOMAINS, domain_id)
    return str(domain_id)


def split(kind: Kind, wanted: Wanted) -> tuple[Record, Record]:
    """Columns, and what is kept beside them. A text that is null is none."""
    columns = {name: value for name, value in wanted.items() if name in kind.table.c and name not in ("id", "extra")}
    for name in ("description", "name"):
        if name in columns and columns[name] is None and not kind.table.c[name].nullable:
            columns[name] = ""
    others = {name: value for name, value in wanted.items() if name not in kind.table.c and name != "extra"}
    return columns, {**others, **wanted.get("extra", {})}


def insert(tx: db.Tx, kind: Kind, wanted: Wanted, row_id: str = "") -> Record:
    """A new row. Raises Conflict when another is called so."""
    columns, extra = split(kind, wanted)
    if "options" in columns:
        columns["options"] = _set(None, wanted["options"])
    row = {"id": row_id or ids.hex_id(), **columns}
    free(tx, kind, row)
    tx.insert(kind.table, **row, **({"extra": extra or None} if "extra" in kind.table.c else {}))
    journal.changed(tx, kind.word, row["id"], "create")
    return again(tx, kind, row["id"])


def free(tx: db.Tx, kind: Kind, row: Wanted, but: str = "") -> None:
    """Raises Conflict when another row has the same names."""
    if not kind.unique:
        return
    query = sa.select(kind.table.c.id).where(*(kind.table.c[name] == row[name] for name in kind.unique))
    if tx.first(query.where(kind.table.c.id != but) if but else query) is not None:
        where = f" at domain ID {row['domain_id']}" if "domain_id" in kind.unique and row["domain_id"] else ""
        raise Conflict(f"Conflict occurred attempting to store {kind.word} - Duplicate entry found with {kind.unique[-1]} "
                       f"{row[kind.unique[-1]]}{where}.")  # fmt: skip


def update(tx: db.Tx, kind: Kind, before: Record, wanted: Wanted) -> Record:
    """Changes what is said, keeps the rest. Raises BadRequest for what cannot be changed, Conflict, Forbidden (immutable)."""
    mutable(kind, before, wanted)
    for name in kind.fixed:
        if name in wanted and wanted[name] != before[name]:
            raise BadRequest(f"Invalid input for field/attribute {name}. It cannot be changed.", kind="ValidationError")
    columns, extra = split(kind, wanted)
    changed = [*columns, *extra]
    if "options" in columns:
        columns["options"] = _set(before.get("options"), wanted["options"])
    if any(name in columns for name in kind.unique):
        free(tx, kind, {**before, **columns}, before["id"])
    if extra:
        kept = tx.scalar(sa.select(kind.table.c.extra).where(kind.table.c.id == before["id"])) or {}
        columns["extra"] = {**kept, **extra}
    if columns:
        tx.update(kind.table, {"id": before["id"]}, **columns)
    journal.changed(tx, kind.word, before["id"], "update", changed)
    tables.bump_epoch(tx)
    return again(tx, kind, before["id"])


def _set(before: Wanted | None, wanted: Wanted) -> Record:
    """Options as they were, with those that are said; null ends one."""
    return {name: value for name, value in {**(before or {}), **wanted}.items() if value is not None}


def mutable(kind: Kind, before: Record, wanted: Wanted | None = None) -> None:
    """Before a change, or with nothing wanted an end. Raises Forbidden."""
    options = before.get("options") or {}
    freed = wanted is not None and not (wanted.get("options") or {"immutable": True}).get("immutable", True)
    if kind.word in _MUTABLE and options.get("immutable") and not freed:
        what = "delete" if wanted is None else "update"
        raise Forbidden(f"Unable to {what} immutable {kind.word} resource: `{before['id']}. Set resource option \"immutable\" to false first.",
                        kind=f"Resource{what.capitalize()}Forbidden")  # fmt: skip


def delete(tx: db.Tx, kind: Kind, row_id: str) -> None:
    tx.delete(kind.table, id=row_id)
    journal.changed(tx, kind.word, row_id, "delete")
    tables.bump_epoch(tx)


def again(tx: db.Tx, kind: Kind, row_id: str) -> Record:
    row = tables.by_id(tx, kind.table, row_id)
    assert row is not None
    return record(row)

