"""Handlers of tokens and what hangs on them."""

from collections.abc import Sequence
from typing import Any

import msgspec

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import Forbidden
from nacre.core.http import Call, Reply
from nacre.core.rendered import Rendered
from nacre.identity import bodies
from nacre.identity.api.directory import many
from nacre.identity.bodies.auth import asked, receipt
from nacre.identity.service import auth, logins
from nacre.identity.service.directory import DOMAINS, PROJECTS
from nacre.identity.service.factors import Receipt

_catalogs = Rendered[Sequence[db.Row]](500)


def issue(call: Call) -> Reply:
    caller = logins.issue(call.cloud, call.caller.request_id, asked(call.body, call.headers.get("openstack-auth-receipt", "")), call.source)
    if isinstance(caller, Receipt):
        return Reply(receipt(caller), 401, {"openstack-auth-receipt": caller.text, "vary": "X-Auth-Token"})
    return Reply(bodies.token(caller, catalog_of(call, caller)), headers={"x-subject-token": caller.token, "vary": "X-Auth-Token"})


def show(call: Call) -> Reply:
    subject = auth.shown(call.caller, _subject(call), knows_rules=_knows_rules(call), expired=call.flag("allow_expired"))
    return Reply(bodies.token(subject, catalog_of(call, subject)), headers={"x-subject-token": subject.token, "vary": "X-Auth-Token"})


def revoke(call: Call) -> None:
    auth.revoke(call.caller, _subject(call))


def _knows_rules(call: Call) -> bool:
    """Whether who asks would keep to access rules (version 1.0 of them)."""
    try:
        return float(call.headers.get("openstack-identity-access-rules", "")) >= 1
    except ValueError:
        return False


def catalog_of(call: Call, subject: Caller) -> msgspec.Raw | None:
    return None if "nocatalog" in call.query else _services(call, subject)


def _services(call: Call, subject: Caller) -> msgspec.Raw:
    rows, public, authority = auth.catalog(call.cloud, subject.project_id), call.cloud.public_url, call.authority
    return _catalogs.json((subject.project_id, public, authority), rows, lambda rows: bodies.services(rows, public, authority))


def _subject(call: Call) -> str:
    return call.headers.get("x-subject-token", "")


def catalog(call: Call) -> dict[str, Any]:
    call.caller.require()
    if call.caller.project_id is None:
        raise Forbidden("A project-scoped token is required to produce a service catalog.")
    return {"catalog": _services(call, call.caller), "links": {"self": f"{call.url}/v3/auth/catalog"}}


def projects(call: Call) -> dict[str, Any]:
    call.caller.require()
    return many(call, PROJECTS, auth.scopes(call.caller, "project"))


def domains(call: Call) -> dict[str, Any]:
    call.caller.require()
    return many(call, DOMAINS, auth.scopes(call.caller, "domain"))


def system(call: Call) -> dict[str, Any]:
    call.caller.require()
    links = {"self": f"{call.url}/v3/auth/system"}
    return {"system": [{"all": True}] if auth.system_scopes(call.caller) else [], "links": links}
