"""Application credentials: a user's own leave to programs, to act in one project with some of the user's roles, until it ends.

What one is worth is looked at whenever a token of it is used (`service.auth`): the user must still have every role. One whose user is taken a
role of the project, there or from above, is gone for good, so that it does not come back with the role. What a group gave, or another role
implied, only counts while it does so. A role that is deleted leaves its number behind, so
that the credential is worth nothing, not less. Secrets are kept as hashes (`tokens`), shown once and never journaled.
Access rules are rows of a user's own; a credential made with the same rule again shares the row, and a rule in use stays.
Races: two credentials of one name, or two equal rules, meet at the unique index; the loser is run again whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import db, ids, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, Forbidden, NotFound
from nacre.identity import hashing, tables, tokens
from nacre.identity.service import delegation
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.service.directory import Record, Wanted
from nacre.identity.tables import rights

_TABLE, _RULES = tables.app_credentials, tables.access_rules
_WHAT = "additional application credentials"


def create(caller: Caller, user_id: str, wanted: Wanted) -> Record:
    """With its `secret`. Raises BadRequest (roles that the caller lacks, an end that is over), NotFound (role, rule), Conflict, Forbidden."""
    caller.require({"user_id": user_id})
    delegation.refuse_trusted(caller, "application credentials")
    delegation.refuse_restricted(caller, _WHAT)
    if caller.user_id != user_id or caller.project_id is None:
        raise Forbidden("Only users themselves, signed in to a project, make application credentials for it.", kind="ForbiddenAction")
    ends = delegation.end(wanted.get("expires_at"))
    chosen = wanted.get("secret") or ""
    secret, kept = (chosen, hashing.hashed(caller.cloud.config.identity, chosen)) if chosen else tokens.new_secret()
    with caller.write() as tx:
        _free(tx, caller, user_id, wanted["name"])
        row_id = ids.hex_id()
        roles = _roles(tx, caller, wanted.get("roles") or [])
        may = dict.fromkeys(_rule(tx, user_id, rule) for rule in wanted.get("access_rules") or [])
        tx.insert(_TABLE, id=row_id, name=wanted["name"], user_id=user_id, project_id=caller.project_id, description=wanted.get("description"),
                  secret_hash=kept, unrestricted=bool(wanted.get("unrestricted")), expires_at=ends, created_at=tx.now)  # fmt: skip
        for role_id in roles:
            tx.insert(tables.app_credential_roles, credential_id=row_id, role_id=role_id)
        for rule_id in may:
            tx.insert(tables.app_credential_rules, credential_id=row_id, rule_id=rule_id)
        journal.changed(tx, APPLICATION, row_id, "create")
        return {**_whole(tx, tables.by_id(tx, _TABLE, row_id)), "secret": secret}


def _free(tx: db.Tx, caller: Caller, user_id: str, name: str) -> None:
    """Raises Conflict when the name is taken, Forbidden when the user has as many as may be."""
    if tx.first(sa.select(_TABLE.c.id).where(_TABLE.c.user_id == user_id, _TABLE.c.name == name)) is not None:
        raise Conflict(f"Conflict occurred attempting to store application_credential - Duplicate entry found with name {name}.")
    limit = caller.cloud.config.application_credential.user_limit
    if limit >= 0 and tx.scalar(sa.select(sa.func.count()).select_from(_TABLE).where(_TABLE.c.user_id == user_id)) >= limit:
        raise Forbidden(f"Unable to create additional application credentials, maximum of {limit} already exceeded for user.")


def _roles(tx: db.Tx, caller: Caller, asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the roles asked for and of those they imply, else all of the caller's: never one that the caller's token lacks."""
    held = {role["id"] for role in caller.extra["roles"]}
    if not asked:
        return sorted(held)
    wanted = {delegation.role(tx, reference).id for reference in asked}
    if not wanted <= held:
        raise BadRequest("Invalid application credential: Cannot create an application credential with unassigned role",
                         kind="ApplicationCredentialValidationError")  # fmt: skip
    return sorted(rights.with_implied(wanted, rights.inferences(tx)) & held)


def _rule(tx: db.Tx, user_id: str, asked: Mapping[str, Any]) -> str:
    """The id of one of the user's rules: named, or equal, or new. Raises NotFound, BadRequest."""
    if asked.get("id"):
        row = tables.by_id(tx, _RULES, asked["id"])
        if row is None or row.user_id != user_id:
            raise _no_rule(asked["id"])
        return str(row.id)
    said = {name: asked.get(name) for name in ("service", "method", "path")}
    for name, value in said.items():
        if not value:
            raise BadRequest(f"Invalid input for field/attribute access_rules. '{name}' is a required property", kind="ValidationError")
    row = tx.first(sa.select(_RULES).where(_RULES.c.user_id == user_id, *(_RULES.c[name] == value for name, value in said.items())))
    if row is not None:
        return str(row.id)
    made = ids.hex_id()
    tx.insert(_RULES, id=made, user_id=user_id, **said)
    journal.changed(tx, "access_rule", made, "create")
    return made


def _whole(conn: db.Conn, row: db.Row | None) -> Record:
    assert row is not None
    found = {name: value for name, value in row._mapping.items() if name not in ("secret_hash", "created_at")}
    found["roles"] = delegation.given_roles(conn, tables.app_credential_roles, "credential_id", row.id)
    rules = tables.rules_of(conn, row.id)
    return {**found, "access_rules": rules} if rules else found


def _load(conn: db.Conn, caller: Caller, user_id: str, row_id: str) -> db.Row:
    """Whose it is decides, not whose address was asked. Raises Forbidden, NotFound."""
    row = tables.by_id(conn, _TABLE, row_id)
    caller.require({"user_id": row.user_id if row is not None else user_id})
    delegation.refuse_trusted(caller, "application credentials")
    if row is None or row.user_id != user_id:
        raise NotFound(f"Could not find Application Credential: {row_id}.")
    return row


def find(caller: Caller, user_id: str, row_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return _whole(conn, _load(conn, caller, user_id, row_id))


def listed(caller: Caller, user_id: str, asked: Mapping[str, str]) -> list[Record]:
    """The user's; filter: name."""
    caller.require({"user_id": user_id})
    delegation.refuse_trusted(caller, "application credentials")
    query = sa.select(_TABLE).where(_TABLE.c.user_id == user_id).order_by(_TABLE.c.name)
    with caller.read() as conn:
        return [_whole(conn, row) for row in conn.execute(query.where(_TABLE.c.name == asked["name"]) if "name" in asked else query)]


def delete(caller: Caller, user_id: str, row_id: str) -> None:
    """Its tokens count no more. Raises Forbidden, NotFound."""
    with caller.write() as tx:
        _load(tx, caller, user_id, row_id)
        delegation.refuse_restricted(caller, _WHAT)
        _gone(tx, row_id)
        tables.bump_epoch(tx)


def _gone(tx: db.Tx, row_id: str) -> None:
    tx.delete(_TABLE, id=row_id)
    journal.changed(tx, APPLICATION, row_id, "delete")


def forget(tx: db.Tx, user_id: str, projects: sa.Select[Any]) -> None:
    """The user was taken a role of these projects, and with it what was made of it. Whoever calls this counts the epoch up."""
    for row in tx.all(sa.select(_TABLE.c.id).where(_TABLE.c.user_id == user_id, _TABLE.c.project_id.in_(projects))):
        _gone(tx, row.id)


def rules(caller: Caller, user_id: str, asked: Mapping[str, str]) -> list[Record]:
    """The user's access rules; filters: service, method, path."""
    caller.require({"target.user.id": user_id})
    delegation.refuse_trusted(caller, "access rules")
    chosen = (_RULES.c[name] == asked[name] for name in ("service", "method", "path") if name in asked)
    query = sa.select(_RULES).where(_RULES.c.user_id == user_id, *chosen)
    with caller.read() as conn:
        return [dict(row._mapping) for row in conn.execute(query.order_by(_RULES.c.service, _RULES.c.path, _RULES.c.method))]


def find_rule(caller: Caller, user_id: str, rule_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return dict(_load_rule(conn, caller, user_id, rule_id)._mapping)


def _load_rule(conn: db.Conn, caller: Caller, user_id: str, rule_id: str) -> db.Row:
    row = tables.by_id(conn, _RULES, rule_id)
    caller.require({"target.user.id": row.user_id if row is not None else user_id})
    delegation.refuse_trusted(caller, "access rules")
    if row is None or row.user_id != user_id:
        raise _no_rule(rule_id)
    return row


def _no_rule(rule_id: str) -> NotFound:
    return NotFound(f"Could not find Access Rule: {rule_id}.")


def delete_rule(caller: Caller, user_id: str, rule_id: str) -> None:
    """Raises Forbidden while a credential has it, NotFound."""
    with caller.write() as tx:
        _load_rule(tx, caller, user_id, rule_id)
        using = tx.first(sa.select(tables.app_credential_rules).where(tables.app_credential_rules.c.rule_id == rule_id))
        if using is not None:
            raise Forbidden(f"May not delete access rule in use: application credential {using.credential_id} has it.")
        tx.delete(_RULES, id=rule_id)
        journal.changed(tx, "access_rule", rule_id, "delete")
