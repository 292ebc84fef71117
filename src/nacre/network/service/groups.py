"""Security groups and their rules. A project's default group is made when it is first needed; its members may talk to each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.network.faults import fault, invalid
from nacre.network.plan import rules as plan
from nacre.network.service import quotas, records, wiring
from nacre.network.service.kinds import GROUP, RULE
from nacre.network.service.records import Record
from nacre.network.tables.security import groups, members, rules

Wanted = Mapping[str, Any]
_DEFAULT_DESCRIPTION = "Default security group"


def default_of(conn: db.Conn, project_id: str) -> str | None:
    return conn.execute(sa.select(groups.c.id).where(groups.c.project_id == project_id, groups.c.is_default)).scalar()


def ensure_default(tx: db.Tx, project_id: str) -> str:
    """The id of the project's default group."""
    found = default_of(tx, project_id)
    if found is not None or not project_id:
        return found or ""
    row = records.new(tx, project_id, {"name": "default", "description": _DEFAULT_DESCRIPTION})
    tx.insert(groups, **row, stateful=True, is_default=True)
    for wanted in plan.DEFAULTS:
        _insert_rule(tx, project_id, row["id"], plan.checked(wanted))
        _insert_rule(tx, project_id, row["id"], plan.checked({**wanted, "direction": "ingress", "remote_group_id": row["id"]}))
    journal.changed(tx, "security_group", row["id"], "create")
    return str(row["id"])


def need_default(caller: Caller) -> None:
    """Makes the caller's default group if it is not there."""
    if caller.project_id is None:
        return
    with caller.read() as conn:
        if default_of(conn, caller.project_id) is not None:
            return
    with caller.write() as tx:
        ensure_default(tx, caller.project_id)


def named(conn: db.Conn, project_id: str, wanted: Sequence[str]) -> list[str]:
    """Ids of the project's groups by name or id, as compute asks. Raises SecurityGroupNotFound, and invalid for an ambiguous name."""
    found = []
    for name in wanted:
        query = sa.select(groups.c.id).where(groups.c.project_id == project_id, sa.or_(groups.c.id == name, groups.c.name == name))
        ids = list(conn.execute(query).scalars())
        if not ids:
            raise fault("SecurityGroupNotFound", id=name)
        if len(ids) > 1 and name not in ids:
            raise invalid("security_groups", f"Multiple security groups found matching '{name}'. Use an ID to be more specific")
        found.append(name if name in ids else ids[0])
    return found


def usable(conn: db.Conn, caller: Caller, project_id: str, ids: Sequence[str]) -> list[str]:
    """Those ids, if each is a group that a port of the project may be in. Raises SecurityGroupNotFound."""
    query = sa.select(groups.c.id).where(groups.c.id.in_(ids))
    if not caller.is_admin:
        query = query.where(groups.c.project_id == project_id)
    there = set(conn.execute(query).scalars())
    for id_ in ids:
        if id_ not in there:
            raise fault("SecurityGroupNotFound", id=id_)
    return list(dict.fromkeys(ids))


def create(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none. A new group lets everything out. Raises SecurityGroupDefaultAlreadyExists, OverQuota."""
    made = []
    projects = [records.project_of(caller, one) for one in wanted]
    for project, one in zip(projects, wanted, strict=True):
        records.permit(caller, "create_security_group", {"project_id": project, "tenant_id": project}, one)
        if (one.get("name") or "").lower() == "default":
            raise fault("SecurityGroupDefaultAlreadyExists")
    with caller.write() as tx:
        for project in sorted(set(projects)):
            ensure_default(tx, project)
            quotas.check(tx, caller.cloud.config, project, {"security_group": projects.count(project)})
        for project, one in zip(projects, wanted, strict=True):
            row = records.new(tx, project, one)
            tx.insert(groups, **row, stateful=one.get("stateful", True), is_default=False)
            for rule in plan.DEFAULTS:
                _insert_rule(tx, project, row["id"], plan.checked(rule))
            journal.changed(tx, "security_group", row["id"], "create")
            made.append(row["id"])
        return records.by_ids(tx, GROUP, made)


def update(caller: Caller, group_id: str, wanted: Wanted) -> Record:
    """Raises SecurityGroupCannotUpdateDefault, SecurityGroupInUse when `stateful` changes under ports."""
    with caller.write() as tx:
        group = records.held(tx, caller, GROUP, group_id, "delete" if "stateful" in wanted else "change")
        records.permit(caller, "update_security_group", GROUP.target(group), wanted)
        if group["is_default"] and wanted.get("name", group["name"]) != group["name"]:
            raise fault("SecurityGroupCannotUpdateDefault")
        if not group["is_default"] and str(wanted.get("name", "")).lower() == "default":
            raise fault("SecurityGroupDefaultAlreadyExists")
        if wanted.get("stateful", group["stateful"]) != group["stateful"]:
            _unused(tx, group_id)
            wiring.rules_changed(tx, group_id, ())
        records.touch(tx, GROUP, group_id, **{name: wanted[name] for name in ("name", "description", "stateful") if name in wanted})
        return records.by_ids(tx, GROUP, [group_id])[0]


def _unused(tx: db.Tx, group_id: str) -> None:
    port_id = tx.scalar(sa.select(members.c.port_id).where(members.c.group_id == group_id).limit(1))
    if port_id is not None:
        raise fault("SecurityGroupInUse", id=group_id, reason=f"in use by port {port_id}")


def delete(caller: Caller, group_id: str) -> None:
    """Raises SecurityGroupInUse naming a port in it, SecurityGroupCannotRemoveDefault."""
    with caller.write() as tx:
        group = records.held(tx, caller, GROUP, group_id, "delete")
        caller.require(GROUP.target(group))
        if group["is_default"] and not caller.is_admin:
            raise fault("SecurityGroupCannotRemoveDefault")
        _unused(tx, group_id)
        naming = tx.all(sa.select(rules).where(rules.c.remote_group_id == group_id, rules.c.security_group_id != group_id))
        tx.execute(rules.delete().where(sa.or_(rules.c.security_group_id == group_id, rules.c.remote_group_id == group_id)))
        records.deleted(tx, GROUP, group_id)
        for other in {row.security_group_id for row in naming}:
            wiring.rules_changed(tx, other, [group_id])


def _insert_rule(tx: db.Tx, project_id: str, group_id: str, columns: Mapping[str, Any], description: str = "") -> str:
    row = records.new(tx, project_id, {"description": description})
    tx.insert(rules, **row, **columns, security_group_id=group_id, alike=plan.alike(columns))
    return str(row["id"])


def create_rules(caller: Caller, wanted: Sequence[Wanted]) -> list[Record]:
    """All or none. Raises SecurityGroupRuleExists naming the rule, OverQuota, and what `plan.rules` refuses."""
    columns = [plan.checked(one) for one in wanted]
    made = []
    with caller.write() as tx:
        into = [records.visible(tx, caller, GROUP, one["security_group_id"]) for one in wanted]
        for group, values in zip(into, columns, strict=True):
            caller.require(GROUP.target(group))
            if values["remote_group_id"] is not None:
                records.visible(tx, caller, GROUP, values["remote_group_id"])
        projects = [group["project_id"] for group in into]
        for project in sorted(set(projects)):
            quotas.check(tx, caller.cloud.config, project, {"security_group_rule": projects.count(project)})
        records.lock(tx, groups, [group["id"] for group in into], "change")
        for group, one, values in zip(into, wanted, columns, strict=True):
            same = sa.select(rules.c.id).where(rules.c.security_group_id == group["id"], rules.c.alike == plan.alike(values))
            existing = tx.scalar(same)
            if existing is not None:
                raise fault("SecurityGroupRuleExists", rule_id=existing)
            made.append(_insert_rule(tx, group["project_id"], group["id"], values, one.get("description") or ""))
            records.touch(tx, GROUP, group["id"])
            journal.changed(tx, "security_group_rule", made[-1], "create")
            wiring.rules_changed(tx, group["id"], [values["remote_group_id"]])
        return records.by_ids(tx, RULE, made)


def delete_rule(caller: Caller, rule_id: str) -> None:
    with caller.write() as tx:
        rule = records.held(tx, caller, RULE, rule_id, "delete")
        caller.require(RULE.target(rule))
        records.deleted(tx, RULE, rule_id)
        records.touch(tx, GROUP, rule["security_group_id"])
        wiring.rules_changed(tx, rule["security_group_id"], [rule["remote_group_id"]])
