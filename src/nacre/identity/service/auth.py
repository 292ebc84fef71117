"""Tokens: what they are worth, and their end. How they are come by is in `service.login`.

`authenticate` runs at every request of every service. It decodes the token in the process and remembers what the tables said about it
under the identity epoch of that moment; each request reads the epoch, so a revocation counts at the next request in every process.
Races: the epoch is read before the tables, so what is remembered may only be newer than its epoch, never older. A process never goes back to
what was remembered under an older one, so who was found in a request (`authenticate`) may go on with what is remembered then.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import MultiFernet

from nacre.core import clock, db
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import Conflict, Forbidden, NotFound, Unauthorized
from nacre.identity import tables, tokens
from nacre.identity.service import directory, endpoint_filter, tags
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.service.directory import DOMAINS, PROJECTS, USERS, Kind, Record
from nacre.identity.tables import rights
from nacre.identity.tokens import Token

REMEMBERED = 4096
_NEWEST = threading.Lock()


@dataclass
class Memory:
    """What one process remembers of tokens, application credentials (`service.programs`) and the catalog, valid while the epoch stays."""

    epoch: int
    keys: MultiFernet
    seals: MultiFernet
    catalog: tuple[db.Row, ...]
    restricted: dict[str, set[str]]
    callers: dict[str, Caller] = field(default_factory=dict)
    programs: dict[tuple[str, ...], Any] = field(default_factory=dict)


def authenticate(cloud: Cloud, text: str, request_id: str, late: timedelta = timedelta()) -> Caller:
    """The caller that holds token `text`, for so long after its end. Raises Unauthorized."""
    with cloud.db.read() as conn:
        memory = memory_of(cloud, conn)
        known = memory.callers.get(text)
        if known is None:
            token = tokens.decode(memory.keys, text)
            if token is None:
                raise Unauthorized
            known = caller_of(cloud, conn, token, text)
            if len(memory.callers) >= REMEMBERED:
                memory.callers.clear()
            memory.callers[text] = known
    if known.expires_at is None or known.expires_at + late <= clock.utcnow():
        raise Unauthorized
    return known.anew(request_id)


def memory_of(cloud: Cloud, conn: sa.Connection) -> Memory:
    epoch, memory = tables.epoch(conn), _remembered(cloud)
    if memory is not None and memory.epoch == epoch:
        return memory
    keys, seals = tokens.load_keys(cloud, conn), tokens.load_seals(cloud, conn)
    made = Memory(epoch, keys, seals, tuple(tables.catalog_rows(conn)), endpoint_filter.restricted(conn))
    with _NEWEST:
        memory = _remembered(cloud)
        if memory is None or memory.epoch < epoch:
            cloud.memory["identity"] = made
    return made


def _remembered(cloud: Cloud) -> Memory | None:
    return cloud.memory.get("identity")


def caller_of(cloud: Cloud, conn: sa.Connection, token: Token, text: str) -> Caller:
    """Everything that policy and rendering need to know of a token, or Unauthorized when it is not worth anything any more."""
    return caller_for(cloud, conn, token, text, user_of(conn, token.user_id))


def caller_for(cloud: Cloud, conn: sa.Connection, token: Token, text: str, whose: tuple[db.Row, db.Row]) -> Caller:
    """The same where the user, with the domain, is found already."""
    user, home = whose
    if tables.is_revoked(conn, token.audit_ids) or (user.login_since and user.login_since > token.issued_at):
        raise Unauthorized
    caller = Caller(cloud, "", user_id=user.id, user_name=user.name, user_domain_id=home.id, user_domain_name=home.name, methods=token.methods,
                    audit_ids=token.audit_ids, expires_at=token.expires_at, issued_at=token.issued_at, token=text,
                    extra={"password_expires_at": user.password_expires_at})  # fmt: skip
    if not token.scope:
        return caller
    if token.scope == "trust":
        return _trusted(conn, caller, token)
    if token.scope == APPLICATION:
        return _applied(conn, caller, token)
    granted = rights.roles_on(conn, user.id, token.scope, token.scope_id)
    if not granted:
        raise Unauthorized
    return replace(caller, **_with(granted, **caller.extra), **_scope(conn, token.scope, token.scope_id))


def _with(granted: Sequence[db.Row], **extra: Any) -> dict[str, Any]:
    named = [{"id": role.id, "name": role.name} for role in granted]
    return {"roles": frozenset(role.name.lower() for role in granted), "extra": {"roles": named, **extra}}


def _trusted(conn: sa.Connection, trustee: Caller, token: Token) -> Caller:
    """Who acts for a trustor: with the roles of the trust, all of which the trustor must still have; in the trustor's name if it says so.
    A trust whose last use was taken for this very token goes on."""
    trust = tables.by_id(conn, tables.trusts, token.scope_id)
    if trust is None or trust.trustee_user_id != trustee.user_id or (trust.expires_at is not None and trust.expires_at <= clock.utcnow()):
        raise Unauthorized
    passed_on_by = tables.standing(conn, trust.redelegated_trust_id, clock.utcnow()) if trust.redelegated_trust_id else []
    if trust.redelegated_trust_id and not passed_on_by:
        raise Unauthorized
    for between in passed_on_by:
        user_of(conn, between.trustee_user_id)
        user_of(conn, between.trustor_user_id)
    trustor, home = user_of(conn, trust.trustor_user_id)
    named = {"user_id": trustor.id, "user_name": trustor.name, "user_domain_id": home.id, "user_domain_name": home.name}
    acting = replace(trustee, **named) if trust.impersonation else trustee
    shown = {"id": trust.id, "impersonation": trust.impersonation, "trustor_user": {"id": trustor.id}, "trustee_user": {"id": trust.trustee_user_id}}
    if trust.project_id is None:
        return replace(acting, extra={**acting.extra, "roles": [], "trust": shown})
    given = rights.with_implied(tables.given_by(conn, trust.id), rights.inferences(conn))
    held = {row.id: row for row in rights.roles_on(conn, trustor.id, "project", trust.project_id)}
    if not given or not given <= set(held):
        raise Unauthorized
    named_roles = sorted((held[role_id] for role_id in given), key=lambda role: str(role.name))
    return replace(acting, **_with(named_roles, **acting.extra, trust=shown), **_scope(conn, "project", trust.project_id))


def user_of(conn: sa.Connection, user_id: str) -> tuple[db.Row, db.Row]:
    """Who may act, and the domain. Raises Unauthorized."""
    user = tables.by_id(conn, tables.users, user_id)
    home = tables.by_id(conn, tables.domains, user.domain_id) if user is not None and user.enabled else None
    if user is None or home is None or not home.enabled:
        raise Unauthorized
    return user, home


def _applied(conn: sa.Connection, user: Caller, token: Token) -> Caller:
    """A program with an application credential of the user's: with its roles, all of which the user must still have."""
    row = tables.by_id(conn, tables.app_credentials, token.scope_id)
    if row is None or row.user_id != user.user_id or (row.expires_at is not None and row.expires_at <= clock.utcnow()):
        raise Unauthorized
    chosen = conn.execute(sa.select(tables.app_credential_roles.c.role_id).where(tables.app_credential_roles.c.credential_id == row.id))
    given, held = {one.role_id for one in chosen}, {one.id: one for one in rights.roles_on(conn, row.user_id, "project", row.project_id)}
    if not given or not given <= set(held):
        raise Unauthorized
    rules = tables.rules_of(conn, row.id)
    shown = {"id": row.id, "name": row.name, "restricted": not row.unrestricted, **({"access_rules": rules} if rules else {})}
    named = sorted((held[role_id] for role_id in given), key=lambda role: str(role.name))
    return replace(user, **_with(named, **user.extra, **{APPLICATION: shown}), **_scope(conn, "project", row.project_id))


def _scope(conn: sa.Connection, kind: str, scope_id: str) -> dict[str, Any]:
    if kind == "system":
        return {"system_scope": "all"}
    if kind == "domain":
        domain = tables.by_id(conn, tables.domains, scope_id)
        if domain is None or not domain.enabled:
            raise Unauthorized
        return {"domain_id": domain.id, "domain_name": domain.name}
    project = tables.by_id(conn, tables.projects, scope_id)
    domain = tables.by_id(conn, tables.domains, project.domain_id) if project is not None else None
    if project is None or domain is None or not project.enabled or not domain.enabled:
        raise Unauthorized
    return {"project_id": project.id, "project_name": project.name, "project_domain_id": domain.id, "project_domain_name": domain.name}


def held(cloud: Cloud, text: str, request_id: str, late: timedelta = timedelta()) -> Caller:
    """The same for a token that is given as data: one that is not worth anything is missing, to everybody. Raises NotFound."""
    try:
        return authenticate(cloud, text, request_id, late)
    except Unauthorized as error:
        raise NotFound("Failed to validate token", kind="TokenNotFound") from error


def shown(caller: Caller, text: str, *, knows_rules: bool = True, expired: bool = False) -> Caller:
    """The token in X-Subject-Token, for a caller who may see it; one with access rules only to who `knows_rules`; one that is over for a while
    to who asks for such. Raises NotFound, Forbidden."""
    if not text:
        caller.require({"target.token.user_id": None})
        raise NotFound("No token in the request", kind="TokenNotFound")
    late = timedelta(seconds=caller.cloud.config.token.allow_expired_window) if expired else timedelta()
    subject = held(caller.cloud, text, caller.request_id, late)
    caller.require({"target.token.user_id": subject.user_id})
    if not knows_rules and subject.extra.get(APPLICATION, {}).get("access_rules"):
        raise NotFound("Failed to validate token", kind="TokenNotFound")
    return subject


def revoke(caller: Caller, text: str) -> None:
    """The token in X-Subject-Token counts no more, from the next request on, everywhere."""
    subject = shown(caller, text)
    with caller.write() as tx:
        if tx.first(sa.select(tables.revoked).where(tables.revoked.c.audit_id == subject.audit_ids[0])) is None:
            tx.insert(tables.revoked, audit_id=subject.audit_ids[0], expires_at=subject.expires_at)
            tables.bump_epoch(tx)


def catalog(cloud: Cloud, project_id: str | None) -> tuple[db.Row, ...]:
    """What the catalog shows to a project, of a caller of this request: what it was given if it was given some."""
    memory = _remembered(cloud)
    assert memory is not None
    given = memory.restricted.get(project_id or "")
    if given is None:
        return memory.catalog if project_id is None or cloud.config.endpoint_filter.return_all_endpoints_if_no_filter else ()
    return tuple(row for row in memory.catalog if row.endpoint_id in given)


def scopes(caller: Caller, kind: str) -> list[Record]:
    """The projects or domains that the caller could scope a token to."""
    if caller.user_id is None:
        raise Forbidden("A user is needed.")
    table = tables.projects if kind == "project" else tables.domains
    with caller.read() as conn:
        wanted = rights.scopes_of(conn, caller.user_id, kind)
        rows = conn.execute(sa.select(table).where(table.c.id.in_(wanted), table.c.enabled).order_by(table.c.name))
        found = [directory.record(row) for row in rows]
        return tags.shown(conn, found) if kind == "project" else found


def system_scopes(caller: Caller) -> bool:
    with caller.read() as conn:
        return bool(caller.user_id and rights.scopes_of(conn, caller.user_id, "system"))


def acting(cloud: Cloud, user: str, scope: str, reference: str) -> Caller:
    """Who a token of this user for this scope would make, each by id or name. Raises NotFound, Conflict (a name that several have)."""
    with cloud.db.read() as conn:
        user_id = _only(conn, USERS, user)
        fixed = {"": "", "system": "all"}
        scope_id = fixed[scope] if scope in fixed else _only(conn, PROJECTS if scope == "project" else DOMAINS, reference)
        now = clock.utcnow()
        token = Token(user_id, scope, scope_id, (), now, now + timedelta(hours=1), ())
        try:
            return caller_of(cloud, conn, token, "")
        except Unauthorized:
            where = f"in {scope} {reference}" if reference else f"with scope {scope or 'none'}"
            raise NotFound(f"{user} would get no token {where}: there is no role, or something is disabled.") from None


def _only(conn: sa.Connection, kind: Kind, reference: str) -> str:
    if tables.by_id(conn, kind.table, reference) is not None:
        return reference
    found = [row.id for row in conn.execute(sa.select(kind.table.c.id).where(kind.table.c.name == reference))]
    if not found:
        raise directory.missing(kind, reference)
    if len(found) > 1:
        raise Conflict(f"Several have the name {reference}: {', '.join(found)}. Say one of these ids.")
    return str(found[0])
