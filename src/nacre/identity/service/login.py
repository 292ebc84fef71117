"""How one comes by a token: by proofs of who one is, and the scope that it is for.

A request says one or more methods; each must prove the same user. `issue` hashes outside every transaction. What a process remembers of an
application credential under the identity epoch is what the tables say of it, never a secret: its hash is compared at every login.
Races: what is decided here is looked at again wherever the token is used (`service.auth`), so a change between costs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import MultiFernet

from nacre.core import clock
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import Forbidden, Unauthorized
from nacre.identity import tables, tokens
from nacre.identity.service import factors, passwords, trusts
from nacre.identity.service.auth import REMEMBERED, caller_of, held, memory_of
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.service.factors import Receipt
from nacre.identity.service.passwords import Refused
from nacre.identity.tokens import Token

Said = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """An authentication request, decoded. `said`: what each method was given, in the request's order; `scope`: None (default project),
    "unscoped", or (kind, reference); `receipt`: of a request before."""

    said: Mapping[str, Said]
    scope: Any = None
    receipt: str = ""


@dataclass(frozen=True)
class Program:
    """What there is to know of an application credential: what its tokens are worth, what signs them, its user's options, the hash of its
    secret."""

    caller: Caller
    keys: MultiFernet
    options: Mapping[str, Any]
    secret_hash: str
    expires_at: datetime | None


@dataclass(frozen=True)
class Proof:
    """What a method showed. `program`: that it was one, which says the scope; `before`: the token that this one comes of."""

    user_id: str
    program: Program | None = None
    before: Caller | None = None


def issue(cloud: Cloud, request_id: str, asked: Asked) -> Caller | Receipt:
    """A new token for who proves to be a user, or a receipt for who has to show more. Raises Unauthorized, BadRequest, Forbidden."""
    proofs = [_METHODS[method](cloud, request_id, said, asked.scope) for method, said in asked.said.items()]
    user_id = proofs[0].user_id
    if any(proof.user_id != user_id for proof in proofs):
        raise Unauthorized
    before = next((proof.before for proof in proofs if proof.before is not None), None)
    program = next((proof.program for proof in proofs if proof.program is not None), None)
    methods = tuple(dict.fromkeys((*(before.methods if before is not None else ()), *asked.said)))
    if program is None or program.options or asked.receipt:
        with cloud.db.read() as conn:
            keys, user = memory_of(cloud, conn).keys, tables.by_id(conn, tables.users, user_id)
        if user is None:
            raise Unauthorized
        if asked.receipt:
            methods = tuple(dict.fromkeys((*factors.shown_before(keys, asked.receipt, user), *methods)))
        required = factors.missing(user.options, methods, _METHODS)
        if required is not None:
            return factors.receipt(cloud, keys, user_id, methods, required)
    now = clock.utcnow()
    expires = (before.expires_at if before is not None else None) or now + timedelta(seconds=cloud.config.token.expiration)
    audit = (tokens.audit_id(), *(before.audit_ids[-1:] if before is not None else ()))
    token = Token(user_id, "", "", methods, now, expires, audit)
    return of_program(program, request_id, token) if program is not None else _scoped(cloud, request_id, token, asked.scope)


def _scoped(cloud: Cloud, request_id: str, token: Token, wanted: Any) -> Caller:
    with cloud.db.read() as conn:
        scope, scope_id = _wanted_scope(conn, token.user_id, wanted)
        trust = trusts.good_for(conn, scope_id, token.user_id) if scope == "trust" else None
    token = replace(token, scope=scope, scope_id=scope_id)
    if trust is None:
        return made(cloud, request_id, token)
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


def of_program(program: Program, request_id: str, token: Token) -> Caller:
    """Who holds the token, which is for where the program may be, signed."""
    ends = min(token.expires_at, program.expires_at or token.expires_at)
    token = replace(token, scope=APPLICATION, scope_id=program.caller.extra[APPLICATION]["id"], expires_at=ends)
    return replace(program.caller, request_id=request_id, methods=token.methods, audit_ids=token.audit_ids, issued_at=token.issued_at,
                   expires_at=token.expires_at, token=tokens.encode(program.keys, token), asked=set())  # fmt: skip


def _by_password(cloud: Cloud, request_id: str, said: Said, scope: Any) -> Proof:
    with cloud.db.read() as conn:
        user = find_user(conn, said["user"])
    return Proof(passwords.prove(cloud, user, said["user"]["password"]).id)


def _by_totp(cloud: Cloud, request_id: str, said: Said, scope: Any) -> Proof:
    with cloud.db.read() as conn:
        user = find_user(conn, said["user"])
        if user is None or not factors.code_fits(cloud, conn, user.id, said["user"]["passcode"]):
            raise Refused("user" if user is None else "passcode", user.id if user is not None else None, "Invalid username or TOTP passcode")
    return Proof(user.id)


def _by_token(cloud: Cloud, request_id: str, said: Said, scope: Any) -> Proof:
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
            program = program_of(cloud, conn, (before.extra[APPLICATION]["id"],))
        if program is None:
            raise Unauthorized
        return Proof(str(before.user_id), program, before)
    if not cloud.config.token.allow_rescope_scoped_token and (before.project_id or before.domain_id or before.system_scope):
        raise Forbidden("You are not authorized to perform the requested action: rescope a scoped token.", kind="ForbiddenAction")
    return Proof(str(before.user_id), None, before)


def _by_application(cloud: Cloud, request_id: str, said: Said, scope: Any) -> Proof:
    if scope is not None:
        raise Unauthorized("Error authenticating with application credential: Application credentials cannot request a scope.")
    with cloud.db.read() as conn:
        program = program_of(cloud, conn, _key(conn, said))
    if not tokens.check_secret(cloud.config.identity, program.secret_hash if program is not None else None, said["secret"]) or program is None:
        raise Refused("secret", program.caller.user_id if program is not None else None)
    if program.expires_at is not None and program.expires_at <= clock.utcnow():
        raise Unauthorized
    return Proof(str(program.caller.user_id), program)


def _key(conn: sa.Connection, said: Said) -> tuple[str, ...]:
    """(id), or (user's id, name)."""
    if said.get("id"):
        return (said["id"],)
    user = find_user(conn, said["user"])
    return (user.id if user is not None else "", said["name"])


def program_of(cloud: Cloud, conn: sa.Connection, key: tuple[str, ...]) -> Program | None:
    """By the key, or None when it is worth nothing."""
    memory = memory_of(cloud, conn)
    known: Program | None = memory.programs.get(key)
    if known is None:
        table = tables.app_credentials
        which = table.c.id == key[0] if len(key) == 1 else sa.and_(table.c.user_id == key[0], table.c.name == key[1])
        row = conn.execute(sa.select(table).where(which)).first()
        if row is None:
            return None
        now = clock.utcnow()
        try:
            caller = caller_of(cloud, conn, Token(row.user_id, APPLICATION, row.id, (APPLICATION,), now, now, ()), "")
        except Unauthorized:
            return None
        if len(memory.programs) >= REMEMBERED:
            memory.programs.clear()
        options = conn.execute(sa.select(tables.users.c.options).where(tables.users.c.id == row.user_id)).scalar() or {}
        known = memory.programs[key] = Program(caller, memory.keys, options, row.secret_hash, row.expires_at)
    return known


_METHODS: Mapping[str, Callable[[Cloud, str, Said, Any], Proof]] = {
    "password": _by_password, "totp": _by_totp, "token": _by_token, APPLICATION: _by_application,
}  # fmt: skip


def find_user(conn: sa.Connection, reference: Said) -> Any:
    if reference.get("id"):
        return tables.by_id(conn, tables.users, reference["id"])
    domain = find_domain(conn, reference.get("domain") or {})
    return tables.named(conn, tables.users, reference.get("name", ""), domain.id) if domain is not None else None


def find_domain(conn: sa.Connection, reference: Said) -> Any:
    if reference.get("id"):
        return tables.by_id(conn, tables.domains, reference["id"])
    return tables.named(conn, tables.domains, reference.get("name", ""))


def _wanted_scope(conn: sa.Connection, user_id: str, scope: Any) -> tuple[str, str]:
    """Raises Unauthorized for what there is not."""
    if scope is None:
        return _default_scope(conn, user_id)
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


def _default_scope(conn: sa.Connection, user_id: str) -> tuple[str, str]:
    """The user's default project, while the user may be there; else none."""
    user = tables.by_id(conn, tables.users, user_id)
    project = tables.by_id(conn, tables.projects, user.default_project_id) if user is not None else None
    domain = tables.by_id(conn, tables.domains, project.domain_id) if project is not None else None
    if project is None or domain is None or not project.enabled or not domain.enabled:
        return "", ""
    return ("project", project.id) if tables.roles_on(conn, user_id, "project", project.id) else ("", "")
