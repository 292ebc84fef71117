"""Users and their passwords. A hash is made outside the transaction, which holds every other writer up."""

from collections.abc import Mapping
from typing import Any

from nacre.core import clock, db, journal
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Unauthorized
from nacre.identity import tables
from nacre.identity.service import directory, logins, passwords
from nacre.identity.service.directory import USERS, Record, Wanted


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound (domain, default project)."""
    home = wanted.get("domain_id") or caller.domain_id or caller.project_domain_id or directory.DEFAULT_DOMAIN
    caller.require(USERS.target({**wanted, "domain_id": home}))
    _check_factors(wanted)
    said = _hashed(caller, wanted, wanted.get("options") or {})
    if said.get("enabled", True):
        said |= _seen(caller)
    with caller.write() as tx:
        _default_project(tx, said)
        said["domain_id"] = directory.domain_of(tx, caller, wanted)
        return directory.insert(tx, USERS, {"enabled": True, **said})


def _seen(caller: Caller) -> dict[str, Any]:
    """Inactivity counts from now on, where it counts."""
    counts = caller.cloud.config.security_compliance.disable_user_account_days_inactive is not None
    return {"login_at": clock.utcnow()} if counts else {}


def _hashed(caller: Caller, wanted: Wanted, options: Wanted) -> dict[str, Any]:
    """As wanted, with the hash in the password's place. Raises BadRequest."""
    said = dict(wanted)
    if "password" in said:
        password = said.pop("password")
        if password is not None:
            passwords.acceptable(caller.cloud, password)
        said |= passwords.made(caller.cloud, password, options, own=False)
    return said


def find(caller: Caller, user_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    return _as_is(caller, directory.find(caller, USERS, user_id))


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    return [_as_is(caller, one) for one in directory.listed(caller, USERS, asked)]


def _as_is(caller: Caller, user: Record) -> Record:
    """Who has been away for too long is disabled."""
    return {**user, "enabled": user["enabled"] and not passwords.idle(caller.cloud.config.security_compliance, user)}


def _check_factors(said: Mapping[str, Any]) -> None:
    """Raises BadRequest."""
    rules = (said.get("options") or {}).get("multi_factor_auth_rules") or []
    if any(len(set(rule)) < len(rule) for rule in rules) or len({tuple(rule) for rule in rules}) < len(rules):
        raise BadRequest("Invalid input for field/attribute multi_factor_auth_rules. No method is there twice, and no rule.", kind="ValidationError")


def _default_project(tx: db.Tx, said: Mapping[str, Any]) -> None:
    project_id = said.get("default_project_id")
    if tables.by_id(tx, tables.domains, project_id) is not None:
        raise BadRequest("Invalid input for field/attribute default_project_id. A domain is no project.", kind="ValidationError")


def update(caller: Caller, user_id: str, wanted: Wanted) -> Record:
    """Tokens from before a change of the password, or before the user was disabled, count no more, ever. Raises Conflict, BadRequest."""
    with caller.read() as conn:
        before = directory.load(conn, caller, USERS, user_id)
    _check_factors(wanted)
    said = _hashed(caller, wanted, {**(before["options"] or {}), **(wanted.get("options") or {})})
    if wanted.get("enabled"):
        said |= _seen(caller)
    with caller.write() as tx:
        before = directory.load(tx, caller, USERS, user_id)
        _default_project(tx, said)
        if "password_hash" in said:
            said |= {"password_changed_at": tx.now, "login_since": tx.now, "login_failures": 0}
            passwords.keep(tx, caller.cloud, user_id, before["password_hash"])
        if said.get("enabled") is False:
            said["login_since"] = tx.now
        return _as_is(caller, directory.update(tx, USERS, before, said))


def change_password(caller: Caller, user_id: str, old_and_new: tuple[str, str], address: str) -> None:
    """By whoever knows the old one, which may be over. Raises Unauthorized, BadRequest, TooManyRequests."""
    cloud, (old, new) = caller.cloud, old_and_new
    with cloud.db.read() as conn:
        user = tables.by_id(conn, tables.users, user_id)
        past = passwords.past(conn, cloud, user) if user is not None else []
        who = logins.watched(cloud, conn, user_id, address, user)
    about = {"address": address, "methods": ["password"]}
    known = logins.attempt(cloud, caller.request_id, who, about, lambda: passwords.prove(cloud, user, old, over=True))
    passwords.may_change(cloud, known, past, new)
    if old == new:
        raise BadRequest("The new password is the same as the original one.", kind="PasswordValidationError")
    made = passwords.made(cloud, new, known.options or {}, own=True)
    with caller.write() as tx:
        if not tx.update(tables.users, {"id": user_id, "password_hash": known.password_hash}, **made, password_changed_at=tx.now, login_since=tx.now,
                         login_failures=0):  # fmt: skip
            raise Unauthorized  # it was changed meanwhile: the old one is not that any more
        passwords.keep(tx, cloud, user_id, known.password_hash)
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
