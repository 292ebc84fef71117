"""What is asked of passwords and of who logs in with one, and what is written of it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from conftest import Running, started
from identity.directory_client import V3, login, make, message
from nacre.core import clock, journal
from nacre.core.caller import System
from nacre.core.config import Config, Identity, Nacre, SecurityCompliance, load
from nacre.identity import tables


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


@contextmanager
def ruled(running: Running, **said: Any) -> Iterator[None]:
    """The same cloud under other rules of `[security_compliance]`."""
    before, running.cloud.config = running.cloud.config, Config(security_compliance=SecurityCompliance(**said))
    try:
        yield
    finally:
        running.cloud.config = before


def person(admin: httpx.Client, name: str, password: str = "first", **said: Any) -> dict[str, Any]:
    return make(admin, "users", "user", name=name, password=password, **said)


def change(running: Running, user: dict[str, Any], old: str, new: str) -> httpx.Response:
    said = {"user": {"original_password": old, "password": new}}
    return httpx.post(f"{running.url}{V3}/users/{user['id']}/password", json=said, timeout=30)


def option(admin: httpx.Client, user: dict[str, Any], **options: Any) -> None:
    assert admin.patch(f"{V3}/users/{user['id']}", json={"user": {"options": options}}).status_code == 200


def passed(running: Running, user: dict[str, Any], column: str, **span: float) -> None:
    """As if so much time had passed since then."""
    with running.cloud.db.write(System("req-clock")) as tx:
        tx.update(tables.users, {"id": user["id"]}, **{column: clock.utcnow() - timedelta(**span)})


def test_a_password_expires(admin: httpx.Client, running: Running) -> None:
    with ruled(running, password_expires_days=30):
        user, always = person(admin, "exp"), person(admin, "exp-not", options={"ignore_password_expiry": True})
        assert user["password_expires_at"] > (clock.utcnow() + timedelta(days=29)).isoformat()
        token = login(running, user, "first").json()["token"]
        assert token["user"]["password_expires_at"] == user["password_expires_at"]
        later = admin.get(f"{V3}/users", params={"password_expires_at": "gt:2020-01-01T00:00:00Z"}).json()["users"]
        assert [one["name"] for one in later] == ["exp", "exp-not"]
        assert admin.get(f"{V3}/users", params={"password_expires_at": "lt:2020-01-01T00:00:00Z"}).json()["users"] == []
        assert admin.get(f"{V3}/users", params={"password_expires_at": "soon"}).status_code == 400
        for one in (user, always):
            passed(running, one, "password_expires_at", seconds=1)
        refused = login(running, user, "first")
        assert refused.status_code == 401 and user["id"] in message(refused) and "expired" in message(refused)
        assert "expired" not in message(login(running, user, "guess")), "only who knows the password hears of it"
        assert login(running, always, "first").status_code == 201
        assert change(running, user, "first", "second").status_code == 204
        assert login(running, user, "second").status_code == 201


def test_a_password_is_changed_upon_first_use(admin: httpx.Client, running: Running) -> None:
    with ruled(running, change_password_upon_first_use=True):
        user = person(admin, "fresh")
        free = person(admin, "free", options={"ignore_change_password_upon_first_use": True})
        assert (login(running, user, "first").status_code, login(running, free, "first").status_code) == (401, 201)
        assert change(running, user, "first", "mine").status_code == 204 and login(running, user, "mine").status_code == 201
        admin.patch(f"{V3}/users/{user['id']}", json={"user": {"password": "reset"}})
        assert login(running, user, "reset").status_code == 401


def test_a_password_is_not_taken_again(admin: httpx.Client, running: Running) -> None:
    with ruled(running, unique_last_password_count=3):
        user = person(admin, "hist", "p0")
        assert [change(running, user, old, new).status_code for old, new in (("p0", "p1"), ("p1", "p2"))] == [204, 204]
        for again in ("p0", "p1", "p2"):
            refused = change(running, user, "p2", again)
            assert refused.status_code == 400 and "3" in message(refused)
        assert change(running, user, "p2", "p3").status_code == 204
        assert change(running, user, "p3", "p0").status_code == 204, "three are remembered, with the present one"
        assert admin.patch(f"{V3}/users/{user['id']}", json={"user": {"password": "p3"}}).status_code == 200, "an administrator may"


def test_a_password_has_an_age(admin: httpx.Client, running: Running) -> None:
    with ruled(running, minimum_password_age=2):
        user = person(admin, "age")
        assert change(running, user, "first", "second").status_code == 204, "the one that an administrator gave counts not"
        refused = change(running, user, "second", "third")
        assert refused.status_code == 400 and "2 day(s)" in message(refused)
        passed(running, user, "password_changed_at", days=2)
        assert change(running, user, "second", "third").status_code == 204


def test_a_password_is_as_the_operator_wants(admin: httpx.Client, running: Running) -> None:
    with ruled(running, password_regex=r"^(?=.*\d).{4,}$", password_regex_description="four characters, one a digit"):
        refused = admin.post(f"{V3}/users", json={"user": {"name": "weak", "password": "abcd"}})
        assert refused.status_code == 400 and "four characters, one a digit" in message(refused) and "abcd" not in refused.text
        user = person(admin, "strong", "abc1")
        assert admin.patch(f"{V3}/users/{user['id']}", json={"user": {"password": "x"}}).status_code == 400
        assert change(running, user, "abc1", "abcd").status_code == 400
        assert change(running, user, "abc1", "abc2").status_code == 204


def test_who_chooses_a_password_is_told_its_form(running: Running) -> None:
    at, rules = f"{V3}/domains/default/config/security_compliance", {"password_regex": ".{4,}", "password_regex_description": "four characters"}
    with ruled(running, **rules), running.http("demo") as demo:
        assert demo.get(at).json()["config"] == {"security_compliance": rules}
        assert demo.get(f"{at}/password_regex").json()["config"] == {"password_regex": ".{4,}"}
        for wrong in (f"{at}/lockout_failure_attempts", at.replace("default", "other")):
            assert demo.get(wrong).status_code == 403


def test_a_locked_password_is_an_administrators(admin: httpx.Client, running: Running) -> None:
    user = person(admin, "kept", options={"lock_password": True})
    refused = change(running, user, "first", "second")
    assert refused.status_code == 400 and "disallowing" in message(refused)
    option(admin, user, lock_password=False)
    assert change(running, user, "first", "second").status_code == 204
    for wrong in ({"lock_password": "yes"}, {"unheard_of": True}):
        assert admin.patch(f"{V3}/users/{user['id']}", json={"user": {"options": wrong}}).status_code == 400


def test_who_guesses_is_locked_out(admin: httpx.Client, running: Running) -> None:
    with ruled(running, lockout_failure_attempts=3, lockout_duration=60):
        user, open_one = person(admin, "lock"), person(admin, "lock-not", options={"ignore_lockout_failure_attempts": True})
        for one in (user, open_one):
            assert {login(running, one, "guess").status_code for _ in range(3)} == {401}
        refused = login(running, user, "first")
        assert refused.status_code == 401 and "locked" not in message(refused), "nobody learns by guessing that there is such a user"
        assert login(running, open_one, "first").status_code == 201
        passed(running, user, "login_failed_at", seconds=61)
        assert login(running, user, "guess").status_code == 401
        assert login(running, user, "first").status_code == 201, "one failure after a lockout is the first"
        assert {change(running, user, "guess", "x").status_code for _ in range(3)} == {401}
        assert change(running, user, "first", "second").status_code == 401
        admin.patch(f"{V3}/users/{user['id']}", json={"user": {"password": "reset"}})
        assert login(running, user, "reset").status_code == 201


def test_who_is_away_for_long_is_disabled(admin: httpx.Client, running: Running) -> None:
    with ruled(running, disable_user_account_days_inactive=10):
        user, never = person(admin, "away"), person(admin, "away-never", options={"ignore_user_inactivity": True})
        assert login(running, user, "first").status_code == 201
        for one in (user, never):
            passed(running, one, "login_at", days=11)
        assert (login(running, user, "first").status_code, login(running, never, "first").status_code) == (401, 201)
        at = f"{V3}/users/{user['id']}"
        assert admin.get(at).json()["user"]["enabled"] is False
        assert admin.patch(at, json={"user": {"enabled": True}}).json()["user"]["enabled"] is True
        assert login(running, user, "first").status_code == 201


@pytest.mark.parametrize("algorithm", ["bcrypt", "scrypt", "argon2id"])
def test_hashes(admin: httpx.Client, running: Running, algorithm: Any) -> None:
    """Those of before stay good when the option changes; what a scheme does not look at counts all the same."""
    before = running.cloud.config
    running.cloud.config = Config(identity=Identity(password_hash_algorithm=algorithm, password_hash_rounds=4))
    long = "é" * 60
    try:
        users = [person(admin, f"{algorithm}-{n}", password) for n, password in enumerate(("short", long, "nul\0inside"))]
    finally:
        running.cloud.config = before
    prefix = {"bcrypt": "$2b$04$", "scrypt": "$scrypt$ln=4,", "argon2id": "$argon2id$"}[algorithm]
    with running.cloud.db.read() as conn:
        stored = conn.execute(sa.select(tables.users.c.password_hash).where(tables.users.c.id.in_([one["id"] for one in users]))).scalars().all()
    assert all(one.startswith(prefix) for one in stored)
    for user, right, wrong in zip(users, ("short", long, "nul\0inside"), ("shor", long[:-1], "nul\0outside"), strict=True):
        assert (login(running, user, wrong).status_code, login(running, user, right).status_code) == (401, 201)


def lines(running: Running, user_id: str) -> list[Any]:
    with running.cloud.db.read() as conn:
        query = sa.select(journal.lines).where(journal.lines.c.kind == "authentication", journal.lines.c.resource_id == user_id)
        return list(conn.execute(query.order_by(journal.lines.c.id)))


def test_every_login_is_in_the_journal_and_no_secret(admin: httpx.Client, running: Running) -> None:
    user = person(admin, "audited", "very-secret")
    token = login(running, user, "very-secret").headers["x-subject-token"]
    login(running, user, "wrong-secret")
    again = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}}}
    assert httpx.post(f"{running.url}{V3}/auth/tokens", json=again).status_code == 201
    login(running, user, "very-secret", {"project": {"id": "nowhere"}})
    admin.patch(f"{V3}/users/{user['id']}", json={"user": {"enabled": False}})
    login(running, user, "very-secret")
    assert httpx.post(f"{running.url}{V3}/auth/tokens", json=again).status_code == 404
    assert lines(running, "unknown")[-1].values["reason"] == "TokenNotFound"
    told = [(line.action, line.values.get("reason"), tuple(line.values["methods"])) for line in lines(running, user["id"])]
    assert told == [("authenticate", None, ("password",)), ("refuse", "password", ("password",)), ("authenticate", None, ("token",)),
                    ("refuse", "scope", ("password",)), ("refuse", "disabled", ("password",))]  # fmt: skip
    assert {line.values["address"] for line in lines(running, user["id"])} == {"127.0.0.1"}
    login(running, {"id": "typed-secret"}, "x")
    assert lines(running, "unknown")[-1].values["reason"] == "user"
    with running.cloud.db.read() as conn:
        everything = str(conn.execute(sa.select(journal.lines)).all()) + str(conn.execute(sa.select(tables.failed_logins)).all())
    assert not any(word in everything for word in ("very-secret", "wrong-secret", "typed-secret", token, "$2b$"))


def test_who_fails_too_often_waits(tmp_path: Path, fresh_database: Callable[[], str]) -> None:
    with started(tmp_path / "cloud", Config(nacre=Nacre(failed_logins_per_minute=4)), fresh_database()) as running, running.http() as admin:
        user, other = person(admin, "victim"), person(admin, "other")
        assert [login(running, user, f"guess-{number}").status_code for number in range(5)] == [401] * 4 + [429]
        refused = login(running, user, "first")
        assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["title"] == "Too Many Requests"
        by_name = {"methods": ["password"], "password": {"user": {"name": "victim", "domain": {"id": "default"}, "password": "first"}}}
        assert httpx.post(f"{running.url}{V3}/auth/tokens", json={"auth": {"identity": by_name}}).status_code == 429
        assert change(running, user, "first", "second").status_code == 429
        assert login(running, other, "first").status_code == 201, "others do not wait"
        nobody = [login(running, {"id": "nobody"}, f"guess-{number}").status_code for number in range(5)]
        assert nobody == [401] * 4 + [429], "nor does it tell whether there is such a user"
        with running.cloud.db.write(System("req-clock")) as tx:
            tx.execute(tables.failed_logins.update().values(since=clock.utcnow() - timedelta(minutes=1)))
        assert login(running, user, "first").status_code == 201


def test_rules_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    from nacre.core.config import ConfigError

    file = tmp_path / "nacre.toml"
    for text, word in (("password_regex = '('", "password_regex"), ("minimum_password_age = 3\npassword_expires_days = 2", "minimum_password_age"),
                       ("lockout_failure_attempts = 0", "lockout_failure_attempts"), ("lockout = 3", "lockout")):  # fmt: skip
        file.write_text(f"[security_compliance]\n{text}\n")
        with pytest.raises(ConfigError, match=word):
            load(file)
    file.write_text("[identity]\npassword_hash_algorithm = 'md5'\n")
    with pytest.raises(ConfigError, match="password_hash_algorithm"):
        load(file)


def test_a_login_is_quick(running: Running, admin: httpx.Client) -> None:
    """With the usual hash: no more than its own time, which this prints."""
    user = person(admin, "quick")
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert login(running, user, "first").status_code == 201
        took.append(time.monotonic() - began)
    print(json.dumps({"login_ms": sorted(round(each * 1000) for each in took)}))
    assert min(took) < 1


def test_a_password_that_is_remembered_counts_no_more_than_one_that_is_hashed(admin: httpx.Client, running: Running) -> None:
    user = person(admin, "remi")
    for _ in range(2):
        assert login(running, user, "first").status_code == 201
        assert login(running, user, "firsT").status_code == 401
    assert admin.patch(f"{V3}/users/{user['id']}", json={"user": {"password": "second"}}).status_code == 200
    assert login(running, user, "first").status_code == 401 and login(running, user, "second").status_code == 201
    assert admin.patch(f"{V3}/users/{user['id']}", json={"user": {"enabled": False}}).status_code == 200
    assert login(running, user, "second").status_code == 401
