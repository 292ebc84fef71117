"""What a list is narrowed to: by equality on its kind's filters, and by upstream's inexact ones on those that are text
(`name__contains`, `__startswith`, `__endswith`, each with an `i` in front where case does not count). What else a query says is ignored.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from nacre.core.errors import BadRequest
from nacre.identity import tables

Condition = sa.ColumnElement[bool]
_INEXACT = ("contains", "startswith", "endswith")
_ORDER = {"lt": "__lt__", "lte": "__le__", "gt": "__gt__", "gte": "__ge__", "eq": "__eq__", "neq": "__ne__"}


def true(text: str) -> bool:
    """A flag of a query, as upstream reads it."""
    return text.lower() not in ("false", "0")


def conditions(table: sa.Table, filters: tuple[str, ...], asked: Mapping[str, str]) -> Iterator[Condition]:
    """Raises BadRequest for a moment that is none."""
    for name in filters:
        column = table.c[name]
        if name in asked:
            if name == "password_expires_at":
                yield _moment(column, name, asked[name])
            else:
                yield column == (true(asked[name]) if name == "enabled" else asked[name])
        if isinstance(column.type, sa.String):
            for word in _INEXACT:
                if f"{name}__{word}" in asked:
                    yield _part(column, word, asked[f"{name}__{word}"])
                if f"{name}__i{word}" in asked:
                    yield getattr(column, f"i{word}")(asked[f"{name}__i{word}"], autoescape=True)
    if table is tables.projects:
        yield from _tags(asked)


def _part(column: sa.Column[Any], word: str, value: str) -> Condition:
    """Without LIKE, in which case does not count on SQLite."""
    if word == "contains":
        return sa.func.replace(column, value, "") != column if value else sa.true()
    if word == "startswith":
        return sa.func.substr(column, 1, len(value)) == value
    return sa.and_(sa.func.length(column) >= len(value), sa.func.substr(column, sa.func.length(column) - len(value) + 1) == value)


def _moment(column: sa.Column[Any], name: str, text: str) -> Condition:
    """`lt:2030-01-01T00:00:00Z`, and the like."""
    way, _, moment = text.partition(":") if text.partition(":")[0] in _ORDER else ("eq", "", text)
    try:
        found = datetime.fromisoformat(moment)
        found = found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, OverflowError):
        raise BadRequest(f"Invalid input for field/attribute {name}. '{text}' is not an operator and a moment in ISO 8601.",
                         kind="ValidationError") from None  # fmt: skip
    condition: Condition = getattr(column, _ORDER[way])(found)
    return condition


def _tags(asked: Mapping[str, str]) -> Iterator[Condition]:
    """Projects with all of these tags, with any of them, and those without."""
    for parameter, every in (("tags", True), ("tags-any", False), ("not-tags", True), ("not-tags-any", False)):
        if parameter in asked:
            found = tables.projects.c.id.in_(_tagged(set(asked[parameter].split(",")), every=every))
            yield sa.not_(found) if parameter.startswith("not-") else found


def _tagged(names: set[str], *, every: bool) -> sa.Select[Any]:
    """Ids of projects with every one of these tags, or with any."""
    tag = tables.project_tags.c
    query = sa.select(tag.project_id).where(tag.name.in_(names))
    return query.group_by(tag.project_id).having(sa.func.count() == len(names)) if every else query
