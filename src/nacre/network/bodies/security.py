"""Security groups and rules on the wire."""

from typing import Any

import msgspec

from nacre.core.versions import UNSET, UnsetType
from nacre.network.bodies import Name, Ref, change, one_or_many, standard


class GroupChange(msgspec.Struct, forbid_unknown_fields=True):
    name: Name | UnsetType = UNSET
    description: Name | UnsetType = UNSET
    stateful: bool | UnsetType = UNSET


class NewGroup(GroupChange, forbid_unknown_fields=True):
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET


class NewRule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    security_group_id: Ref
    direction: str
    ethertype: str | UnsetType | None = UNSET
    protocol: str | int | UnsetType | None = UNSET
    port_range_min: str | int | UnsetType | None = UNSET
    port_range_max: str | int | UnsetType | None = UNSET
    remote_ip_prefix: str | UnsetType | None = UNSET
    remote_group_id: Ref | UnsetType | None = UNSET
    remote_address_group_id: UnsetType | None = UNSET
    description: Name | UnsetType | None = UNSET
    tenant_id: Ref | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET


NEW_GROUP, CHANGE_GROUP = one_or_many("security_group", "security_groups", NewGroup), change("security_group", GroupChange)
NEW_RULE = one_or_many("security_group_rule", "security_group_rules", NewRule)


def group(record: dict[str, Any]) -> dict[str, Any]:
    return {**standard(record), "stateful": record["stateful"], "shared": False, "security_group_rules": [rule(one) for one in record["rules"]]}


def rule(record: dict[str, Any]) -> dict[str, Any]:
    shown = standard(record)
    del shown["name"]
    names = ("security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id")
    return {**shown, **{name: record[name] for name in names}, "remote_address_group_id": None}
