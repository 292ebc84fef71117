"""Subnet pools on the wire."""

from typing import Annotated, Any

import msgspec

from nacre.core.versions import UNSET, UnsetType
from nacre.network.bodies import Name, Ref, change, one_or_many, standard

Length = Annotated[int, msgspec.Meta(ge=0, le=128)]


class PoolChange(msgspec.Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    description: Name | UnsetType = UNSET
    prefixes: list[str] | UnsetType = UNSET
    default_prefixlen: Length | UnsetType | None = UNSET
    min_prefixlen: Length | UnsetType | None = UNSET
    max_prefixlen: Length | UnsetType | None = UNSET
    default_quota: Annotated[int, msgspec.Meta(ge=0)] | UnsetType | None = UNSET
    address_scope_id: UnsetType | None = UNSET
    is_default: bool | UnsetType = UNSET


class NewPool(PoolChange, forbid_unknown_fields=True, kw_only=True):
    name: Name
    prefixes: list[str]
    shared: bool | UnsetType = UNSET
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET


NEW_POOL, CHANGE_POOL = one_or_many("subnetpool", "subnetpools", NewPool), change("subnetpool", PoolChange)


def pool(record: dict[str, Any]) -> dict[str, Any]:
    names = ("ip_version", "prefixes", "default_prefixlen", "min_prefixlen", "max_prefixlen", "default_quota", "shared", "is_default")
    return {**standard(record), **{name: record[name] for name in names}, "address_scope_id": None}
