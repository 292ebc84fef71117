"""What several bodies share."""

import ipaddress
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from nacre.core.errors import BadRequest
from nacre.core.versions import Body, Version

Flag = bool | Literal["True", "TRUE", "true", "ON", "On", "on", "YES", "Yes", "yes", "False", "FALSE", "false", "OFF", "Off", "off", "NO", "No", "no"]
"""A boolean as upstream spells it; `truth` says which."""
Metadata = dict[str, Any]
"""Checked by `metadata`, which names the key that is wrong."""
_KEY = re.compile(r"[a-zA-Z0-9-_:. ]{1,255}")


def truth(flag: Any) -> bool:
    return flag is True or str(flag).lower() in ("true", "on", "yes", "1")


def flag(field: str, value: Any) -> bool:
    """A boolean of a body that is not typed. Raises BadRequest."""
    if isinstance(value, bool) or str(value).lower() in ("true", "on", "yes", "1", "false", "off", "no", "0"):
        return truth(value)
    raise BadRequest(f"Invalid input for field/attribute {field}. Value: {value}. '{value}' is not a boolean")


def metadata(items: Mapping[str, Any]) -> dict[str, str]:
    """Raises BadRequest naming the item."""
    for key, value in items.items():
        if not _KEY.fullmatch(key):
            raise BadRequest(f"Invalid input for field/attribute metadata. '{key}' does not match the regex: '^[a-zA-Z0-9-_:. ]{{1,255}}$'")
        if not isinstance(value, str) or len(value) > 255:
            raise BadRequest(f"Invalid input for field/attribute metadata.{key}. Value: {value}. A string of at most 255 characters is expected")
    return dict(items)


def address(field: str, text: Any, version: int = 0) -> str:
    """An IP address (of `version`, if one is said) in its usual spelling. Raises BadRequest."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        found = None
    if found is None or version not in (0, found.version) or not isinstance(text, str):
        raise BadRequest(f"Invalid input for field/attribute {field}. Value: {text}. '{text}' is not a 'ipv{version or '4 or ipv6'}'")
    return str(found)


class Anything(Body):
    """A JSON object whose keys the handler checks itself; decoded to a dict."""

    def __init__(self) -> None:
        super().__init__(None, Anything)

    def decode(self, raw: bytes, version: Version) -> dict[str, Any]:
        try:
            value = json.loads(raw or b"null")
        except ValueError as error:
            raise BadRequest(f"Malformed request body: {error}") from error
        if not isinstance(value, dict):
            raise BadRequest("Malformed request body: an object is expected.")
        return value


ANYTHING = Anything()


def stamp(moment: datetime | None) -> str | None:
    """ISO 8601 as servers show it: 2026-01-31T12:00:00Z."""
    return moment.isoformat(timespec="seconds") + "Z" if moment is not None else None


def micro(moment: datetime | None) -> str | None:
    """ISO 8601 as other resources show it: microseconds, no zone."""
    return moment.isoformat(timespec="microseconds") if moment is not None else None
