"""What `[security_compliance]` asks of passwords: of new ones, and of who logs in with one.

A hash is made and compared outside of transactions, which hold every other writer up. Who is refused is told no more than that, but for a
password that is over, which only who knows it hears of; the reason goes to the journal (`service.logins`).
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nacre.core import clock, db
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.config import SecurityCompliance
from nacre.core.errors import BadRequest, Forbidden, Unauthorized
from nacre.identity import hashing, tables
from nacre.identity.service.directory import DEFAULT_DOMAIN

User = Mapping[str, Any] | sa.RowMapping


class Refused(Unauthorized):
    """`reason` is for the journal: user, password, locked, disabled, expired."""

    def __init__(self, reason: str, user_id: str | None = None, message: str = "The request you have made requires authentication.") -> None:
        super().__init__(message)
        self.reason, self.user_id = reason, user_id


def prove(cloud: Cloud, user: db.Row | None, password: str, *, over: bool = False) -> db.Row:
    """The user, who knows the password; `over`: also one that has expired. Raises Refused."""
    if user is not None and locked(cloud.config.security_compliance, user):
        raise Refused("locked", user.id)
    if not hashing.matches(cloud.config.identity, user.password_hash if user is not None else None, password) or user is None:
        raise Refused("user" if user is None else "password", user.id if user is not None else None)
    if not user.enabled or idle(cloud.config.security_compliance, user._mapping):
        raise Refused("disabled", user.id)
    if not over and expired(user):
        raise Refused("expired", user.id, f"The password is expired and needs to be changed for user: {user.id}.")
    return user


def option(user: User, name: str) -> bool:
    return bool((user["options"] or {}).get(name))


def locked(rules: SecurityCompliance, user: db.Row) -> bool:
    most = rules.lockout_failure_attempts
    if most is None or option(user._mapping, "ignore_lockout_failure_attempts") or user.login_failures < most:
        return False
    return bool(user.login_failed_at + timedelta(seconds=rules.lockout_duration) > clock.utcnow())


def idle(rules: SecurityCompliance, user: User) -> bool:
    """Whether the user has not logged in for so long that this counts as disabled."""
    days = rules.disable_user_account_days_inactive
    if days is None or user["login_at"] is None or option(user, "ignore_user_inactivity"):
        return False
    return bool(user["login_at"] + timedelta(days=days) < clock.utcnow())


def expired(user: db.Row) -> bool:
    if user.password_expires_at is None or option(user._mapping, "ignore_password_expiry"):
        return False
    return bool(user.password_expires_at <= clock.utcnow())


def acceptable(cloud: Cloud, password: str) -> None:
    """Raises BadRequest for one that is not as the operator wants it."""
    rules = cloud.config.security_compliance
    if len(password) > cloud.config.identity.max_password_length:
        raise BadRequest(f"The password length must be less than or equal to {cloud.config.identity.max_password_length}.",
                         kind="PasswordVerificationError")  # fmt: skip
    if rules.password_regex is not None and re.match(rules.password_regex, password) is None:
        wanted = rules.password_regex_description or f"the regular expression {rules.password_regex}"
        raise BadRequest(f"The password does not match the requirements: {wanted}.", kind="PasswordRequirementsValidationError")


def made(cloud: Cloud, password: str | None, options: Mapping[str, Any], *, own: bool) -> dict[str, Any]:
    """Columns of a user with a new password: the user's own choice, or given by an administrator and perhaps to be changed at once."""
    if password is None:
        return {"password_hash": None, "password_expires_at": None, "password_own": False}
    now, rules = clock.utcnow(), cloud.config.security_compliance
    ends: datetime | None = now + timedelta(days=rules.password_expires_days) if rules.password_expires_days is not None else None
    if not own and rules.change_password_upon_first_use and not options.get("ignore_change_password_upon_first_use"):
        ends = now
    return {"password_hash": hashing.hashed(cloud.config.identity, password), "password_expires_at": ends, "password_own": own}


def may_change(cloud: Cloud, user: db.Row, past: list[str], password: str) -> None:
    """Whether the user may take this password now. Raises BadRequest."""
    rules = cloud.config.security_compliance
    if option(user._mapping, "lock_password"):
        raise BadRequest("You cannot change your password at this time due to password policy disallowing password changes. Please contact your "
                         "administrator to reset your password.", kind="PasswordSelfServiceDisabled")  # fmt: skip
    acceptable(cloud, password)
    if rules.minimum_password_age and user.password_own and user.password_changed_at is not None:
        left = user.password_changed_at + timedelta(days=rules.minimum_password_age) - clock.utcnow()
        if left > timedelta(0):
            raise BadRequest("You cannot change your password at this time due to the minimum password age. Once you change your password, it must "
                             f"be used for {rules.minimum_password_age} day(s) before it can be changed. Please try again in {left.days} day(s) or "
                             "contact your administrator to reset your password.", kind="PasswordAgeValidationError")  # fmt: skip
    if any(hashing.matches(cloud.config.identity, each, password) for each in past):
        raise BadRequest("The new password cannot be identical to a previous password. The total number which includes the new password must be "
                         f"unique is {rules.unique_last_password_count}.", kind="PasswordHistoryValidationError")  # fmt: skip


def past(conn: db.Conn, cloud: Cloud, user: db.Row) -> list[str]:
    """The hashes that a new password may not match."""
    count = cloud.config.security_compliance.unique_last_password_count
    query = sa.select(tables.past_passwords.c.password_hash).where(tables.past_passwords.c.user_id == user.id)
    older = conn.execute(query.order_by(tables.past_passwords.c.until.desc()).limit(max(count - 1, 0))) if count > 1 else ()
    return [user.password_hash, *(row.password_hash for row in older)] if count else []


def keep(tx: db.Tx, cloud: Cloud, user_id: str, password_hash: str | None) -> None:
    """The password that was the user's until now, if that is to be remembered."""
    count, table = cloud.config.security_compliance.unique_last_password_count, tables.past_passwords
    if count > 1 and password_hash is not None:
        tx.insert(table, user_id=user_id, until=tx.now, password_hash=password_hash)
        kept = sa.select(table.c.until).where(table.c.user_id == user_id).order_by(table.c.until.desc()).limit(count - 1)
        tx.execute(table.delete().where(table.c.user_id == user_id, table.c.until.not_in(kept)))


_TOLD = ("password_regex", "password_regex_description")


def told(caller: Caller, domain_id: str, name: str = "") -> dict[str, Any]:
    """What is asked of passwords' form, for whoever has to choose one: all of it, or one option. Raises Forbidden, as upstream for other domains."""
    caller.require({"target.domain.id": domain_id})
    if domain_id != DEFAULT_DOMAIN:
        raise Forbidden("Reading security compliance information for any domain other than the default domain is not allowed or supported.",
                        kind="InvalidDomainConfig")  # fmt: skip
    rules = {each: getattr(caller.cloud.config.security_compliance, each) for each in _TOLD}
    if name and name not in rules:
        raise Forbidden(f"Reading security compliance values other than {' and '.join(_TOLD)} is not allowed.", kind="InvalidDomainConfig")
    return {name: rules[name]} if name else {"security_compliance": rules}
