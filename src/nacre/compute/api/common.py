"""What handlers share."""

import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from nacre.core.errors import BadRequest
from nacre.core.http import Call
from nacre.core.versions import UNSET


def strict_query(call: Call, known: Collection[str], since: tuple[int, int] = (2, 75)) -> None:
    """From `since` on an unknown query parameter is refused; before, it is ignored. Raises BadRequest."""
    unknown = [name for name in call.query if name not in known]
    if unknown and call.version >= since:
        raise BadRequest(f"Additional properties are not allowed ({', '.join(repr(name) for name in unknown)} was unexpected)")


def page(word: str, shown: Sequence[Any], following: str | None) -> dict[str, Any]:
    """A list, with the link to its next page if there is one."""
    return {word: list(shown)} | ({f"{word}_links": [{"rel": "next", "href": following}]} if following else {})


def moment(call: Call, name: str) -> datetime | None:
    """A query parameter that is a time, as naive UTC. Raises BadRequest."""
    text = call.query.get(name)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        raise BadRequest(f"Invalid input for query parameters {name}. Value: {text}. '{text}' is not a 'date-time'") from error
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo is not None else found


def admin_password(call: Call, given: Any) -> dict[str, str]:
    """The password that an answer shows: the one `given`, else a random one. It is said once and kept nowhere."""
    if not call.cloud.config.api.enable_instance_password:
        return {}
    return {"adminPass": given if given not in (None, UNSET) else secrets.token_urlsafe(9)}
