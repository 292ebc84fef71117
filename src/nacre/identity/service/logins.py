"""Attempts to log in: each is a line of the journal, and who fails too often is told to wait.

Failures with a wrong password are counted for the user as it was named and the source address together, in a row that all API processes
share; over the limit the answer is 429 before anything is hashed. The row holds a hash: what was typed for a name may have been a password.
Beside that, `[security_compliance] lockout_failure_attempts` counts them in the user's row, whatever the address.
A full disk ends no logins: one that is right goes to the log alone; one that is wrong and cannot be counted is answered with 503.
Lines of logins that succeed share transactions, since there may be many (`db.write_shared`).
Races: attempts that run at the same time look before either has counted, so a few more than the limit may be tried. A failure that is counted
while another attempt succeeds may outlive it.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from nacre.core import clock, db, journal
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.errors import Forbidden, NotFound, TooManyRequests, Unauthorized
from nacre.core.statements import Statement, given
from nacre.identity import tables
from nacre.identity.service import login
from nacre.identity.service.factors import Receipt
from nacre.identity.service.login import Asked, Named
from nacre.identity.service.passwords import Refused


@dataclass(frozen=True)
class Who:
    """Who tries: as it was named (empty where no user is: a token), from where, the id of the user if there is one, and whether there are
    failures to be forgotten."""

    name: str
    address: str
    user_id: str | None
    failed: bool = False

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps((self.user_id or self.name, self.address)).encode()).hexdigest()


WINDOW = timedelta(minutes=1)
_COUNTED = ("user", "password", "passcode", "secret", "locked")
_FAILURES = Statement(sa.select(tables.failed_logins).where(tables.failed_logins.c.key == given("key")))
T = TypeVar("T")
_log = logging.getLogger("nacre.identity")


def issue(cloud: Cloud, request_id: str, asked: Asked, address: str) -> Caller | Receipt:
    """A new token, or a receipt for who has to show more. Raises Unauthorized, BadRequest, Forbidden, TooManyRequests."""
    about: dict[str, Any] = {"address": address, "methods": list(asked.said)}
    with cloud.db.read() as conn:
        found = login.named(cloud, conn, asked)
        who = _named(cloud, conn, asked, found, address)
    caller = attempt(cloud, request_id, who, about, lambda: login.issue(cloud, request_id, asked, found))
    if isinstance(caller, Receipt):
        return caller
    scope = next(((kind, value) for kind, value in (("project", caller.project_id), ("domain", caller.domain_id), ("system", caller.system_scope))
                  if value), ("", ""))  # fmt: skip
    try:
        _succeeded(cloud, request_id, str(caller.user_id), who, {**about, "scope": scope[0], "scope_id": scope[1]})
    except db.Unreachable as error:
        _log.warning("user %s logged in from %s, which cannot be written into the journal: %s", caller.user_id, address, error.reason)
    return caller


def _named(cloud: Cloud, conn: db.Conn, asked: Asked, found: Mapping[str, Named], address: str) -> Who:
    """A user, or an application credential by its id. Raises TooManyRequests."""
    for method, said in asked.said.items():
        if "user" in said:
            named = {part: said["user"].get(part) for part in ("id", "name", "domain")}
            return watched(cloud, conn, json.dumps(named, default=str, sort_keys=True), address, found[method].user)
        if method != "token" and said.get("id"):
            return watched(cloud, conn, str(said["id"]), address, None)
    return Who("", address, None)


def watched(cloud: Cloud, conn: db.Conn, name: str, address: str, user: db.Row | None) -> Who:
    """Raises TooManyRequests for who has failed too often."""
    who = Who(name, address, user.id if user is not None else None)
    row, most = _FAILURES.first(conn, key=who.key), cloud.config.nacre.failed_logins_per_minute
    if most and row is not None and row.failures >= most and (left := row.since + WINDOW - clock.utcnow()) > timedelta(0):
        seconds = math.ceil(left.total_seconds())
        raise TooManyRequests(f"Too many failed attempts to log in: try again in {seconds} s.", retry_after=seconds)
    return replace(who, failed=row is not None or (user is not None and user.login_failures > 0))


def attempt(cloud: Cloud, request_id: str, who: Who, about: dict[str, Any], verb: Callable[[], T]) -> T:
    """`verb()`; a refusal is written down and counted. Raises what the verb raises."""
    try:
        return verb()
    except (Unauthorized, NotFound, Forbidden) as error:
        reason = "scope" if isinstance(error, Unauthorized) else error.name
        refused = error if isinstance(error, Refused) else Refused(reason, who.user_id)
        with cloud.db.write(System(request_id, refused.user_id)) as tx:
            journal.changed(tx, "authentication", refused.user_id or "unknown", "refuse", values={**about, "reason": refused.reason})
            if refused.reason in _COUNTED and who.name:
                _count(tx, who.key)
            if refused.reason == "password" and cloud.config.security_compliance.lockout_failure_attempts is not None:
                _one_more(tx, str(refused.user_id), timedelta(seconds=cloud.config.security_compliance.lockout_duration))
        raise


def _one_more(tx: db.Tx, user_id: str, memory: timedelta) -> None:
    """Failures of a lockout that is over count no more."""
    user = tx.lock(sa.select(tables.users).where(tables.users.c.id == user_id), "change")
    if user is not None:
        recent = user.login_failed_at is not None and user.login_failed_at + memory > tx.now
        tx.update(tables.users, {"id": user_id}, login_failures=user.login_failures + 1 if recent else 1, login_failed_at=tx.now)


def _count(tx: db.Tx, key: str) -> None:
    row = tx.lock(sa.select(tables.failed_logins).where(tables.failed_logins.c.key == key))
    if row is None:
        tx.insert(tables.failed_logins, key=key, since=tx.now, failures=1)
    elif row.since + WINDOW <= tx.now:
        tx.update(tables.failed_logins, {"key": key}, since=tx.now, failures=1)
    else:
        tx.update(tables.failed_logins, {"key": key}, failures=row.failures + 1)


def _succeeded(cloud: Cloud, request_id: str, user_id: str, who: Who, about: dict[str, Any]) -> None:
    """Failures of before are forgotten."""

    def write(tx: db.Tx) -> None:
        journal.changed(tx, "authentication", user_id, "authenticate", values=about)
        if who.failed:
            tx.delete(tables.failed_logins, key=who.key)
        own = who.user_id or user_id  # a trust may have made somebody else of who logged in
        if who.failed and "password" in about["methods"]:
            tx.update(tables.users, {"id": own}, login_failures=0, login_failed_at=None)
        if who.name and cloud.config.security_compliance.disable_user_account_days_inactive is not None:
            user = tables.by_id(tx, tables.users, own)
            if user is not None and (user.login_at is None or user.login_at.date() != tx.now.date()):
                tx.update(tables.users, {"id": own}, login_at=tx.now)

    cloud.db.write_shared(System(request_id, user_id), write)
