"""The shape of an authentication request. Source: Identity API v3, "Authentication and token management"."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nacre.core import clock
from nacre.core.errors import BadRequest
from nacre.core.versions import Body
from nacre.identity.bodies import when
from nacre.identity.service.factors import Receipt
from nacre.identity.service.login import Asked


class Auth:
    identity: dict[str, Any]
    scope: dict[str, Any] | str | msgspec.UnsetType | None = msgspec.UNSET


AUTH = Body("auth", Auth)


def asked(body: Auth, receipt: str = "") -> Asked:
    """An authentication request in domain words. Raises BadRequest naming what is wrong."""
    methods = body.identity.get("methods")
    if not isinstance(methods, list) or not methods or not all(isinstance(method, str) for method in methods):
        raise _missing("methods", "identity")
    unknown = [method for method in methods if method not in _METHODS]
    if unknown:
        raise BadRequest(f"Authentication method {unknown[0]} is not supported.")
    said = {method: _METHODS[method](_part(body.identity, "identity", method)) for method in methods}
    scope = _scope(body.scope) if body.scope is not msgspec.UNSET else None
    return Asked(clock.utcnow(), said, scope, receipt)


def _missing(name: str, where: str) -> BadRequest:
    return BadRequest(f"Expecting to find {name} in {where}. The server could not comply with the request since it is malformed.")


def _part(whole: Mapping[str, Any], where: str, name: str) -> dict[str, Any]:
    part = whole.get(name)
    if not isinstance(part, dict):
        raise _missing(name, where)
    return part


def _text(whole: Mapping[str, Any], where: str, name: str) -> str:
    text = whole.get(name)
    if not isinstance(text, str):
        raise _missing(name, where)
    return text


def _named(reference: Mapping[str, Any]) -> dict[str, Any]:
    """A reference by id, or by name and domain."""
    if isinstance(reference.get("id"), str) and reference["id"]:
        return {"id": reference["id"]}
    name = _text(reference, "user", "name")
    return {"name": name, "domain": _domain(_part(reference, "user", "domain"))}


def _domain(reference: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("id", "name"):
        if isinstance(reference.get(name), str) and reference[name]:
            return {name: reference[name]}
    raise _missing("id or name", "domain")


def _user_with(secret: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def read(said: Mapping[str, Any]) -> dict[str, Any]:
        user = _part(said, "method", "user")
        return {"user": {secret: _text(user, "user", secret), **_named(user)}}

    return read


def _token(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": _text(said, "token", "id")}


def _application_credential(said: Mapping[str, Any]) -> dict[str, Any]:
    where = "application_credential"
    secret = {"secret": _text(said, where, "secret")}
    if said.get("id") is not None:
        return {**secret, "id": _text(said, where, "id")}
    return {**secret, "name": _text(said, where, "name"), "user": _named(_part(said, where, "user"))}


_METHODS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "password": _user_with("password"), "totp": _user_with("passcode"), "token": _token, "application_credential": _application_credential,
}  # fmt: skip


def _scope(scope: Any) -> Any:
    if scope == "unscoped" or (isinstance(scope, dict) and "unscoped" in scope):
        return "unscoped"
    if isinstance(scope, dict) and len(scope) == 1:
        kind, reference = next(iter(scope.items()))
        if kind == "system" and reference == {"all": True}:
            return "system", {}
        if kind == "OS-TRUST:trust" and isinstance(reference, dict) and isinstance(reference.get("id"), str):
            return "trust", reference
        if kind == "domain" and isinstance(reference, dict):
            return kind, _domain(reference)
        if kind == "project" and isinstance(reference, dict):
            return kind, {"id": reference["id"]} if isinstance(reference.get("id"), str) else _place(reference)
    raise BadRequest("Invalid input for field/attribute scope. One of project, domain, system or unscoped is expected.")


def _place(project: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": _text(project, "project", "name"), "domain": _domain(_part(project, "project", "domain"))}


def receipt(given: Receipt) -> dict[str, Any]:
    """What was shown, and what is to be shown besides: one of the sets of methods."""
    domain = {"id": given.domain.id, "name": given.domain.name}
    shown = {"methods": list(given.stub.methods), "user": {"id": given.user.id, "name": given.user.name, "domain": domain},
             "expires_at": when(given.stub.expires_at), "issued_at": when(given.stub.issued_at)}  # fmt: skip
    return {"receipt": shown, "required_auth_methods": given.required}
