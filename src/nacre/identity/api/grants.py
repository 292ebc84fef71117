"""Handlers of grants: who has which role where, one set for each pair of an actor and a scope."""

from collections.abc import Callable
from typing import Any

from nacre.core.http import Call
from nacre.identity import bodies
from nacre.identity.api.directory import many
from nacre.identity.service import roles
from nacre.identity.service.directory import ROLES
from nacre.identity.service.roles import Grants

Verb = Callable[[Any, Grants, str], None]


def _on(call: Call, actor: str, scope: str) -> Grants:
    return Grants(actor, call.path["actor_id"], scope, call.path.get("scope_id", "all"))


def lister(actor: str, scope: str) -> Callable[[Call], dict[str, Any]]:
    def listed(call: Call) -> dict[str, Any]:
        return many(call, ROLES, roles.granted(call.caller, _on(call, actor, scope)))

    return listed


def doer(verb: Verb, actor: str, scope: str) -> Callable[[Call], None]:
    """`verb` is grant, check or revoke."""

    def do(call: Call) -> None:
        verb(call.caller, _on(call, actor, scope), call.path["role_id"])

    return do


def assignments(call: Call) -> dict[str, Any]:
    rows = roles.assignments(call.caller, call.query)
    names = "include_names" in call.query and call.flag("include_names")
    return {"role_assignments": [bodies.assignment(row, call.url, names) for row in rows],
            "links": {"self": f"{call.url}/v3/role_assignments", "previous": None, "next": None}}  # fmt: skip
