"""Security groups in compute's words (until 2.35): compute's rule first, then the network's own."""

from collections.abc import Mapping
from typing import Any

from nacre import network
from nacre.core.caller import Caller

Shown = dict[str, Any]


def listed(caller: Caller, everybody: bool) -> list[Shown]:
    caller.require()
    return network.old_groups.list_groups(caller, everybody and caller.is_admin)


def show(caller: Caller, group_id: str) -> Shown:
    """Raises NotFound."""
    caller.require()
    return network.old_groups.show_group(caller, group_id)


def create(caller: Caller, name: str, description: str) -> Shown:
    """Raises Forbidden over the quota, BadRequest."""
    caller.require()
    return network.old_groups.create_group(caller, name, description)


def update(caller: Caller, group_id: str, name: str, description: str) -> Shown:
    """Raises NotFound, BadRequest."""
    caller.require()
    return network.old_groups.update_group(caller, group_id, name, description)


def delete(caller: Caller, group_id: str) -> None:
    """Raises NotFound, BadRequest while ports are in it."""
    caller.require()
    network.old_groups.delete_group(caller, group_id)


def create_rule(caller: Caller, group_id: str, wanted: Mapping[str, Any]) -> Shown:
    """Raises NotFound, BadRequest, Forbidden over the quota."""
    caller.require()
    return network.old_groups.create_rule(caller, group_id, wanted)


def delete_rule(caller: Caller, rule_id: str) -> None:
    """Raises NotFound."""
    caller.require()
    network.old_groups.delete_rule(caller, rule_id)
