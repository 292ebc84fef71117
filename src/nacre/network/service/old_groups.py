"""Security groups as compute shows them until 2.35: for the user, under the network's own rules and in its rows. Only rules for what comes
in are seen there, and refusals of the network that compute's users do not know are 400."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from nacre.core import paging
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden, OverQuota
from nacre.network.service import groups, records
from nacre.network.service.kinds import GROUP
from nacre.network.service.records import Asked, Record
from nacre.network.tables import security

Shown = dict[str, Any]
_ALL = Asked({}, paging.Page(None, None, (("id", "asc"),)))


@contextmanager
def _as_user(caller: Caller, rule: str) -> Iterator[Caller]:
    """The same caller under the network's rules, and refusals as compute's users know them."""
    try:
        yield replace(caller, service="network", rule=rule, asked=set())
    except OverQuota as error:
        raise Forbidden(error.message, kind="SecurityGroupLimitExceeded") from error
    except Conflict as error:
        raise BadRequest(error.message, kind=error.name) from error


def list_groups(caller: Caller, everybody: bool) -> list[Shown]:
    """The project's; an administrator may see those of all."""
    with _as_user(caller, "get_security_group") as user:
        groups.need_default(user)
        asked = _ALL if everybody or user.project_id is None else Asked({"project_id": [user.project_id]}, _ALL.page)
        found, _ = records.listed(user, GROUP, asked)
    return _shown(caller, found)


def show_group(caller: Caller, group_id: str) -> Shown:
    with _as_user(caller, "get_security_group") as user:
        return _shown(caller, [records.show(user, GROUP, group_id)])[0]


def create_group(caller: Caller, name: str, description: str) -> Shown:
    with _as_user(caller, "create_security_group") as user:
        return _shown(caller, groups.create(user, [{"name": name, "description": description}]))[0]


def update_group(caller: Caller, group_id: str, name: str, description: str) -> Shown:
    with _as_user(caller, "update_security_group") as user:
        return _shown(caller, [groups.update(user, group_id, {"name": name, "description": description})])[0]


def delete_group(caller: Caller, group_id: str) -> None:
    with _as_user(caller, "delete_security_group") as user:
        groups.delete(user, group_id)


def create_rule(caller: Caller, group_id: str, wanted: Mapping[str, Any]) -> Shown:
    """`wanted`: protocol, port_range_min, port_range_max, remote_ip_prefix or remote_group_id."""
    kind = "IPv6" if ":" in (wanted.get("remote_ip_prefix") or "") else "IPv4"
    said = {**wanted, "security_group_id": group_id, "direction": "ingress", "ethertype": kind}
    with _as_user(caller, "create_security_group_rule") as user:
        made = groups.create_rules(user, [said])[0]
        return _rule(made, _names(caller, [made]))


def delete_rule(caller: Caller, rule_id: str) -> None:
    with _as_user(caller, "delete_security_group_rule") as user:
        groups.delete_rule(user, rule_id)


def _names(caller: Caller, rules: list[Record]) -> dict[str, Shown]:
    """The groups that rules name, as they are shown there."""
    wanted = {rule["remote_group_id"] for rule in rules if rule["remote_group_id"]}
    with caller.read() as conn:
        found = conn.execute(sa.select(security.groups).where(security.groups.c.id.in_(wanted)))
        return {row.id: {"name": row.name, "tenant_id": row.project_id} for row in found}


def _shown(caller: Caller, found: list[Record]) -> list[Shown]:
    incoming = {group["id"]: [rule for rule in group["rules"] if rule["direction"] == "ingress"] for group in found}
    named = _names(caller, [rule for rules in incoming.values() for rule in rules])
    return [{"id": group["id"], "name": group["name"], "description": group["description"], "tenant_id": group["project_id"],
             "rules": [_rule(rule, named) for rule in incoming[group["id"]]]} for group in found]  # fmt: skip


def _rule(rule: Record, named: Mapping[str, Shown]) -> Shown:
    low, high = rule["port_range_min"], rule["port_range_max"]
    if rule["protocol"] is not None and low is None and high is None:
        low, high = (1, 65535) if rule["protocol"] in ("tcp", "udp") else (-1, -1)
    anywhere = "0.0.0.0/0" if rule["ethertype"] == "IPv4" else "::/0"
    group = rule["remote_group_id"]
    return {"id": rule["id"], "parent_group_id": rule["security_group_id"], "ip_protocol": rule["protocol"], "from_port": low, "to_port": high,
            "group": named.get(group, {}) if group else {}, "ip_range": {} if group else {"cidr": rule["remote_ip_prefix"] or anywhere}}  # fmt: skip
