"""Names that we give: random, never derived from what a user sent."""

import uuid as _uuid


def uuid() -> str:
    """A new id with dashes, as compute, network, image and volume use."""
    return str(_uuid.uuid4())


def hex_id() -> str:
    """A new id of 32 hexadecimal digits, as identity uses."""
    return _uuid.uuid4().hex


def request_id() -> str:
    """The id of one request, in upstream's form."""
    return f"req-{_uuid.uuid4()}"
