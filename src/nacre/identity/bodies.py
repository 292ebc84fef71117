"""Wire shapes of identity. Source: Identity API v3, https://docs.openstack.org/api-ref/identity/v3/"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest
from nacre.core.versions import Body
from nacre.identity.service.auth import Asked


class Auth:
    identity: dict[str, Any]
    scope: dict[str, Any] | str | msgspec.UnsetType | None = msgspec.UNSET


AUTH = Body("auth", Auth)


def asked(body: Auth) -> Asked:
    """An authentication request in domain words. Raises BadRequest naming what is wrong."""
    methods = body.identity.get("methods")
    if not isinstance(methods, list) or not methods or not all(isinstance(method, str) for method in methods):
        raise BadRequest("Expecting to find methods in identity. The server could not comply with the request since it is malformed.")
    unknown = [method for method in methods if method not in ("password", "token")]
    if unknown:
        raise BadRequest(f"Authentication method {unknown[0]} is not supported.")
    scope = _scope(body.scope) if body.scope is not msgspec.UNSET else None
    if "token" in methods:
        return Asked(token=str(_part(body.identity, "token", "id")), methods=tuple(methods), scope=scope)
    user = _part(body.identity, "password", "user")
    if not isinstance(user, dict) or not isinstance(user.get("password"), str):
        raise BadRequest("Expecting to find password in user. The server could not comply with the request since it is malformed.")
    if not user.get("id") and not (user.get("name") and isinstance(user.get("domain"), dict)):
        raise BadRequest("Expecting to find domain in user. The server could not comply with the request since it is malformed.")
    return Asked(user=user, password=user["password"], methods=tuple(methods), scope=scope)


def _part(identity: Mapping[str, Any], method: str, name: str) -> Any:
    part = identity.get(method)
    if not isinstance(part, dict) or name not in part:
        raise BadRequest(f"Expecting to find {name} in {method}. The server could not comply with the request since it is malformed.")
    return part[name]


def _scope(scope: Any) -> Any:
    if scope == "unscoped" or (isinstance(scope, dict) and "unscoped" in scope):
        return "unscoped"
    if isinstance(scope, dict) and len(scope) == 1:
        kind, reference = next(iter(scope.items()))
        if kind == "system" and reference == {"all": True}:
            return "system", {}
        if kind in ("project", "domain") and isinstance(reference, dict) and (reference.get("id") or reference.get("name")):
            return kind, reference
    raise BadRequest("Invalid input for field/attribute scope. One of project, domain, system or unscoped is expected.")


def when(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") + "Z" if moment is not None else None


def token(caller: Caller, catalog: Sequence[db.Row] | None) -> dict[str, Any]:
    """The body of a token as its holder or a service sees it; without catalog where the scope has none or it was not wanted."""
    domain = {"id": caller.user_domain_id, "name": caller.user_domain_name}
    shown: dict[str, Any] = {
        "methods": list(caller.methods), "audit_ids": list(caller.audit_ids),
        "issued_at": when(caller.issued_at), "expires_at": when(caller.expires_at),
        "user": {"id": caller.user_id, "name": caller.user_name, "domain": domain, "password_expires_at": None},
    }  # fmt: skip
    if caller.project_id:
        home = {"id": caller.project_domain_id, "name": caller.project_domain_name}
        shown |= {"project": {"id": caller.project_id, "name": caller.project_name, "domain": home}, "is_domain": False}
    elif caller.domain_id:
        shown["domain"] = {"id": caller.domain_id, "name": caller.domain_name}
    elif caller.system_scope:
        shown["system"] = {"all": True}
    if caller.roles:
        shown["roles"] = list(caller.extra["roles"])
        if catalog is not None:
            shown["catalog"] = services(catalog)
    return {"token": shown}


def services(rows: Sequence[db.Row]) -> list[dict[str, Any]]:
    """The catalog: services with their endpoints."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        service = found.setdefault(row.id, {"id": row.id, "type": row.type, "name": row.name, "endpoints": []})
        region = {"region": row.region_id, "region_id": row.region_id}
        service["endpoints"].append({"id": row.endpoint_id, "interface": row.interface, **region, "url": row.url})
    return list(found.values())


def resource(row: db.Row, url: str, word: str) -> dict[str, Any]:
    """A row of the directory as upstream shows it."""
    shown = {name: value for name, value in row._mapping.items() if not name.startswith("password")}
    shown["links"] = {"self": f"{url}/v3/{word}s/{row.id}"}
    extra: dict[str, dict[str, Any]] = {
        "domain": {"tags": [], "options": {}},
        "project": {"is_domain": False, "tags": [], "options": {}},
        "user": {"password_expires_at": None, "options": {}},
        "role": {"domain_id": None, "options": {}},
        "endpoint": {"region": shown.get("region_id")},
    }
    return shown | extra.get(word, {})


def assignment(row: Mapping[str, Any], url: str, names: bool) -> dict[str, Any]:
    role, user = {"id": row["role_id"]}, {"id": row["user_id"]}
    scope: dict[str, Any] = {"all": True} if row["scope"] == "system" else {"id": row["scope_id"]}
    if names:
        role["name"] = row["role_name"]
        user |= {"name": row["user_name"], "domain": {"id": row["user_domain_id"]}}
        if row["scope"] != "system":
            scope["name"] = row["scope_name"]
            scope |= {"domain": {"id": row["scope_domain_id"]}} if row["scope_domain_id"] else {}
    links = {"assignment": f"{url}/v3/{row['scope']}s/{row['scope_id']}/users/{row['user_id']}/roles/{row['role_id']}"}
    return {"role": role, "user": user, "scope": {row["scope"]: scope}, "links": links}
