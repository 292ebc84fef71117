"""Access keys of EC2 and S3: credentials of type ec2, by which a request is signed instead of carrying a token.

`authenticate` is what a service asks that got such a request: it makes the signature again and gives the token of the key's user in the key's
project. A key that was made by a delegation (a trust, an application credential) is worth what that is worth, and looked at likewise.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import sqlalchemy as sa

from nacre.core import clock, db
from nacre.core.caller import Caller
from nacre.core.errors import NotFound, Unauthorized
from nacre.identity import signatures, tables, tokens
from nacre.identity.service import credentials, delegation, directory, login, programs
from nacre.identity.service.credentials import CREDENTIALS
from nacre.identity.service.directory import PROJECTS, USERS, Record
from nacre.identity.signatures import Malformed, Signed
from nacre.identity.tokens import Token

_WHAT = "An EC2 credential"


def create(caller: Caller, user_id: str, project_id: str) -> Record:
    """A new access key of a user for a project. Raises Forbidden, NotFound (user, project)."""
    caller.require({"target.credential.user_id": user_id, "user_id": user_id})
    delegation.refuse_restricted(caller, "additional EC2 credentials")
    delegation.refuse_elsewhere(caller, project_id, _WHAT)
    blob = {"access": token_hex(16), "secret": token_hex(16), **credentials.bound(caller)}
    sealed = credentials.sealed(caller.cloud, blob)
    with caller.write() as tx:
        directory.existing(tx, USERS, user_id)
        if tables.by_id(tx, tables.projects, project_id) is None:
            raise directory.missing(PROJECTS, project_id)
        said = {"user_id": user_id, "project_id": project_id, "type": "ec2", "sealed": sealed}
        return _shown(caller, directory.insert(tx, CREDENTIALS, said, credentials.id_of(blob["access"])))


def _shown(caller: Caller, record: Record) -> Record:
    blob = credentials.blob_of(caller.cloud, record["sealed"])
    return {"user_id": record["user_id"], "tenant_id": record["project_id"], "access": blob.get("access"), "secret": blob.get("secret"),
            "trust_id": blob.get("trust_id")}  # fmt: skip


def listed(caller: Caller, user_id: str) -> list[Record]:
    """A user's access keys; who came by a delegation sees those of its project. Raises NotFound."""
    caller.require({"user_id": user_id})
    table = tables.credentials
    query = sa.select(table).where(table.c.user_id == user_id, table.c.type == "ec2").order_by(table.c.id)
    with caller.read() as conn:
        directory.existing(conn, USERS, user_id)
        found = [directory.record(row) for row in conn.execute(query)]
    return [_shown(caller, one) for one in found if delegation.reaches(caller, one["project_id"])]


def find(caller: Caller, user_id: str, access: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return _shown(caller, _load(conn, caller, user_id, access))


def _load(conn: db.Conn, caller: Caller, user_id: str, access: str) -> Record:
    row = tables.by_id(conn, tables.credentials, credentials.id_of(access))
    found = directory.record(row) if row is not None and row.type == "ec2" else {}
    caller.require({"target.credential.user_id": found.get("user_id", user_id), "user_id": user_id})
    if not found or found["user_id"] != user_id:
        raise NotFound(f"Could not find credential: {access}.")
    delegation.refuse_elsewhere(caller, found["project_id"], _WHAT)
    return found


def delete(caller: Caller, user_id: str, access: str) -> None:
    with caller.write() as tx:
        directory.delete(tx, CREDENTIALS, _load(tx, caller, user_id, access)["id"])


def authenticate(caller: Caller, asked: Signed, *, of_text: bool) -> Caller:
    """Who signed. `of_text`: S3 brings the text that was signed. Raises Unauthorized, NotFound (no such key)."""
    caller.require({})
    if not asked.access:
        raise Unauthorized("EC2 Signature not supplied")
    with caller.read() as conn:
        row = tables.by_id(conn, tables.credentials, credentials.id_of(asked.access))
    if row is None or row.type != "ec2":
        raise NotFound("EC2 access key not found.")
    blob = credentials.blob_of(caller.cloud, row.sealed)
    _check(asked, str(blob.get("secret") or ""), of_text=of_text)
    _check_time(asked, timedelta(minutes=caller.cloud.config.credential.auth_ttl))
    now = clock.utcnow()
    ends = now + timedelta(seconds=caller.cloud.config.token.expiration)
    return _holder(caller, row, blob, Token(row.user_id, "project", row.project_id or "", ("ec2credential",), now, ends, (tokens.audit_id(),)))


def _check(asked: Signed, secret: str, *, of_text: bool) -> None:
    if not asked.signature or not secret:
        raise Unauthorized("EC2 signature not supplied.")
    try:
        good = signatures.of_text(asked, secret) if of_text else signatures.of_request(asked, secret)
    except Malformed as error:
        raise Unauthorized(str(error)) from error
    if not good:
        raise Unauthorized("Credential signature mismatch" if of_text else "Invalid EC2 signature.")


def _check_time(asked: Signed, allowed: timedelta) -> None:
    """A request that was signed long ago is somebody's copy; one without a time was signed to be good for ever."""
    if not asked.timestamp:
        return
    try:
        when = datetime.fromisoformat(asked.timestamp)
        when = when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
        late = clock.utcnow() > when + allowed
    except (ValueError, OverflowError) as error:
        raise Unauthorized("Credential timestamp is invalid.") from error
    if late:
        raise Unauthorized("Credential is expired")


def _holder(caller: Caller, row: Any, blob: Record, token: Token) -> Caller:
    """Raises Unauthorized when the key's user, project or delegation is not worth anything any more, or is not the key's."""
    if blob.get("trust_id"):
        return _trusted(caller, row, token, str(blob["trust_id"]))
    if not blob.get("app_cred_id"):
        return login.made(caller.cloud, caller.request_id, token)
    with caller.read() as conn:
        program = programs.find(caller.cloud, conn, (str(blob["app_cred_id"]),))
    if program is None or (program.caller.user_id, program.caller.project_id) != (row.user_id, row.project_id):
        raise Unauthorized
    return programs.holder(program, caller.request_id, token)


def _trusted(caller: Caller, row: Any, token: Token, trust_id: str) -> Caller:
    with caller.read() as conn:
        line = tables.standing(conn, trust_id, clock.utcnow())
    if not line:
        raise Unauthorized
    trust = line[0]
    if (trust.trustor_user_id if trust.impersonation else trust.trustee_user_id, trust.project_id) != (row.user_id, row.project_id):
        raise Unauthorized
    return login.made(caller.cloud, caller.request_id, replace(token, user_id=trust.trustee_user_id, scope="trust", scope_id=trust_id))

