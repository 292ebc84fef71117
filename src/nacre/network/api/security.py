"""Security groups and rules."""

from typing import Any

from nacre.core.http import Call
from nacre.network.api import Wire
from nacre.network.bodies import changed
from nacre.network.bodies import security as bodies
from nacre.network.service import groups
from nacre.network.service.kinds import GROUP, RULE

GROUPS = Wire(GROUP, "security_groups", bodies.group, "security-groups")
RULES = Wire(RULE, "security_group_rules", bodies.rule, "security-group-rules")


def list_groups(call: Call) -> dict[str, Any]:
    groups.need_default(call.caller)
    return GROUPS.list(call)


def create_groups(call: Call) -> dict[str, Any]:
    return GROUPS.create(call, groups.create)


def update_group(call: Call) -> dict[str, Any]:
    return GROUPS.one(call, groups.update(call.caller, call.path["id"], changed(call.body)))


def delete_group(call: Call) -> None:
    groups.delete(call.caller, call.path["id"])


def create_rules(call: Call) -> dict[str, Any]:
    return RULES.create(call, groups.create_rules)


def delete_rule(call: Call) -> None:
    groups.delete_rule(call.caller, call.path["id"])
