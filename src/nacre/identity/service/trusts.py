"""Trusts: a user (the trustor) lets another (the trustee) act in a project with some of the trustor's roles. They are not passed on further.

What a trust is worth is looked at whenever a token of it is used (`service.auth`): the trustor must still be enabled and have every role.
Races: a use is taken by an update that finds some left, so that no two tokens come of the last one.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import Forbidden, NotFound
from nacre.identity import tables
from nacre.identity.service import delegation, directory, users
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.service.directory import PROJECTS, ROLES, Kind, Record, Wanted

TRUSTS = Kind("trust", tables.trusts, ("trustor_user_id", "trustee_user_id"), path="OS-TRUST/trusts")


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Forbidden (no role to give, a trust is not passed on), NotFound (trustee, project, role), BadRequest."""
    caller.require({"trust.trustor_user_id": wanted["trustor_user_id"], "trust.project_id": wanted.get("project_id")})
    delegation.refuse_restricted(caller, "trusts")
    if "trust" in caller.extra or wanted.get("allow_redelegation"):
        raise Forbidden("Trusts are not passed on to others.", kind="ForbiddenAction")
    said = {"project_id": None, "expires_at": None, "remaining_uses": None, **wanted}
    said["expires_at"] = delegation.end(said["expires_at"])
    asked = said.pop("roles", None) or []
    for name in ("allow_redelegation", "redelegation_count"):
        said.pop(name, None)
    with caller.write() as tx:
        users.existing(tx, said["trustee_user_id"])
        given = _roles(tx, caller, said["project_id"], asked)
        made = directory.insert(tx, TRUSTS, said)
        for role_id in given:
            tx.insert(tables.trust_roles, trust_id=made["id"], role_id=role_id)
        return with_roles(tx, made)


def _roles(tx: db.Tx, caller: Caller, project_id: str | None, asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the roles asked for by id or name, all of which the trustor has there; a program has those of its credential, where that is."""
    if project_id is None:
        return []
    if tables.by_id(tx, tables.projects, project_id) is None:
        raise directory.missing(PROJECTS, project_id)
    if not asked:
        raise Forbidden("At least one role should be specified.", kind="ForbiddenAction")
    held, found = {row.id for row in tables.roles_on(tx, str(caller.user_id), "project", project_id)}, []
    if APPLICATION in caller.extra:
        held &= {role["id"] for role in caller.extra["roles"]} if project_id == caller.project_id else set()
    for reference in asked:
        row = delegation.role(tx, reference)
        if row.id not in held:
            raise Forbidden(f"You have no role {row.name} in project {project_id} to be trusted with.", kind="ForbiddenAction")
        found.append(row.id)
    return list(dict.fromkeys(found))


def with_roles(conn: db.Conn, trust: Record) -> Record:
    return {**trust, "roles": delegation.given_roles(conn, tables.trust_roles, "trust_id", trust["id"])}


def _load(conn: db.Conn, caller: Caller, trust_id: str) -> Record:
    """A trust that there is not is missing to everybody, as upstream says it. Raises NotFound, Forbidden."""
    if tables.by_id(conn, tables.trusts, trust_id) is None:
        raise directory.missing(TRUSTS, trust_id)
    return directory.load(conn, caller, TRUSTS, trust_id)


def find(caller: Caller, trust_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return with_roles(conn, _load(conn, caller, trust_id))


def role_of(caller: Caller, trust_id: str, role_id: str) -> Record:
    """Raises NotFound when it was not given."""
    for role in find(caller, trust_id)["roles"]:
        if role["id"] == role_id:
            return dict(role)
    raise directory.missing(ROLES, role_id)


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """All, or those of one trustor or trustee: each question has its rule."""
    caller.asked.add(caller.rule)
    sides = [side for side in ("trustor", "trustee") if f"{side}_user_id" in asked]
    for side in sides:
        caller.require({f"target.trust.{side}_user_id": asked[f"{side}_user_id"]}, f"identity:list_trusts_for_{side}")
    if not sides:
        caller.require({})
    query = sa.select(tables.trusts).order_by(tables.trusts.c.id)
    for side in sides:
        query = query.where(tables.trusts.c[f"{side}_user_id"] == asked[f"{side}_user_id"])
    with caller.read() as conn:
        return [directory.record(row) for row in conn.execute(query)]


def delete(caller: Caller, trust_id: str) -> None:
    with caller.write() as tx:
        _load(tx, caller, trust_id)
        delegation.refuse_restricted(caller, "trusts")
        directory.delete(tx, TRUSTS, trust_id)


def use(tx: db.Tx, trust_id: str, user_id: str) -> datetime | None:
    """One use is taken for the trustee; when the trust ends. Raises NotFound, Forbidden."""
    row = tables.by_id(tx, tables.trusts, trust_id)
    if row is None or (row.expires_at is not None and row.expires_at <= tx.now):
        raise NotFound(f"Could not find trust: {trust_id}.")
    if row.trustee_user_id != user_id:
        raise Forbidden("User is not a trustee.", kind="ForbiddenAction")
    ends: datetime | None = row.expires_at
    if row.remaining_uses is None:
        return ends
    left = tables.trusts.c.remaining_uses
    if not tx.execute(tables.trusts.update().where(tables.trusts.c.id == trust_id, left > 0).values(remaining_uses=left - 1)).rowcount:
        raise NotFound(f"Could not find trust: {trust_id}.")
    journal.changed(tx, "trust", trust_id, "use", ["remaining_uses"])
    return ends
