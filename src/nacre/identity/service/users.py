"""Users and their passwords. A hash is made outside the transaction, which holds every other writer up."""

from collections.abc import Mapping
from typing import Any

from nacre.core import db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, NotFound, Unauthorized
from nacre.identity import tables, tokens
from nacre.identity.service import directory
from nacre.identity.service.directory import USERS, Record, Wanted


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound (domain, default project)."""
    home = wanted.get("domain_id") or caller.domain_id or caller.project_domain_id or directory.DEFAULT_DOMAIN
    caller.require(USERS.target({**wanted, "domain_id": home}))
    said = _hashed(wanted)
    with caller.write() as tx:
        _default_project(tx, said)
        said["domain_id"] = directory.domain_of(tx, caller, wanted)
        return directory.insert(tx, USERS, {"enabled": True, **said, **_options(said, {})})


def _hashed(wanted: Wanted) -> dict[str, Any]:
    """As wanted, with the hash in the password's place."""
    said = dict(wanted)
    if "password" in said:
        password = said.pop("password")
        said["password_hash"] = tokens.hash_password(password) if password is not None else None
    return said


def _options(said: Wanted, before: Record) -> dict[str, Any]:
    """Those that are said, beside those there are; None takes one back. Raises BadRequest."""
    if "options" not in said:
        return {}
    rules = said["options"].get("multi_factor_auth_rules") or []
    if any(len(set(rule)) < len(rule) for rule in rules) or len({tuple(rule) for rule in rules}) < len(rules):
        raise BadRequest("Invalid input for field/attribute multi_factor_auth_rules. No method is there twice, and no rule.", kind="ValidationError")
    whole = {**(before.get("options") or {}), **said["options"]}
    return {"options": {name: value for name, value in whole.items() if value is not None}}


def _default_project(tx: db.Tx, said: Mapping[str, Any]) -> None:
    project_id = said.get("default_project_id")
    if tables.by_id(tx, tables.domains, project_id) is not None:
        raise BadRequest("Invalid input for field/attribute default_project_id. A domain is no project.", kind="ValidationError")


def update(caller: Caller, user_id: str, wanted: Wanted) -> Record:
    """Tokens from before a change of the password or from a user that is disabled count no more. Raises Conflict, BadRequest."""
    with caller.read() as conn:
        directory.load(conn, caller, USERS, user_id)
    said = _hashed(wanted)
    with caller.write() as tx:
        before = directory.load(tx, caller, USERS, user_id)
        _default_project(tx, said)
        if "password_hash" in said:
            said["password_changed_at"] = tx.now
        return directory.update(tx, USERS, before, {**said, **_options(said, before)})


def change_password(caller: Caller, user_id: str, original: str, password: str) -> None:
    """By whoever knows the original one. Raises Unauthorized, BadRequest."""
    with caller.cloud.db.read() as conn:
        user = tables.by_id(conn, tables.users, user_id)
    if not tokens.check_password(user.password_hash if user is not None else None, original) or user is None or not user.enabled:
        raise Unauthorized
    if original == password:
        raise BadRequest("The new password is the same as the original one.", kind="PasswordValidationError")
    made = tokens.hash_password(password)
    with caller.write() as tx:
        if not tx.update(tables.users, {"id": user_id, "password_hash": user.password_hash}, password_hash=made, password_changed_at=tx.now):
            raise Unauthorized  # it was changed meanwhile: the original one is not that any more
        journal.changed(tx, "user", user_id, "update", ["password"])
        tables.bump_epoch(tx)


def delete(caller: Caller, user_id: str) -> None:
    """With everything that was the user's."""
    with caller.write() as tx:
        directory.load(tx, caller, USERS, user_id)
        remove(tx, user_id)


def remove(tx: db.Tx, user_id: str) -> None:
    for table in (tables.assignments, tables.credentials, tables.app_credentials, tables.access_rules):
        tx.delete(table, user_id=user_id)
    for side in ("trustor_user_id", "trustee_user_id"):
        tx.delete(tables.trusts, **{side: user_id})
    directory.delete(tx, USERS, user_id)


def existing(conn: db.Conn, user_id: str) -> db.Row:
    """Raises NotFound."""
    row = tables.by_id(conn, tables.users, user_id)
    if row is None:
        raise NotFound(f"Could not find user: {user_id}.")
    return row
