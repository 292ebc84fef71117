"""Tokens: issue, check, revoke.

`authenticate` runs at every request of every service. It decodes the token in the process and remembers what the tables said about it
under the identity epoch of that moment; each request reads the epoch, so a revocation counts at the next request in every process.
Races: the epoch is read before the tables, so what is remembered may only be newer than its epoch, never older.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import MultiFernet

from nacre.core import clock, db
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import Conflict, Forbidden, NotFound, Unauthorized
from nacre.identity import tables, tokens
from nacre.identity.service import directory, endpoint_filter, passwords, tags, trusts
from nacre.identity.service.directory import DOMAINS, PROJECTS, USERS, Kind, Record
from nacre.identity.tokens import Token

REMEMBERED = 4096


@dataclass
class Memory:
    """What one process remembers of tokens and the catalog, valid while the epoch stays."""

    epoch: int
    keys: MultiFernet
    callers: dict[str, Caller]
    catalog: list[db.Row]
    restricted: dict[str, set[str]]


@dataclass(frozen=True)
class Asked:
    """An authentication request, decoded. `scope`: None (default project), "unscoped", or (kind, reference)."""

    user: dict[str, Any] | None = None
    password: str = ""
    token: str = ""
    methods: tuple[str, ...] = ()
    scope: Any = None


def authenticate(cloud: Cloud, text: str, request_id: str) -> Caller:
    """The caller that holds token `text`. Raises Unauthorized."""
    with cloud.db.read() as conn:
        memory = _memory(cloud, conn)
        known = memory.callers.get(text)
        if known is None:
            token = tokens.decode(memory.keys, text)
            if token is None:
                raise Unauthorized
            known = _caller(cloud, conn, token, text)
            if len(memory.callers) >= REMEMBERED:
                memory.callers.clear()
            memory.callers[text] = known
    if known.expires_at is None or known.expires_at <= clock.utcnow():
        raise Unauthorized
    return known.anew(request_id)


def _memory(cloud: Cloud, conn: sa.Connection) -> Memory:
    epoch = tables.epoch(conn)
    memory: Memory | None = cloud.memory.get("identity")
    if memory is None or memory.epoch != epoch:
        memory = Memory(epoch, tokens.load_keys(cloud, conn), {}, tables.catalog_rows(conn), endpoint_filter.restricted(conn))
        cloud.memory["identity"] = memory
    return memory


def _caller(cloud: Cloud, conn: sa.Connection, token: Token, text: str) -> Caller:
    """Everything that policy and rendering need to know of a token, or Unauthorized when it is not worth anything any more."""
    user = tables.by_id(conn, tables.users, token.user_id)
    gone = conn.execute(sa.select(tables.revoked.c.audit_id).where(tables.revoked.c.audit_id.in_(token.audit_ids))).first()
    if user is None or not user.enabled or gone is not None or (user.password_changed_at and user.password_changed_at > token.issued_at):
        raise Unauthorized
    home = tables.by_id(conn, tables.domains, user.domain_id)
    if home is None or not home.enabled:
        raise Unauthorized
    caller = Caller(cloud, "", user_id=user.id, user_name=user.name, user_domain_id=home.id, user_domain_name=home.name, methods=token.methods,
                    audit_ids=token.audit_ids, expires_at=token.expires_at, issued_at=token.issued_at, token=text,
                    extra={"password_expires_at": user.password_expires_at})  # fmt: skip
    if not token.scope:
        return caller
    if token.scope == "trust":
        return _trusted(conn, caller, token)
    granted = tables.roles_on(conn, user.id, token.scope, token.scope_id)
    if not granted:
        raise Unauthorized
    return replace(caller, **_with(granted, **caller.extra), **_scope(conn, token.scope, token.scope_id))


def _with(granted: Sequence[db.Row], **extra: Any) -> dict[str, Any]:
    named = [{"id": role.id, "name": role.name} for role in granted]
    return {"roles": frozenset(role.name.lower() for role in granted), "extra": {"roles": named, **extra}}


def _trusted(conn: sa.Connection, trustee: Caller, token: Token) -> Caller:
    """Who acts for a trustor: with the roles of the trust, all of which the trustor must still have; in the trustor's name if it says so."""
    trust = tables.by_id(conn, tables.trusts, token.scope_id)
    if trust is None or trust.trustee_user_id != trustee.user_id or (trust.expires_at is not None and trust.expires_at <= clock.utcnow()):
        raise Unauthorized
    trustor = tables.by_id(conn, tables.users, trust.trustor_user_id)
    home = tables.by_id(conn, tables.domains, trustor.domain_id) if trustor is not None else None
    if trustor is None or not trustor.enabled or home is None or not home.enabled:
        raise Unauthorized
    named = {"user_id": trustor.id, "user_name": trustor.name, "user_domain_id": home.id, "user_domain_name": home.name}
    acting = replace(trustee, **named) if trust.impersonation else trustee
    shown = {"id": trust.id, "impersonation": trust.impersonation, "trustor_user": {"id": trustor.id}, "trustee_user": {"id": trust.trustee_user_id}}
    if trust.project_id is None:
        return replace(acting, extra={**acting.extra, "roles": [], "trust": shown})
    given = {row.role_id for row in conn.execute(sa.select(tables.trust_roles).where(tables.trust_roles.c.trust_id == trust.id))}
    held = {row.id: row for row in tables.roles_on(conn, trustor.id, "project", trust.project_id)}
    if not given or not given <= set(held):
        raise Unauthorized
    return replace(acting, **_with([held[role_id] for role_id in given], **acting.extra, trust=shown), **_scope(conn, "project", trust.project_id))


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


def issue(cloud: Cloud, request_id: str, asked: Asked) -> Caller:
    """A new token for who proves to be a user. Raises Unauthorized, BadRequest, NotFound (token, trust), Forbidden."""
    with cloud.db.read() as conn:
        memory = _memory(cloud, conn)
        if asked.token:
            before = _held(cloud, asked.token, request_id)
            if "trust" in before.extra:
                raise Forbidden("A token of a trust cannot be used to get another.", kind="ForbiddenAction")
            user = tables.by_id(conn, tables.users, before.user_id)
            methods = tuple(dict.fromkeys((*before.methods, *asked.methods)))
            audit: tuple[str, ...] = (tokens.audit_id(), before.audit_ids[-1])
            expires = before.expires_at
        else:
            user = find_user(conn, asked.user or {})
            methods, audit, expires = asked.methods, (tokens.audit_id(),), None
    if not asked.token:
        user = passwords.prove(cloud, user, asked.password)
    if user is None:
        raise Unauthorized
    now = clock.utcnow()
    with cloud.db.read() as conn:
        scope, scope_id = _wanted_scope(conn, user, asked.scope)
    ends = [expires or now + timedelta(seconds=cloud.config.token.expiration)]
    if scope == "trust":
        with cloud.db.write(System(request_id, user.id)) as tx:
            ends += [end for end in [trusts.use(tx, scope_id, user.id)] if end is not None]
    token = Token(user.id, scope, scope_id, methods, now, min(ends), audit)
    with cloud.db.read() as conn:
        return replace(_caller(cloud, conn, token, tokens.encode(memory.keys, token)), request_id=request_id)


def _held(cloud: Cloud, text: str, request_id: str) -> Caller:
    """Raises NotFound for a token that is not worth anything, as upstream says it."""
    try:
        return authenticate(cloud, text, request_id)
    except Unauthorized as error:
        raise NotFound("Failed to validate token", kind="TokenNotFound") from error


def find_user(conn: sa.Connection, reference: dict[str, Any]) -> db.Row | None:
    if reference.get("id"):
        return tables.by_id(conn, tables.users, reference["id"])
    domain = find_domain(conn, reference.get("domain") or {})
    return tables.named(conn, tables.users, reference.get("name", ""), domain.id) if domain is not None else None


def find_domain(conn: sa.Connection, reference: dict[str, Any]) -> db.Row | None:
    if reference.get("id"):
        return tables.by_id(conn, tables.domains, reference["id"])
    return tables.named(conn, tables.domains, reference.get("name", ""))


def _wanted_scope(conn: sa.Connection, user: db.Row, scope: Any) -> tuple[str, str]:
    if scope is None and user.default_project_id and tables.roles_on(conn, user.id, "project", user.default_project_id):
        return "project", user.default_project_id
    if scope is None or scope == "unscoped":
        return "", ""
    kind, reference = scope
    if kind == "system":
        return "system", "all"
    if kind == "trust":
        return "trust", str(reference["id"])
    if kind == "domain":
        found = find_domain(conn, reference)
    elif reference.get("id"):
        found = tables.by_id(conn, tables.projects, reference["id"])
    else:
        domain = find_domain(conn, reference.get("domain") or {})
        found = tables.named(conn, tables.projects, reference.get("name", ""), domain.id) if domain is not None else None
    if found is None:
        raise Unauthorized
    return kind, str(found.id)


def shown(caller: Caller, text: str) -> Caller:
    """The token in X-Subject-Token, for a caller who may see it; one that is not worth anything is missing to everybody, as upstream says it.
    Raises NotFound, Forbidden."""
    subject = _held(caller.cloud, text, caller.request_id)
    caller.require({"target.token.user_id": subject.user_id})
    return subject


def revoke(caller: Caller, text: str) -> None:
    """The token in X-Subject-Token counts no more, from the next request on, everywhere."""
    subject = shown(caller, text)
    with caller.write() as tx:
        if tx.first(sa.select(tables.revoked).where(tables.revoked.c.audit_id == subject.audit_ids[0])) is None:
            tx.insert(tables.revoked, audit_id=subject.audit_ids[0], expires_at=subject.expires_at)
            tables.bump_epoch(tx)


def catalog(cloud: Cloud, project_id: str | None) -> list[db.Row]:
    """What the catalog shows to a project: what it was given if it was given some."""
    with cloud.db.read() as conn:
        memory = _memory(cloud, conn)
    given = memory.restricted.get(project_id or "")
    if given is None:
        return memory.catalog if project_id is None or cloud.config.endpoint_filter.return_all_endpoints_if_no_filter else []
    return [row for row in memory.catalog if row.endpoint_id in given]


def scopes(caller: Caller, kind: str) -> list[Record]:
    """The projects or domains that the caller could scope a token to."""
    if caller.user_id is None:
        raise Forbidden("A user is needed.")
    table = tables.projects if kind == "project" else tables.domains
    with caller.read() as conn:
        wanted = tables.scopes_of(conn, caller.user_id, kind)
        rows = conn.execute(sa.select(table).where(table.c.id.in_(wanted), table.c.enabled).order_by(table.c.name))
        found = [directory.record(row) for row in rows]
        return tags.shown(conn, found) if kind == "project" else found


def system_scopes(caller: Caller) -> bool:
    with caller.read() as conn:
        return bool(caller.user_id and tables.scopes_of(conn, caller.user_id, "system"))


def acting(cloud: Cloud, user: str, scope: str, reference: str) -> Caller:
    """Who a token of this user for this scope would make, each by id or name. Raises NotFound, Conflict (a name that several have)."""
    with cloud.db.read() as conn:
        user_id = _only(conn, USERS, user)
        fixed = {"": "", "system": "all"}
        scope_id = fixed[scope] if scope in fixed else _only(conn, PROJECTS if scope == "project" else DOMAINS, reference)
        now = clock.utcnow()
        token = Token(user_id, scope, scope_id, (), now, now + timedelta(hours=1), ())
        try:
            return _caller(cloud, conn, token, "")
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
