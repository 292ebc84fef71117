"""limit / marker / sort: keyset paging for every list, so that no page costs more than the page.

A page is the rows after the marker's row in the order of the sort keys, with the unique key last. NULLs sort first going up on both
databases. Source: OpenStack API guidelines, "Pagination, Filtering and Sorting".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from starlette.datastructures import QueryParams

from nacre.core import db, statements
from nacre.core.errors import BadRequest

_DIGITS = 18  # what a database takes for a number; a list has no more rows


@dataclass(frozen=True)
class Page:
    """What was asked: at most `limit` rows (None: all) after `marker`, ordered by `keys` = ((column, "asc"|"desc"), ...)."""

    limit: int | None
    marker: str | None
    keys: tuple[tuple[str, str], ...]
    reverse: bool = False


def limit_of(query: Mapping[str, str], most: int | None) -> int | None:
    """The `limit` parameter, capped at `most`. Raises BadRequest."""
    text = query.get("limit")
    if text is None or text == "":
        return most
    if not text.isdecimal():
        raise BadRequest(f"Invalid input for query parameters limit. Value: {text}. '{text}' is not a non-negative integer")
    wanted = int(text) if len(text) <= _DIGITS else 10**_DIGITS
    return min(wanted, most) if most else wanted


def page_of(query: QueryParams, *, most: int | None, keys: Sequence[tuple[str, str]], sortable: Mapping[str, str]) -> Page:
    """Reads limit, marker, sort_key/sort_dir (repeated) or sort=a:asc,b. `sortable`: wire name -> column. Raises BadRequest."""
    asked: list[tuple[str, str]] = []
    if query.get("sort"):
        asked = [(part.partition(":")[0], part.partition(":")[2] or "asc") for part in query["sort"].split(",")]
    elif query.getlist("sort_key"):
        ways = query.getlist("sort_dir")
        asked = [(key, ways[n] if n < len(ways) else (ways[-1] if ways else "asc")) for n, key in enumerate(query.getlist("sort_key"))]
    for key, way in asked:
        if key not in sortable:
            raise BadRequest(f"Invalid input for query parameters sort_key. Value: {key}. '{key}' is not one of {sorted(sortable)}")
        if way not in ("asc", "desc"):
            raise BadRequest(f"Invalid input for query parameters sort_dir. Value: {way}. '{way}' is not one of ['asc', 'desc']")
    return Page(limit_of(query, most), query.get("marker"), tuple((sortable[key], way) for key, way in asked) or tuple(keys))


def take(conn: db.Conn, select: sa.Select[Any], table: sa.Table, page: Page, unique: str = "id",
         given: Mapping[str, Any] | None = None) -> tuple[list[db.Row], bool]:  # fmt: skip
    """The page's rows of `select` (over `table`), and whether more follow. Raises BadRequest for an unknown marker.
    `given`: the parameters of a select that is always the same one, which then is compiled once for each order."""
    ways = [*page.keys] + ([] if any(key == unique for key, _ in page.keys) else [(unique, page.keys[-1][1] if page.keys else "asc")])
    if page.reverse:
        ways = [(key, "asc" if way == "desc" else "desc") for key, way in ways]
    if page.marker is not None:
        marker = sa.literal(page.marker, table.c[unique].type)
        row = conn.execute(sa.select(*(table.c[key] for key, _ in ways)).where(table.c[unique] == marker)).first()
        if row is None:
            raise BadRequest(f"marker [{page.marker}] not found", kind="MarkerNotFound")
        select = select.where(_after(table, ways, tuple(row)))
    elif given is not None and page.limit is not None:
        rows = _first(select, table, tuple(ways)).rows(conn, **given, _limit=page.limit + 1)
        return _cut(rows, page)
    select = select.order_by(*_order(table, tuple(ways)))
    if page.limit is not None:
        select = select.limit(page.limit + 1)
    return _cut(statements.rows(conn, select.params(given) if given is not None else select), page)


def _cut(rows: list[db.Row], page: Page) -> tuple[list[db.Row], bool]:
    more = page.limit is not None and len(rows) > page.limit
    rows = rows[: page.limit] if more else rows
    return (rows[::-1] if page.reverse else rows), more


@lru_cache(64)
def _first(select: sa.Select[Any], table: sa.Table, ways: tuple[tuple[str, str], ...]) -> statements.Statement:
    return statements.Statement(select.order_by(*_order(table, ways)).limit(statements.given("_limit")))


@lru_cache(256)
def _order(table: sa.Table, ways: tuple[tuple[str, str], ...]) -> tuple[sa.ColumnElement[Any], ...]:
    order: list[sa.ColumnElement[Any]] = []
    for key, way in ways:
        column = table.c[key]
        both = [column.is_not(None), column.asc()] if way == "asc" else [column.is_not(None).desc(), column.desc()]
        order += both if column.nullable else both[1:]
    return tuple(order)


def _after(table: sa.Table, ways: list[tuple[str, str]], values: tuple[Any, ...]) -> sa.ColumnElement[bool]:
    """Lexicographic "comes later than `values`"."""
    later: sa.ColumnElement[bool] = sa.false()
    for (key, way), value in zip(reversed(ways), reversed(values), strict=True):
        column = table.c[key]
        beyond: sa.ColumnElement[bool]
        same: sa.ColumnElement[bool]
        if value is None:
            beyond, same = (column.is_not(None) if way == "asc" else sa.false()), column.is_(None)
        else:
            beyond, same = (column > value if way == "asc" else sa.or_(column < value, column.is_(None))), column == value
        later = sa.or_(beyond, sa.and_(same, later))
    return later


def link(url: str, query: QueryParams, marker: str) -> str:
    """The address of the page after `marker`, other parameters kept."""
    pairs = [(key, value) for key, value in query.multi_items() if key != "marker"]
    return f"{url}?{urlencode([*pairs, ('marker', marker)])}"
