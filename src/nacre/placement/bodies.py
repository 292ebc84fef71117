"""Wire shapes of placement. What one microversion changed is a field's window or a `version >= ...` beside the field."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from nacre.core import db
from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType, Version, since

_Id = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$")]
_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Class = Annotated[str, Meta(pattern=r"^[A-Z0-9_]{1,255}$")]
_Custom = Annotated[str, Meta(pattern=r"^CUSTOM_[A-Z0-9_]{1,248}$")]
_Some = Annotated[int, Meta(ge=1, le=2147483647)]
_Count = Annotated[int, Meta(ge=0, le=2147483647)]
_Who = Annotated[str, Meta(min_length=1, max_length=255)]


class NewProvider:
    name: _Name
    uuid: _Id | UnsetType = UNSET
    parent_provider_uuid: Annotated[_Id | UnsetType | None, since(1, 14)] = UNSET


class ChangedProvider:
    name: _Name
    parent_provider_uuid: Annotated[_Id | UnsetType | None, since(1, 14)] = UNSET


class Offer(msgspec.Struct, forbid_unknown_fields=True):
    """An inventory as sent."""

    total: _Some
    reserved: _Count = 0
    min_unit: _Some = 1
    max_unit: _Some = 2147483647
    step_size: _Some = 1
    allocation_ratio: Annotated[float, Meta(gt=0, le=3.40282e38)] = 1.0


class Inventories:
    resource_provider_generation: int
    inventories: dict[_Class, Offer]


class NewInventory(Offer, kw_only=True):
    resource_class: _Class
    resource_provider_generation: int | UnsetType = UNSET


class ChangedInventory(Offer, kw_only=True):
    resource_provider_generation: int


class NamedClass:
    name: _Custom


class Traits:
    traits: list[_Class]
    resource_provider_generation: int


class Aggregates:
    aggregates: list[_Id]
    resource_provider_generation: int


class _Provider(msgspec.Struct):
    uuid: _Id


class _Listed(msgspec.Struct, forbid_unknown_fields=True):
    resource_provider: _Provider
    resources: Annotated[dict[_Class, _Some], Meta(min_length=1)]


class _Keyed(msgspec.Struct):
    resources: Annotated[dict[_Class, _Some], Meta(min_length=1)]
    generation: int | None = None


class Allocation(msgspec.Struct, forbid_unknown_fields=True):
    """What one consumer shall hold, since 1.12."""

    allocations: dict[_Id, _Keyed]
    project_id: _Who
    user_id: _Who


class _Anonymous(msgspec.Struct, forbid_unknown_fields=True):
    allocations: Annotated[list[_Listed], Meta(min_length=1)]


class _Owned(_Anonymous, forbid_unknown_fields=True):
    project_id: _Who
    user_id: _Who


class _Plain(Body):
    """A body whose whole shape is chosen by the version: `shapes` = ((from version, type), ...), newest first."""

    def __init__(self, *shapes: tuple[Version, Any]) -> None:
        super().__init__(None, NamedClass)
        self.decoders = [(first, msgspec.json.Decoder(shape, strict=False)) for first, shape in shapes]

    def decode(self, raw: bytes, version: Version) -> Any:
        decoder = next(decoder for first, decoder in self.decoders if first <= version)
        try:
            return decoder.decode(raw)
        except msgspec.ValidationError as error:
            raise BadRequest(f"JSON does not validate: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"Malformed JSON: {error}") from error


ALLOCATION = _Plain(((1, 12), Allocation), ((1, 8), _Owned), ((0, 0), _Anonymous))
MANY_ALLOCATIONS = _Plain(((0, 0), Annotated[dict[_Id, Allocation], Meta(min_length=1)]))
OLD_AGGREGATES = _Plain(((0, 0), list[_Id]))


def wanted(body: Any) -> tuple[dict[str, dict[str, int]], str, str]:
    """(provider -> resources, project, user) of any version's allocation body."""
    nobody = "00000000-0000-0000-0000-000000000000"
    if isinstance(body, Allocation):
        return {provider: dict(keyed.resources) for provider, keyed in body.allocations.items()}, body.project_id, body.user_id
    listed = {each.resource_provider.uuid: dict(each.resources) for each in body.allocations}
    return listed, getattr(body, "project_id", nobody), getattr(body, "user_id", nobody)


def provider(row: db.Row, prefix: str, version: Version) -> dict[str, Any]:
    path = f"{prefix}/resource_providers/{row.id}"
    rels = ["inventories", "usages"]
    rels += ["aggregates"] if version >= (1, 1) else []
    rels += ["traits"] if version >= (1, 6) else []
    rels += ["allocations"] if version >= (1, 11) else []
    links = [{"rel": "self", "href": path}, *({"rel": rel, "href": f"{path}/{rel}"} for rel in rels)]
    tree = {"parent_provider_uuid": row.parent_id, "root_provider_uuid": row.root_id} if version >= (1, 14) else {}
    return {"uuid": row.id, "name": row.name, "generation": row.generation, "links": links, **tree}


def offer(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio")}


def candidates(found: Any, resources: Mapping[str, int], traits: Mapping[str, list[str]], version: Version) -> dict[str, Any]:
    """Allocation requests and summaries of the providers that fit."""
    share = {"resources": dict(resources)}
    requests: list[dict[str, Any]]
    if version >= (1, 12):
        requests = [{"allocations": {each.provider_id: share}} for each in found]
    else:
        requests = [{"allocations": [{"resource_provider": {"uuid": each.provider_id}, **share}]} for each in found]
    summaries: dict[str, dict[str, Any]] = {}
    for each in found:
        amounts = {name: {"capacity": each.inventories[name].capacity, "used": each.usages[name]} for name in resources}
        summaries[each.provider_id] = {"resources": amounts}
        if version >= (1, 17):
            summaries[each.provider_id]["traits"] = traits.get(each.provider_id, [])
    return {"allocation_requests": requests, "provider_summaries": summaries}
