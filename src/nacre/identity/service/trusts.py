"""Trusts: a user (the trustor) lets another (the trustee) act in a project with some of the trustor's roles.

A trust that says so is passed on: its trustee, acting by it, makes another of no more roles, no later end and one step less to go. What a trust
is worth is looked at whenever a token of it is used (`service.auth`): the trustor must still be enabled and have every role, and everything
that it was passed on by must still stand. One that is deleted takes those with it that pass it on.
Races: a use is taken by an update that finds some left, so that no two tokens come of the last one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from nacre.core import clock, db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Forbidden, NotFound, Unauthorized
from nacre.identity import tables
from nacre.identity.service import delegation, directory
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.service.directory import PROJECTS, ROLES, USERS, Kind, Record, Wanted
from nacre.identity.tables import rights

_OURS = ("redelegated_trust_id", "deleted_at", "roles_links")
TRUSTS = Kind("trust", tables.trusts, ("trustor_user_id", "trustee_user_id"), path="OS-TRUST/trusts")


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Forbidden (no role to give, no trust to pass on so), NotFound (trustee, project, a role or one that the trustor lacks), BadRequest."""
    caller.require({"trust.trustor_user_id": wanted["trustor_user_id"], "target.trust.trustor_user_id": wanted["trustor_user_id"],
                    "trust.project_id": wanted.get("project_id")})  # fmt: skip
    delegation.refuse_restricted(caller, "trusts")
    if wanted["trustor_user_id"] != caller.user_id:
        raise Forbidden("The authenticated user should match the trustor", kind="ForbiddenAction")
    said = {"project_id": None, "remaining_uses": None, **wanted, "expires_at": delegation.end(wanted.get("expires_at"))}
    asked = said.pop("roles", None) or []
    said.pop("allow_redelegation", None)
    said["extra"] = {name: value for name, value in said.get("extra", {}).items() if name not in _OURS}
    said["redelegation_count"] = _count(caller, wanted)
    with caller.write() as tx:
        directory.existing(tx, USERS, said["trustee_user_id"])
        given = _roles(tx, caller, said["project_id"], asked)
        if "trust" in caller.extra:
            said = _passed_on(tx, caller.extra["trust"]["id"], said, given, wanted.get("redelegation_count"))
        made = directory.insert(tx, TRUSTS, said)
        for role_id in given:
            tx.insert(tables.trust_roles, trust_id=made["id"], role_id=role_id)
        return with_roles(tx, made)


def _count(caller: Caller, wanted: Wanted) -> int:
    """How many more times it may be passed on, were it the first of its line. Raises Forbidden, BadRequest."""
    asked, most = wanted.get("redelegation_count"), caller.cloud.config.trust.max_redelegation_count
    if not wanted.get("allow_redelegation") or asked == 0:
        return 0
    if asked is not None and asked > most:
        raise Forbidden(f"Requested redelegation depth of {asked} is greater than allowed {most}")
    if wanted.get("remaining_uses") is not None:
        raise BadRequest("remaining_uses must not be set if redelegation is allowed", kind="ValidationError")
    return most if asked is None else int(asked)


def _passed_on(tx: db.Tx, trust_id: str, said: Record, given: Sequence[str], asked: int | None) -> Record:
    """`said`, as the trust that is passed on bounds it. Raises Forbidden."""
    parent = tables.by_id(tx, tables.trusts, trust_id)
    if parent is None or said["project_id"] != parent.project_id:
        raise Forbidden("A trust is passed on in its own project.")
    if parent.redelegation_count < 1:
        raise Forbidden(f"Remaining redelegation depth of {parent.redelegation_count}: trust {trust_id} is not passed on.")
    count = parent.redelegation_count - 1
    if said["redelegation_count"] and asked and asked != count:
        raise Forbidden('Modifying "redelegation_count" upon redelegation is forbidden. Omitting this parameter is advised.')
    if said["remaining_uses"] is not None:
        raise Forbidden(f'Field "remaining_uses" is set to {said["remaining_uses"]} while it must not be set in order to redelegate a trust')
    if said["expires_at"] is not None and parent.expires_at is not None and said["expires_at"] > parent.expires_at:
        raise Forbidden("Requested expiration time is more than redelegated trust can provide")
    if not set(given) <= rights.with_implied(tables.given_by(tx, trust_id), rights.inferences(tx)):
        raise Forbidden("Some of requested roles are not in redelegated trust")
    if said["impersonation"] and not parent.impersonation:
        raise Forbidden(f"Impersonation is not allowed because redelegated trust does not specify impersonation. Redelegated trust id: {trust_id}")
    return {**said, "redelegated_trust_id": trust_id, "expires_at": said["expires_at"] or parent.expires_at,
            "redelegation_count": count if said["redelegation_count"] else 0}  # fmt: skip


def _roles(tx: db.Tx, caller: Caller, project_id: str | None, asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the roles asked for by id or name, all of which the trustor has there; a program has those of its credential, where that is."""
    if project_id is None:
        return []
    if not asked:
        raise Forbidden("At least one role should be specified", kind="ForbiddenAction")
    if tables.by_id(tx, tables.projects, project_id) is None:
        raise directory.missing(PROJECTS, project_id)
    held, found = {row.id for row in rights.roles_on(tx, str(caller.user_id), "project", project_id)}, []
    if APPLICATION in caller.extra:
        held &= {role["id"] for role in caller.extra["roles"]} if project_id == caller.project_id else set()
    for reference in asked:
        row = delegation.role(tx, reference)
        if row.id not in held:
            raise NotFound(f"Could not find role: {row.id}: the trustor has no role {row.name} in project {project_id}.")
        found.append(row.id)
    return list(dict.fromkeys(found))


def with_roles(conn: db.Conn, trust: Record) -> Record:
    return {**trust, "roles": delegation.given_roles(conn, tables.trust_roles, "trust_id", trust["id"])}


def _load(conn: db.Conn, caller: Caller, trust_id: str) -> Record:
    """A trust that there is not, or no more, is missing to everybody, as upstream says it. Raises NotFound, Forbidden."""
    if not tables.standing(conn, trust_id, clock.utcnow()):
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
    """With those that pass it on."""
    with caller.write() as tx:
        _load(tx, caller, trust_id)
        delegation.refuse_restricted(caller, "trusts")
        gone, below = [trust_id], [trust_id]
        while below:
            below = [row.id for row in tx.all(sa.select(tables.trusts.c.id).where(tables.trusts.c.redelegated_trust_id.in_(below)))]
            gone += below
        for row_id in reversed(gone):
            directory.delete(tx, TRUSTS, row_id)


def good_for(conn: db.Conn, trust_id: str, user_id: str) -> db.Row:
    """The trust, for its trustee. Raises Unauthorized for one that stands no more, Forbidden for anybody else."""
    line = tables.standing(conn, trust_id, clock.utcnow())
    if not line:
        raise Unauthorized(f"Could not find trust: {trust_id}.")
    if line[0].trustee_user_id != user_id:
        raise Forbidden("User is not a trustee.", kind="ForbiddenAction")
    return line[0]


def use(tx: db.Tx, trust_id: str) -> None:
    """One use is taken. Raises Unauthorized when none is left."""
    left = tables.trusts.c.remaining_uses
    if not tx.execute(tables.trusts.update().where(tables.trusts.c.id == trust_id, left > 0).values(remaining_uses=left - 1)).rowcount:
        raise Unauthorized(f"Could not find trust: {trust_id}.")
    journal.changed(tx, "trust", trust_id, "use", ["remaining_uses"])
