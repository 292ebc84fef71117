"""Host aggregates on the wire. The availability zone is shown among the metadata too, as upstream keeps it."""

from typing import Annotated, Any

import msgspec

from nacre.compute.bodies.common import micro
from nacre.compute.service.aggregates import Aggregate
from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType, Version

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^\S(.*\S)?$")]
_Zone = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^:\s]([^:]*[^:\s])?$")]
ZONE = "availability_zone"


class CreateAggregate:
    name: _Name
    availability_zone: _Zone | None = None


class UpdateAggregate:
    name: _Name | UnsetType = UNSET
    availability_zone: _Zone | UnsetType | None = UNSET


class HostName:
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class SetMetadata:
    metadata: dict[Annotated[str, msgspec.Meta(min_length=1, max_length=255)], Annotated[str, msgspec.Meta(max_length=255)] | None]


CREATE, UPDATE, SET_METADATA = Body("aggregate", CreateAggregate), Body("aggregate", UpdateAggregate), Body("set_metadata", SetMetadata)
ADD_HOST, REMOVE_HOST = Body("add_host", HostName), Body("remove_host", HostName)


def changes(body: Any) -> dict[str, Any]:
    """Columns of an update. Raises BadRequest."""
    said = {"name": body.name, "zone": body.availability_zone}
    found = {name: value for name, value in said.items() if value is not UNSET}
    if not found:
        raise BadRequest("Invalid input for field/attribute aggregate. Value: {}. {} does not have enough properties")
    return found


def view(found: Aggregate, version: Version) -> dict[str, Any]:
    row = found.row
    zone = {} if row.zone is None else {ZONE: row.zone}
    shown = {"id": row.number, "name": row.name, ZONE: row.zone, "hosts": list(found.hosts), "metadata": row.meta | zone, "deleted": False,
             "created_at": micro(row.created_at), "updated_at": micro(row.updated_at), "deleted_at": None}  # fmt: skip
    return shown | ({"uuid": row.id} if version >= (2, 41) else {})


def created(found: Aggregate, version: Version) -> dict[str, Any]:
    """Without what a new one cannot have."""
    return {name: value for name, value in view(found, version).items() if name not in ("hosts", "metadata")}
