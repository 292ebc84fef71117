"""Query strings of placement: resources, traits, aggregates, groups of ids. Pure; every complaint names the parameter."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from nacre.core.errors import BadRequest
from nacre.core.versions import Version

_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Wanted:
    """What providers must be: offer `resources`, have `required` and not `forbidden` traits, be in one aggregate of each of `groups`."""

    resources: dict[str, int]
    required: frozenset[str]
    forbidden: frozenset[str]
    groups: tuple[frozenset[str], ...]


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def bad(name: str, said: str) -> BadRequest:
    return BadRequest(f"Invalid query string parameters: {name}: {said}", kind="placement.query.bad_value")


def known(query: QueryParams, names: Iterable[tuple[str, Version]], version: Version) -> None:
    """Raises BadRequest for a parameter that this version does not have."""
    allowed = {name for name, first in names if first <= version}
    for name in query:
        if name not in allowed:
            raise BadRequest(f"Invalid query string parameters: Additional properties are not allowed ('{name}' was unexpected)")


def wanted(query: QueryParams, version: Version) -> Wanted:
    required, forbidden = traits(query.get("required"), version)
    members = query.getlist("member_of")
    if len(members) > 1 and version < (1, 24):
        raise BadRequest("Invalid query string parameters: member_of may be given once", kind="placement.query.duplicate_key")
    return Wanted(resources(query.get("resources")), required, forbidden, tuple(group(text) for text in members))


def resources(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, amount = part.partition(":")
        if not re.fullmatch(r"[A-Z0-9_]+", name) or not re.fullmatch(r"[1-9]\d{0,9}", amount):
            raise bad("resources", f"expected CLASS:AMOUNT, not '{part}'")
        if name in found:
            raise bad("resources", f"'{name}' is given twice")
        found[name] = int(amount)
    return found


def traits(text: str | None, version: Version) -> tuple[frozenset[str], frozenset[str]]:
    """(required, forbidden)."""
    parts = text.split(",") if text is not None else []
    for part in parts:
        if not re.fullmatch(r"!?[A-Z0-9_]+" if version >= (1, 22) else r"[A-Z0-9_]+", part):
            raise bad("required", f"expected a list of traits, not '{text}'")
    required = frozenset(part for part in parts if not part.startswith("!"))
    forbidden = frozenset(part[1:] for part in parts if part.startswith("!"))
    if required & forbidden:
        raise bad("required", f"{', '.join(sorted(required & forbidden))} both required and forbidden")
    return required, forbidden


def group(text: str) -> frozenset[str]:
    ids = text[3:].split(",") if text.startswith("in:") else [text]
    for each in ids:
        if not _ID.fullmatch(each):
            raise bad("member_of", f"Expected 'member_of' to contain valid UUID strings, not '{each}'")
    return frozenset(ids)


def limit(query: QueryParams) -> int | None:
    text = query.get("limit")
    if text is not None and not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise bad("limit", f"'{text}' is not a positive number")
    return int(text) if text else None

