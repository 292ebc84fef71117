"""Wire shapes. A request is decoded into a struct whose fields are all optional where upstream's are; `given` is what was said, by wire
name. An answer is rendered from a record, in upstream's order of attributes nowhere relied on."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType

Name = Annotated[str, msgspec.Meta(max_length=255)]
HostName = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.|\Z))*\Z")]
"""Labels of letters, digits and dashes, or nothing: it is written into what dnsmasq reads."""
Ref = Annotated[str, msgspec.Meta(max_length=255)]


def given(shape: Any) -> dict[str, Any]:
    """Wire name -> value of what the request says."""
    if isinstance(shape, dict):
        return shape
    found = {}
    for field in msgspec.structs.fields(shape):
        value = getattr(shape, field.name)
        if value is not UNSET:
            found[field.encode_name] = value
    return found


def one_or_many(singular: str, plural: str, shape: type) -> Body:
    """The body of a creation, which may be of several."""
    hints = {singular: shape | UnsetType, plural: list[shape] | UnsetType}  # type: ignore[valid-type]
    return Body(None, type("Create", (), {"__annotations__": hints, singular: UNSET, plural: UNSET}))


def change(singular: str, shape: type) -> Body:
    """The body of an update."""
    return Body(None, type("Change", (), {"__annotations__": {singular: shape}}))


def changed(body: Any) -> dict[str, Any]:
    """Wire name -> value of what an update says."""
    return given(getattr(body, msgspec.structs.fields(body)[0].name))


def several(body: Any, singular: str, plural: str) -> tuple[list[dict[str, Any]], bool]:
    """What is to be made, and whether the answer is a list. Raises BadRequest."""
    one, many = getattr(body, singular), getattr(body, plural)
    if (one is UNSET) == (many is UNSET):
        raise BadRequest(f"Unable to find '{singular}' in request body", kind="HTTPBadRequest")
    if many is not UNSET:
        if not many:
            raise BadRequest("Resources required", kind="HTTPBadRequest")
        return [given(item) for item in many], True
    return [given(one)], False


def moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds") + "Z"


def standard(record: dict[str, Any]) -> dict[str, Any]:
    """What every resource shows."""
    return {
        "id": record["id"], "name": record["name"], "tenant_id": record["project_id"], "project_id": record["project_id"],
        "description": record["description"], "created_at": moment(record["created_at"]), "updated_at": moment(record["updated_at"]),
        "revision_number": record["revision_number"], "tags": record["tags"],
    }  # fmt: skip


class Tags:
    tags: list[Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern="^[^,/]+$")]]
