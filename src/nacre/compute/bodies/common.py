"""What several bodies share."""

import json
from datetime import datetime
from typing import Any

from nacre.core.errors import BadRequest
from nacre.core.versions import Body, Version


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
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else None


def micro(moment: datetime | None) -> str | None:
    """ISO 8601 as other resources show it: microseconds, no zone."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") if moment is not None else None
