"""Wire shapes of flavors."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from nacre.compute.bodies.common import Flag, truth
from nacre.core import db
from nacre.core.errors import BadRequest
from nacre.core.versions import Body, Version, since

_MAX = 2**31 - 1
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Description = Annotated[str, msgspec.Meta(max_length=65535)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX)]
_Some = Annotated[int, msgspec.Meta(ge=1, le=_MAX)]


class CreateFlavor:
    name: Name
    ram: _Some
    vcpus: _Some
    disk: _Count
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^(?! )[a-zA-Z0-9. _-]+(?<! )$")] | int | None = None
    ephemeral: _Count = 0
    swap: _Count = 0
    rxtx_factor: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    is_public: Flag = True
    description: Annotated[Description | None, since(2, 55)] = None

    __rename__ = {"ephemeral": "OS-FLV-EXT-DATA:ephemeral", "is_public": "os-flavor-access:is_public"}


class UpdateFlavor:
    description: Description | None


class Access:
    tenant: Annotated[str, msgspec.Meta(min_length=1)]


CREATE, UPDATE = Body("flavor", CreateFlavor), Body("flavor", UpdateFlavor)
ADD_ACCESS, REMOVE_ACCESS = Body("addTenantAccess", Access), Body("removeTenantAccess", Access)


class ExtraSpecs:
    extra_specs: dict[str, Any]


EXTRA_SPECS = Body(None, ExtraSpecs)


def values(body: Any) -> dict[str, Any]:
    """Columns of the flavors table from a create body. Raises BadRequest."""
    if body.name != body.name.strip():
        raise BadRequest("Invalid input for field/attribute name. Leading or trailing spaces are not allowed.")
    flavor_id = None if body.id in (None, "", "auto") else str(body.id)
    return {"id": flavor_id, "name": body.name, "memory_mb": body.ram, "vcpus": body.vcpus, "root_gb": body.disk, "ephemeral_gb": body.ephemeral,
            "swap_mb": body.swap, "rxtx_factor": body.rxtx_factor, "is_public": truth(body.is_public), "description": getattr(body, "description",
                None)}  # fmt: skip


def basic(row: db.Row, url: str, version: Version) -> dict[str, Any]:
    shown = {"id": row.id, "name": row.name, "links": links(url, row.id)}
    return shown | ({"description": row.description} if version >= (2, 55) else {})


def detail(row: db.Row, url: str, version: Version, specs: bool) -> dict[str, Any]:
    shown = basic(row, url, version) | {
        "ram": row.memory_mb, "disk": row.root_gb, "swap": row.swap_mb or (0 if version >= (2, 75) else ""), "vcpus": row.vcpus,
        "OS-FLV-EXT-DATA:ephemeral": row.ephemeral_gb, "OS-FLV-DISABLED:disabled": row.disabled,
        "os-flavor-access:is_public": row.is_public, "rxtx_factor": row.rxtx_factor,
    }  # fmt: skip
    return shown | ({"extra_specs": row.extra_specs} if specs and version >= (2, 61) else {})


def links(url: str, flavor_id: str) -> list[dict[str, str]]:
    return [{"rel": "self", "href": f"{url}/v2.1/flavors/{flavor_id}"}, {"rel": "bookmark", "href": f"{url}/flavors/{flavor_id}"}]


def embedded(flavor: Mapping[str, Any], specs: bool) -> dict[str, Any]:
    """A server's flavor since 2.47."""
    shown = {"vcpus": flavor["vcpus"], "ram": flavor["memory_mb"], "disk": flavor["root_gb"], "ephemeral": flavor["ephemeral_gb"],
             "swap": flavor["swap_mb"], "original_name": flavor["name"]}  # fmt: skip
    return shown | ({"extra_specs": flavor["extra_specs"]} if specs else {})
