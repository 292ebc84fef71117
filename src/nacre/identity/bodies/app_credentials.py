"""Wire shapes of application credentials and access rules. Source: Identity API v3, "Application Credentials"."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from nacre.core.versions import UNSET, Body, UnsetType
from nacre.identity.bodies import Id, Name, RoleReference, Text
from nacre.identity.service.directory import Record


class Rule(msgspec.Struct, kw_only=True):
    """A new one, or by its id one that there is."""

    id: Id | UnsetType = UNSET
    service: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    method: Literal["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"] | UnsetType = UNSET
    path: Annotated[str, msgspec.Meta(max_length=225, pattern="^/")] | UnsetType = UNSET


class NewAppCredential(msgspec.Struct, kw_only=True):
    id: str | UnsetType = UNSET
    name: Name
    secret: Annotated[str, msgspec.Meta(max_length=4096)] | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    project_id: str | UnsetType = UNSET
    roles: list[RoleReference] | UnsetType = UNSET
    access_rules: Annotated[list[Rule], msgspec.Meta(max_length=1000)] | UnsetType = UNSET
    unrestricted: bool | UnsetType | None = UNSET
    system: str | UnsetType | None = UNSET


class _Dicts(Body):
    """Decoded it is a dict of what was said."""

    def decode(self, raw: bytes, version: tuple[int, int]) -> dict[str, Any]:
        said: dict[str, Any] = msgspec.to_builtins(super().decode(raw, version))
        return said


NEW = _Dicts("application_credential", NewAppCredential, lax=False)


def shown(record: Record, url: str) -> dict[str, Any]:
    ends = record["expires_at"]
    links = {"self": f"{url}/v3/users/{record['user_id']}/application_credentials/{record['id']}"}
    roles = [{name: role[name] for name in ("id", "name", "description", "options")} | {"domain_id": None} for role in record["roles"]]
    return {**record, "roles": [role | {"options": role["options"] or {}} for role in roles], "system": None, "links": links,
            "expires_at": ends.isoformat(timespec="microseconds") if ends is not None else None}  # fmt: skip


def rule(record: Mapping[str, Any], url: str) -> dict[str, Any]:
    said = {name: record[name] for name in ("id", "service", "method", "path")}
    return {**said, "links": {"self": f"{url}/v3/users/{record['user_id']}/access_rules/{record['id']}"}}
