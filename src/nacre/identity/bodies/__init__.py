"""Wire shapes of identity. Source: Identity API v3, https://docs.openstack.org/api-ref/identity/v3/

What a request says beyond its shape is kept and shown as it was said (`Open`), as upstream does with attributes that it does not know.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.versions import UNSET, Body, UnsetType, Version
from nacre.identity.service.directory import Kind, Record


def when(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") + "Z" if moment is not None else None


def moment(at: datetime | None) -> str | None:
    """When a password ends, which upstream says without a zone."""
    return at.isoformat(timespec="microseconds") if at is not None else None


def token(caller: Caller, catalog: msgspec.Raw | None) -> dict[str, Any]:
    """The body of a token as its holder or a service sees it; without catalog where the scope has none or it was not wanted."""
    domain = {"id": caller.user_domain_id, "name": caller.user_domain_name}
    ends = moment(caller.extra.get("password_expires_at"))
    shown: dict[str, Any] = {
        "methods": list(caller.methods), "audit_ids": list(caller.audit_ids),
        "issued_at": when(caller.issued_at), "expires_at": when(caller.expires_at),
        "user": {"id": caller.user_id, "name": caller.user_name, "domain": domain, "password_expires_at": ends},
    }  # fmt: skip
    if caller.project_id:
        home = {"id": caller.project_domain_id, "name": caller.project_domain_name}
        shown |= {"project": {"id": caller.project_id, "name": caller.project_name, "domain": home}, "is_domain": False}
    elif caller.domain_id:
        shown["domain"] = {"id": caller.domain_id, "name": caller.domain_name}
    elif caller.system_scope:
        shown["system"] = {"all": True}
    if "trust" in caller.extra:
        shown["OS-TRUST:trust"] = caller.extra["trust"]
    if "application_credential" in caller.extra:
        shown["application_credential"] = caller.extra["application_credential"]
    if caller.roles:
        shown["roles"] = list(caller.extra["roles"])
        if catalog is not None:
            shown["catalog"] = catalog
    return {"token": shown}


@lru_cache(maxsize=64)
def services(rows: tuple[db.Row, ...], public: str, authority: str) -> list[dict[str, Any]]:
    """The catalog: services with their endpoints; those at `public` as the client reaches it. It is the same for most tokens: not to be changed."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        service = found.setdefault(row.id, {"id": row.id, "type": row.type, "name": row.name, "endpoints": []})
        url = authority + row.url.removeprefix(public) if row.url.startswith(public) else row.url
        region = {"region": row.region_id, "region_id": row.region_id}
        service["endpoints"].append({"id": row.endpoint_id, "interface": row.interface, **region, "url": url})
    return list(found.values())


_HIDDEN = ("password", "login_")
_ALSO: Mapping[str, Mapping[str, Any]] = {
    "domain": {"tags": []},
    "project": {"is_domain": False, "tags": []},
    "trust": {"deleted_at": None},
}


def resource(record: Record, url: str, kind: Kind) -> dict[str, Any]:
    """A record of the directory as upstream shows it."""
    shown = {name: value for name, value in record.items() if not name.startswith(_HIDDEN) or name == "password_expires_at"}
    if "options" in shown:
        shown["options"] = shown["options"] or {}
    if kind.word == "user":
        shown["password_expires_at"] = moment(shown["password_expires_at"])
    if kind.word == "endpoint":
        shown["region"] = shown["region_id"]
    if kind.word == "trust":
        shown["expires_at"] = when(shown["expires_at"])
        address = f"{url}{kind.address}/{record['id']}/roles"
        shown["roles_links"] = {"self": address, "previous": None, "next": None}
    for way in ("parents", "subtree"):
        if isinstance(shown.get(way), list):
            shown[way] = [{"project": resource(one, url, kind)} for one in shown[way]]
    return {**_ALSO.get(kind.word, {}), **shown, "links": {"self": f"{url}{kind.address}/{record['id']}"}}


def assignment(row: Mapping[str, Any], url: str) -> dict[str, Any]:
    """A grant, or what it comes to; `named` where names are wanted."""
    named, kind = row.get("named", {}), row["scope"]

    def shown(word: str, row_id: str) -> dict[str, Any]:
        return dict(named.get(word, {}).get(row_id) or {"id": row_id})

    (place, place_id), (by, by_id), implied = row["origin"], row["by"], row["prior_id"] is not None
    place, inherited = place.removeprefix("under-"), place.startswith("under-")
    scope: dict[str, Any] = {kind: {"all": True} if kind == "system" else shown(kind, row["scope_id"])}
    where = "system" if place == "system" else f"{place}s/{place_id}"
    path = f"{where}/{by}s/{by_id}/roles/{row['prior_id'] if implied else row['role_id']}"
    links = {"assignment": f"{url}/v3/OS-INHERIT/{path}/inherited_to_projects" if inherited else f"{url}/v3/{path}"}
    if inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    if by != row["actor"]:
        links["membership"] = f"{url}/v3/groups/{by_id}/users/{row['actor_id']}"
    if implied:
        links["prior_role"] = f"{url}/v3/prior_role/{row['prior_id']}/implies/{row['role_id']}"
    return {"role": shown("role", row["role_id"]), row["actor"]: shown(row["actor"], row["actor_id"]), "scope": scope, "links": links}


def role_named(role: Record, url: str) -> dict[str, Any]:
    return {"id": role["id"], "name": role["name"], "links": {"self": f"{url}/v3/roles/{role['id']}"}}


def inference(one: tuple[Record, Sequence[Record]], url: str) -> dict[str, Any]:
    prior, implied = one
    return {"prior_role": role_named(prior, url), "implies": [role_named(role, url) for role in implied]}


class Open(Body):
    """The body of what may say more than its shape. Decoded it is a dict of what was said, with all beyond the shape as `extra`, so that
    nobody reaches a column by its name; ids and links are ours to give."""

    def __init__(self, wrapper: str, shape: type[msgspec.Struct]) -> None:
        super().__init__(wrapper, shape, lax=False, extra=True)

    def decode(self, raw: bytes, version: Version) -> dict[str, Any]:
        """Raises BadRequest naming the field."""
        known = super().decode(raw, version)
        names = {field.encode_name for field in msgspec.structs.fields(known)}
        said = msgspec.json.decode(raw)[self.wrapper]
        extra = {name: value for name, value in said.items() if name not in names and name not in ("id", "links", "extra")}
        return {name: value for name, value in said.items() if name in names} | ({"extra": extra} if extra else {})


_MOST = 0x7FFFFFFF
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\S")]
Short = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\S")]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=65535)]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^,/]+$")]


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    immutable: bool | UnsetType | None = UNSET


class UserOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """None takes an option back."""

    ignore_change_password_upon_first_use: bool | UnsetType | None = UNSET
    ignore_password_expiry: bool | UnsetType | None = UNSET
    ignore_lockout_failure_attempts: bool | UnsetType | None = UNSET
    ignore_user_inactivity: bool | UnsetType | None = UNSET
    lock_password: bool | UnsetType | None = UNSET
    multi_factor_auth_enabled: bool | UnsetType | None = UNSET
    multi_factor_auth_rules: list[Annotated[list[str], msgspec.Meta(min_length=1)]] | UnsetType | None = UNSET


class DomainChange(msgspec.Struct, kw_only=True):
    name: Short | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    options: Options | UnsetType = UNSET


class NewDomain(DomainChange, kw_only=True):
    name: Short


class ProjectChange(DomainChange, kw_only=True):
    domain_id: Id | UnsetType | None = UNSET
    parent_id: Id | UnsetType | None = UNSET
    is_domain: bool | UnsetType = UNSET
    tags: list[Tag] | UnsetType = UNSET


class Tags(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    tags: list[Tag]


class NewProject(ProjectChange, kw_only=True):
    name: Short


class UserChange(msgspec.Struct, kw_only=True):
    name: Name | UnsetType = UNSET
    password: Annotated[str, msgspec.Meta(max_length=4096)] | UnsetType | None = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    domain_id: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    options: UserOptions | UnsetType = UNSET


class NewUser(UserChange, kw_only=True):
    name: Name


class NewPassword(msgspec.Struct, kw_only=True):
    original_password: Annotated[str, msgspec.Meta(max_length=4096)]
    password: Annotated[str, msgspec.Meta(max_length=4096)]


class GroupChange(msgspec.Struct, kw_only=True):
    name: Short | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    domain_id: Id | UnsetType | None = UNSET


class NewGroup(GroupChange, kw_only=True):
    name: Short


class RoleChange(msgspec.Struct, kw_only=True):
    name: Name | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    domain_id: Id | UnsetType | None = UNSET
    options: Options | UnsetType = UNSET


class NewRole(RoleChange, kw_only=True):
    name: Name


class Region(msgspec.Struct, kw_only=True):
    id: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    parent_region_id: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType | None = UNSET


class ServiceChange(msgspec.Struct, kw_only=True):
    type: Name | UnsetType = UNSET
    name: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class NewService(ServiceChange, kw_only=True):
    type: Name


class EndpointChange(msgspec.Struct, kw_only=True):
    interface: Literal["public", "internal", "admin"] | UnsetType = UNSET
    service_id: Id | UnsetType = UNSET
    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)] | UnsetType = UNSET
    region_id: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType | None = UNSET
    region: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class NewEndpoint(EndpointChange, kw_only=True):
    interface: Literal["public", "internal", "admin"]
    service_id: Id
    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]


class PolicyChange(msgspec.Struct, kw_only=True):
    type: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType = UNSET
    blob: Text | UnsetType = UNSET


class NewPolicy(PolicyChange, kw_only=True):
    type: Annotated[str, msgspec.Meta(max_length=255)]
    blob: Text


class CredentialChange(msgspec.Struct, kw_only=True):
    user_id: Id | UnsetType = UNSET
    project_id: Id | UnsetType | None = UNSET
    type: Name | UnsetType = UNSET
    blob: Text | UnsetType = UNSET


class NewCredential(CredentialChange, kw_only=True):
    type: Name
    blob: Text


class RoleReference(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    id: Id | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class NewTrust(msgspec.Struct, kw_only=True):
    trustor_user_id: Id
    trustee_user_id: Id
    impersonation: bool
    project_id: Id | UnsetType | None = UNSET
    roles: list[RoleReference] | UnsetType = UNSET
    expires_at: str | UnsetType | None = UNSET
    remaining_uses: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] | UnsetType | None = UNSET
    allow_redelegation: bool | UnsetType | None = UNSET
    redelegation_count: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] | UnsetType | None = UNSET


Limit = Annotated[int, msgspec.Meta(ge=-1, le=_MOST)]


class RegisteredLimitChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    service_id: Id | UnsetType = UNSET
    region_id: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType | None = UNSET
    resource_name: Name | UnsetType = UNSET
    default_limit: Limit | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET


class NewRegisteredLimit(RegisteredLimitChange, kw_only=True, forbid_unknown_fields=True):
    service_id: Id
    resource_name: Name
    default_limit: Limit


class NewRegisteredLimits(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    registered_limits: Annotated[list[NewRegisteredLimit], msgspec.Meta(min_length=1)]


class LimitChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    resource_limit: Limit | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET


class NewLimit(LimitChange, kw_only=True, forbid_unknown_fields=True):
    service_id: Id
    resource_name: Name
    resource_limit: Limit
    region_id: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType | None = UNSET
    project_id: Id | UnsetType | None = UNSET
    domain_id: Id | UnsetType | None = UNSET


class NewLimits(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    limits: Annotated[list[NewLimit], msgspec.Meta(min_length=1)]


class Filters(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    interface: Literal["public", "internal", "admin"] | UnsetType = UNSET
    service_id: Id | UnsetType = UNSET
    region_id: Annotated[str, msgspec.Meta(max_length=255)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.interface is self.service_id is self.region_id is UNSET:
            raise ValueError("filters field is required and cannot be empty")


class EndpointGroupChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: Name | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    filters: Filters | UnsetType | None = UNSET


class NewEndpointGroup(EndpointGroupChange, kw_only=True, forbid_unknown_fields=True):
    name: Name
    filters: Filters
