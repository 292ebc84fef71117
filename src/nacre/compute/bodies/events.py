"""What other services tell of servers. Names come with microversions."""

from typing import Annotated, Any, Literal

import msgspec

from nacre.core.errors import BadRequest
from nacre.core.versions import Body, Version

_NAMES = {"network-changed": (2, 1), "network-vif-plugged": (2, 1), "network-vif-unplugged": (2, 1), "network-vif-deleted": (2, 1),
          "volume-extended": (2, 51), "power-update": (2, 76), "accelerator-request-bound": (2, 82), "volume-reimaged": (2, 93)}  # fmt: skip


class Event(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    server_uuid: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$")]
    status: Literal["failed", "completed", "in-progress"] = "completed"
    tag: Annotated[str, msgspec.Meta(max_length=255)] = ""


class Events:
    events: Annotated[list[Event], msgspec.Meta(min_length=1)]


CREATE = Body(None, Events)


def told(body: Any, version: Version) -> list[Event]:
    """Raises BadRequest for a name that the version has not."""
    for event in body.events:
        if version < _NAMES.get(event.name, (3, 0)):
            raise BadRequest(f"Invalid input for field/attribute name. Value: {event.name}. '{event.name}' is not an event of this version")
    return list(body.events)


def view(event: Event, code: int) -> dict[str, Any]:
    shown = {"name": event.name, "server_uuid": event.server_uuid, "status": event.status if code == 200 else "failed", "code": code}
    return shown | ({"tag": event.tag} if event.tag else {})
