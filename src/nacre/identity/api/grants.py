"""Handlers of grants: who has which role where, one set for each pair of an actor and a scope; and of what roles imply."""

from collections.abc import Callable
from typing import Any

from nacre.core.http import Call
from nacre.identity import bodies
from nacre.identity.api.directory import many
from nacre.identity.service import assignments, implied, roles
from nacre.identity.service.directory import ROLES, Record
from nacre.identity.service.roles import Grants

Verb = Callable[[Any, Grants, str], None]


def _on(call: Call, actor: str, scope: str, inherited: bool) -> Grants:
    return Grants(actor, call.path["actor_id"], scope, call.path.get("scope_id", "all"), inherited)


def lister(actor: str, scope: str, *, inherited: bool = False) -> Callable[[Call], dict[str, Any]]:
    def listed(call: Call) -> dict[str, Any]:
        return many(call, ROLES, roles.granted(call.caller, _on(call, actor, scope, inherited)))

    return listed


def doer(verb: Verb, actor: str, scope: str, *, inherited: bool = False) -> Callable[[Call], None]:
    """`verb` is grant, check or revoke."""

    def do(call: Call) -> None:
        verb(call.caller, _on(call, actor, scope, inherited), call.path["role_id"])

    return do


def assigned(call: Call) -> dict[str, Any]:
    rows = assignments.listed(call.caller, call.query)
    return {"role_assignments": [bodies.assignment(row, call.url) for row in rows],
            "links": {"self": f"{call.url}/v3/role_assignments", "previous": None, "next": None}}  # fmt: skip


def imply(call: Call) -> dict[str, Any]:
    return _inference(call, implied.imply(call.caller, call.path["id"], call.path["implied_id"]))


def show_implied(call: Call) -> dict[str, Any]:
    return _inference(call, implied.find(call.caller, call.path["id"], call.path["implied_id"]))


def check_implied(call: Call) -> None:
    implied.find(call.caller, call.path["id"], call.path["implied_id"])


def end_implied(call: Call) -> None:
    implied.end(call.caller, call.path["id"], call.path["implied_id"])


def _inference(call: Call, pair: tuple[Record, Record]) -> dict[str, Any]:
    prior, follows = (bodies.role_named(role, call.url) for role in pair)
    address = f"{call.url}/v3/roles/{prior['id']}/implies/{follows['id']}"
    return {"role_inference": {"prior_role": prior, "implies": follows}, "links": {"self": address}}


def implied_by(call: Call) -> dict[str, Any]:
    found = bodies.inference(implied.of_role(call.caller, call.path["id"]), call.url)
    return {"role_inference": found, "links": {"self": f"{call.url}/v3/roles/{call.path['id']}/implies"}}


def inferences(call: Call) -> dict[str, Any]:
    found = [bodies.inference(one, call.url) for one in implied.listed(call.caller)]
    return {"role_inferences": found, "links": {"self": f"{call.url}/v3/role_inferences", "previous": None, "next": None}}
