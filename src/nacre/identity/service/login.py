"""How one comes by a token: by proofs of who one is, and the scope that it is for.

A request says one or more methods; each must prove the same user. `issue` hashes outside every transaction.
Races: what is decided here is looked at again wherever the token is used (`service.auth`), so a change between costs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nacre.core import clock, db
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import Forbidden, Unauthorized
from nacre.identity import tables, tokens
from nacre.identity.service import factors, passwords, programs, trusts
from nacre.identity.service.auth import caller_for, caller_of, held, memory_of, user_of
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.service.factors import Receipt
from nacre.identity.service.passwords import Refused
from nacre.identity.service.programs import Program
from nacre.identity.tables import rights
from nacre.identity.tokens import Token

Said = Mapping[str, Any]
_NO_CODE = "Invalid username or TOTP passcode"


@dataclass(frozen=True)
class Asked:
    """An authentication request, decoded. `at`: when it came, so that what ends tokens meanwhile ends its token, too; `said`: what each method
    was given, in the request's order; `scope`: None (default project), "unscoped", or (kind, reference); `receipt`: of a request before."""

    at: datetime
    said: Mapping[str, Said]
    scope: Any = None
    receipt: str = ""


@dataclass(frozen=True)
class Named:
    """What a method names, as far as there is such: a user, an application credential."""

    user: db.Row | None = None
    program: Program | None = None


@dataclass(frozen=True)
class Proof:
    """What a method showed. `program`: that it was one, which says the scope; `before`: the token that this one comes of."""

    user_id: str
    program: Program | None = None
    before: Caller | None = None


def named(cloud: Cloud, conn: sa.Connection, asked: Asked) -> dict[str, Named]:
    """By method."""
    return {method: _named(cloud, conn, method, said) for method, said in asked.said.items()}


def _named(cloud: Cloud, conn: sa.Connection, method: str, said: Said) -> Named:
    user = find_user(conn, said["user"]) if "user" in said else None
    if method != APPLICATION:
        return Named(user)
    key = (said["id"],) if said.get("id") else (user.id if user is not None else "", said["name"])
    return Named(user, programs.find(cloud, conn, key))


def issue(cloud: Cloud, request_id: str, asked: Asked, found: Mapping[str, Named]) -> Caller | Receipt:
    """A new token for who proves to be a user, or a receipt for who has to show more. `found`: as `named` told.
    Raises Unauthorized, BadRequest, Forbidden."""
    proofs = [_METHODS[method](cloud, request_id, said, found[method], asked.scope) for method, said in asked.said.items()]
    user_id = proofs[0].user_id
    if any(proof.user_id != user_id for proof in proofs):
        raise Unauthorized
    before = next((proof.before for proof in proofs if proof.before is not None), None)
    program = next((proof.program for proof in proofs if proof.program is not None), None)
    methods = tuple(dict.fromkeys((*(before.methods if before is not None else ()), *asked.said)))
    ends = (before.expires_at if before is not None else None) or asked.at + timedelta(seconds=cloud.config.token.expiration)
    audit = (tokens.audit_id(), *(before.audit_ids[-1:] if before is not None else ()))
    token = Token(user_id, "", "", methods, asked.at, ends, audit)
    if program is not None and not program.options and not asked.receipt:
        return programs.holder(program, request_id, token)
    with cloud.db.read() as conn:
        keys, whose = memory_of(cloud, conn).keys, user_of(conn, user_id)
        if asked.receipt:
            token = replace(token, methods=tuple(dict.fromkeys((*factors.shown_before(keys, asked.receipt, whose[0]), *methods))))
        required = factors.missing(whose[0].options, token.methods, _METHODS)
        if required is not None:
            return factors.receipt(cloud, keys, whose, token, required)
        if program is not None:
            return programs.holder(program, request_id, token)
        scope, scope_id = _wanted_scope(conn, whose[0], asked.scope)
        token = replace(token, scope=scope, scope_id=scope_id)
        if scope != "trust":
            return replace(caller_for(cloud, conn, token, tokens.encode(keys, token), whose), request_id=request_id)
    return _by_trust(cloud, request_id, token)


def _by_trust(cloud: Cloud, request_id: str, token: Token) -> Caller:
    """Takes one of its uses. Raises Unauthorized, Forbidden."""
    with cloud.db.read() as conn:
        trust = trusts.good_for(conn, token.scope_id, token.user_id)
    try:
        holder = made(cloud, request_id, replace(token, expires_at=min(token.expires_at, trust.expires_at or token.expires_at)))
    except Unauthorized as error:
        raise Forbidden("Trustee has no delegated roles.", kind="ForbiddenAction") from error
    if trust.remaining_uses is not None:
        with cloud.db.write(System(request_id, token.user_id)) as tx:
            trusts.use(tx, trust.id)
    return holder


def made(cloud: Cloud, request_id: str, token: Token) -> Caller:
    """Who holds the token, signed. Raises Unauthorized when it would be worth nothing."""
    with cloud.db.read() as conn:
        memory = memory_of(cloud, conn)
        return replace(caller_of(cloud, conn, token, tokens.encode(memory.keys, token)), request_id=request_id)


def _by_password(cloud: Cloud, request_id: str, said: Said, found: Named, scope: Any) -> Proof:
    return Proof(passwords.prove(cloud, found.user, said["user"]["password"]).id)


def _by_totp(cloud: Cloud, request_id: str, said: Said, found: Named, scope: Any) -> Proof:
    if found.user is None:
        raise Refused("user", None, _NO_CODE)
    with cloud.db.read() as conn:
        if not factors.code_fits(cloud, conn, found.user.id, said["user"]["passcode"]):
            raise Refused("passcode", found.user.id, _NO_CODE)
    return Proof(found.user.id)


def _by_token(cloud: Cloud, request_id: str, said: Said, found: Named, scope: Any) -> Proof:
    """Who came by a delegation stays within it. Raises Forbidden."""
    before = held(cloud, said["id"], request_id)
    if "trust" in before.extra:
        raise Forbidden("Using trust-scoped token to create another token. Create a new trust-scoped token instead", kind="ForbiddenAction")
    if before.system_scope and isinstance(scope, tuple) and scope[0] in ("project", "domain"):
        raise Forbidden("Using a system-scoped token to create a project-scoped or domain-scoped token is not allowed.", kind="ForbiddenAction")
    if APPLICATION in before.extra:
        if scope is not None:
            raise Forbidden("Using an application credential token to create a scoped token is not allowed.", kind="ForbiddenAction")
        with cloud.db.read() as conn:
            program = programs.find(cloud, conn, (before.extra[APPLICATION]["id"],))
        if program is None:
            raise Unauthorized
        return Proof(str(before.user_id), program, before)
    if not cloud.config.token.allow_rescope_scoped_token and (before.project_id or before.domain_id or before.system_scope):
        raise Forbidden("You are not authorized to perform the requested action: rescope a scoped token.", kind="ForbiddenAction")
    return Proof(str(before.user_id), None, before)


def _by_application(cloud: Cloud, request_id: str, said: Said, found: Named, scope: Any) -> Proof:
    if scope is not None:
        raise Unauthorized("Error authenticating with application credential: Application credentials cannot request a scope.")
    program = found.program
    if not tokens.check_secret(cloud.config.identity, program.secret_hash if program is not None else None, said["secret"]) or program is None:
        raise Refused("secret", program.caller.user_id if program is not None else None)
    if program.expires_at is not None and program.expires_at <= clock.utcnow():
        raise Unauthorized
    return Proof(str(program.caller.user_id), program)


_METHODS: Mapping[str, Callable[[Cloud, str, Said, Named, Any], Proof]] = {
    "password": _by_password, "totp": _by_totp, "token": _by_token, APPLICATION: _by_application,
}  # fmt: skip


def find_user(conn: sa.Connection, reference: Said) -> db.Row | None:
    if reference.get("id"):
        return tables.by_id(conn, tables.users, reference["id"])
    domain = find_domain(conn, reference.get("domain") or {})
    return tables.named(conn, tables.users, reference.get("name", ""), domain.id) if domain is not None else None


def find_domain(conn: sa.Connection, reference: Said) -> db.Row | None:
    if reference.get("id"):
        return tables.by_id(conn, tables.domains, reference["id"])
    return tables.named(conn, tables.domains, reference.get("name", ""))


def _wanted_scope(conn: sa.Connection, user: db.Row, scope: Any) -> tuple[str, str]:
    """Raises Unauthorized for what there is not."""
    if scope is None:
        return _default_scope(conn, user)
    if scope == "unscoped":
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


def _default_scope(conn: sa.Connection, user: db.Row) -> tuple[str, str]:
    """The user's default project, while the user may be there; else none."""
    project = tables.by_id(conn, tables.projects, user.default_project_id)
    domain = tables.by_id(conn, tables.domains, project.domain_id) if project is not None else None
    if project is None or domain is None or not project.enabled or not domain.enabled:
        return "", ""
    return ("project", project.id) if rights.roles_on(conn, user.id, "project", project.id) else ("", "")
