"""What a list of images asks for: pure reading of the query into conditions.

Equality for every attribute and property; `in:` and quotes for name, id, status and formats; `gt: gte: lt: lte: eq: neq:` for times;
`_min` and `_max` for numbers. Source: Image API v2 reference, "List images".
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from starlette.datastructures import QueryParams

from nacre.core.config import Default
from nacre.core.errors import BadRequest
from nacre.core.paging import Page
from nacre.image.schema.images import MEMBER_STATUSES, TASK_STATUSES, VISIBILITIES
from nacre.image.tables import images, properties, tags

SORTABLE = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")
_NOT_FILTERS = {"limit", "marker", "sort", "sort_key", "sort_dir", "member_status", "visibility", "tag", "os_hidden"}
_Column = sa.Column[Any]
_TIMES: dict[str, Callable[[_Column, datetime, datetime], sa.ColumnElement[bool]]] = {
    "gt": lambda column, start, end: column >= end, "gte": lambda column, start, end: column >= start,
    "lt": lambda column, start, end: column < start, "lte": lambda column, start, end: column < end,
    "eq": lambda column, start, end: sa.and_(column >= start, column < end),
    "neq": lambda column, start, end: sa.or_(column < start, column >= end),
}  # fmt: skip
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)",?|([^,]+),?|,')


def page(query: QueryParams, options: Default) -> Page:
    """Raises BadRequest."""
    return Page(limit(query, options), query.get("marker"), _sorting(query))


def limit(query: QueryParams, options: Default) -> int:
    text = query.get("limit")
    if text is not None and not re.fullmatch(r"-?\d+", text):
        raise BadRequest("limit param must be an integer")
    asked = int(text) if text is not None else options.limit_param_default
    if asked < 0:
        raise BadRequest("limit param must be positive")
    return min(asked, options.api_limit_max)


def direction(query: QueryParams) -> str:
    way = query.get("sort_dir", "desc")
    if way not in ("asc", "desc"):
        raise BadRequest(f"Invalid sort direction: {way}")
    return way


def tasks_page(query: QueryParams, options: Default) -> Page:
    """The page of a list of tasks. Raises BadRequest."""
    key = query.get("sort_key", "created_at")
    columns = {"created_at": "created_at", "updated_at": "updated_at", "id": "id", "status": "state", "type": "kind", "expires_at": "finished_at"}
    if key not in columns:
        raise BadRequest(f"Sort key supplied is invalid: {key}")
    return Page(limit(query, options), query.get("marker"), ((columns[key], direction(query)),))


def metadefs_page(query: QueryParams, options: Default, sortable: Sequence[str]) -> Page:
    """The page of a list of metadata definitions. Raises BadRequest."""
    key = query.get("sort_key", "created_at")
    if key not in sortable:
        raise BadRequest(f"Sort key supplied is invalid: {key}")
    return Page(limit(query, options), query.get("marker"), ((key, direction(query)),))


def task_filter(name: str, value: str) -> None:
    """Raises BadRequest for a status or type that no task has."""
    if value not in {"status": TASK_STATUSES, "type": ("import",)}[name]:
        raise BadRequest(f"Invalid {name} value: {value}")


def _sorting(query: QueryParams) -> tuple[tuple[str, str], ...]:
    keys, ways = [key.strip() for key in query.getlist("sort_key")], [way.strip() for way in query.getlist("sort_dir")]
    if "sort" in query:
        if keys or ways:
            raise BadRequest("Old and new sorting syntax cannot be combined")
        pairs = [(key.strip(), way.strip() or "desc") for key, _, way in (part.partition(":") for part in query["sort"].split(","))]
    else:
        keys = keys or ["created_at"]
        if len(ways) > 1 and len(ways) != len(keys):
            raise BadRequest("Number of sort dirs does not match the number of sort keys")
        pairs = [(key, ways[n] if len(ways) > 1 else (ways or ["desc"])[0]) for n, key in enumerate(keys)]
    for key, way in pairs:
        if key not in SORTABLE:
            raise BadRequest(f"Invalid sort key: {key}. It must be one of the following: {', '.join(SORTABLE)}.")
        if way not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction: {way}")
    return tuple(pairs)


def member_status(query: QueryParams) -> str:
    asked = query.get("member_status", "accepted")
    if asked not in (*MEMBER_STATUSES, "all"):
        raise BadRequest(f"Invalid status: {asked}")
    return asked


def visibility(query: QueryParams) -> str | None:
    asked = query.get("visibility") or None
    if asked is not None and asked not in (*VISIBILITIES, "all"):
        raise BadRequest(f"Invalid visibility value: {asked}")
    return asked


def conditions(query: QueryParams) -> list[sa.ColumnElement[bool]]:
    """What rows of `images` must satisfy, besides being visible. Raises BadRequest naming the filter."""
    wanted: list[sa.ColumnElement[bool]] = [images.c.os_hidden.is_(_flag("os_hidden", query.get("os_hidden", "false")))]
    for label in query.getlist("tag"):
        wanted.append(images.c.id.in_(sa.select(tags.c.image_id).where(tags.c.value == label.strip())))
    for name, value in query.multi_items():
        if name == "changes-since":
            raise BadRequest('The "changes-since" filter is no longer available on v2.')
        if name not in _NOT_FILTERS:
            wanted.append(_condition(name, value))
    return wanted


def _condition(name: str, value: str) -> sa.ColumnElement[bool]:
    if name[-4:] in ("_min", "_max") and name[:-4] in ("size", "virtual_size", "min_ram", "min_disk"):
        bound = _number(name, value, "Unable to filter on a range with a non-numeric value.")
        return images.c[name[:-4]] >= bound if name.endswith("_min") else images.c[name[:-4]] <= bound
    if name in ("created_at", "updated_at"):
        return _when(name, value)
    if name in ("name", "id", "status", "container_format", "disk_format"):
        return _among(name, value)
    if name == "protected":
        return images.c.protected.is_(_flag(name, value))
    if name in ("size", "virtual_size", "min_ram", "min_disk"):
        return images.c[name] == _number(name, value, f"Invalid value '{value}' for '{name}' filter.")
    if name in ("owner", "checksum", "os_hash_algo", "os_hash_value"):
        return images.c[name] == value
    return images.c.id.in_(sa.select(properties.c.image_id).where(properties.c.name == name, properties.c.value == value))


def _among(name: str, value: str) -> sa.ColumnElement[bool]:
    how, colon, what = value.partition(":")
    if not colon:
        return images.c[name] == value
    if how == "in":
        return images.c[name].in_(list(_split(what)))
    if how == "eq":
        return images.c[name] == what
    raise BadRequest(f"Unable to filter by unknown operator '{how}'.")


def _split(text: str) -> Iterable[str]:
    if text.replace('\\"', "").count('"') % 2:
        raise BadRequest(f"Invalid filter value {text}. The quote is not closed.")
    return (quoted or plain for quoted, plain in _QUOTED.findall(text))


def _when(name: str, value: str) -> sa.ColumnElement[bool]:
    how, colon, rest = value.partition(":")
    how, text = (how, rest) if colon and not how[:1].isdigit() else ("eq", value)
    if how not in _TIMES:
        raise BadRequest("Unable to filter on a unknown operator.")
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
        at = at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
        start = at.replace(microsecond=0)  # images are shown to the second, so they are compared to the second
        end = start + timedelta(seconds=1)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f'Bad "{name}" query filter format. Use ISO 8601 DateTime notation.') from error
    return _TIMES[how](images.c[name], start, end)


def _number(name: str, value: str, complaint: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", value):
        raise BadRequest(complaint)
    return int(value)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise BadRequest(f"Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'.")
    return value.lower() == "true"
