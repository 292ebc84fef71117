"""Passcodes, several factors together, and receipts between them; signed in with upstream's own client library."""

import base64
import hmac
import struct
from datetime import timedelta
from typing import Any

import httpx
import pytest
from keystoneauth1 import exceptions, session
from keystoneauth1.identity import v3

from conftest import Running
from identity.people import V3, Person, person, sign_in, token, with_token
from nacre.core import clock

SEED = b"12345678901234567890"  # of the examples in RFC 6238
SECRET = base64.b32encode(SEED).decode().rstrip("=")


def code(monkeypatch: pytest.MonkeyPatch, at: int = 0, back: int = 0) -> str:
    """The passcode of now, or of `at`, which becomes the clock's time."""
    if at:
        moment = clock.datetime.fromtimestamp(at, clock.UTC).replace(tzinfo=None)
        monkeypatch.setattr(clock, "utcnow", lambda: moment)
    step = int(clock.utcnow().replace(tzinfo=clock.UTC).timestamp()) // 30 - back
    digest = hmac.new(SEED, struct.pack(">Q", step), "sha1").digest()
    at = digest[-1] & 15
    return f"{(int.from_bytes(digest[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06d}"


def with_totp(running: Running, name: str, **options: Any) -> Person:
    who = person(running, name, "member")
    with who.http() as mine:
        assert mine.post(f"{V3}/credentials", json={"credential": {"type": "totp", "blob": SECRET}}).status_code == 201
    return set_options(who, **options)


def set_options(who: Person, **options: Any) -> Person:
    with who.running.http() as admin:
        answer = admin.patch(f"{V3}/users/{who.id}", json={"user": {"options": options}})
        assert answer.status_code == 200, answer.text
    return who


def by_code(who: Person, passcode: str, **headers: str) -> httpx.Response:
    return sign_in(who.running, {"methods": ["totp"], "totp": {"user": {"id": who.id, "passcode": passcode}}}, who.scope, **headers)


def test_passcodes(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = with_totp(running, "ann")
    now = code(monkeypatch, at=2000000000)
    assert by_code(ann, now).json()["token"]["methods"] == ["totp"]
    assert by_code(ann, code(monkeypatch, back=1)).status_code == 201
    assert by_code(ann, code(monkeypatch, back=3)).status_code == 401
    for wrong in ("", "00000a", "é", now + "0"):
        assert by_code(ann, wrong).status_code == 401
    nobody = {"methods": ["totp"], "totp": {"user": {"name": "nobody", "domain": {"id": "default"}, "passcode": now}}}
    assert sign_in(running, nobody).status_code == 401
    for user, word in (({"id": ann.id}, "passcode"), ({"passcode": now}, "name"), ({"passcode": now, "name": "ann"}, "domain")):
        answer = sign_in(running, {"methods": ["totp"], "totp": {"user": user}})
        assert answer.status_code == 400 and word in answer.json()["error"]["message"]


@pytest.mark.parametrize(("at", "passcode"), [(1111111109, "081804"), (1234567890, "005924"), (2000000000, "279037")])
def test_published_examples(running: Running, monkeypatch: pytest.MonkeyPatch, at: int, passcode: str) -> None:
    """The last six digits of those in RFC 6238, appendix B."""
    who = with_totp(running, f"rfc-{at}")
    assert code(monkeypatch, at) == passcode
    assert by_code(who, passcode).status_code == 201


def test_what_is_no_secret_lets_nobody_in(running: Running) -> None:
    who = person(running, "garbled", "member")
    with who.http() as mine:
        for blob in ("not base 32!", "é", "A"):
            mine.post(f"{V3}/credentials", json={"credential": {"type": "totp", "blob": blob}})
    assert by_code(who, "000000").status_code == 401


def test_two_factors_and_a_receipt_between(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    bo = with_totp(running, "bo", multi_factor_auth_rules=[["password", "totp"], ["application_credential", "none"]])
    answer = bo.login()
    assert answer.status_code == 401
    told = answer.json()
    assert told["receipt"]["methods"] == ["password"] and told["required_auth_methods"] == [["password", "totp"]]
    assert told["receipt"]["user"] == {"id": bo.id, "name": "bo", "domain": {"id": "default", "name": "Default"}}
    receipt = answer.headers["openstack-auth-receipt"]
    assert with_token(running, receipt).get(f"{V3}/auth/catalog").status_code == 401, "a receipt is no token"
    assert by_code(bo, "000000", **{"openstack-auth-receipt": receipt}).status_code == 401
    whole = by_code(bo, code(monkeypatch), **{"openstack-auth-receipt": receipt})
    assert set(whole.json()["token"]["methods"]) == {"password", "totp"}
    again = sign_in(running, {"methods": ["token"], "token": {"id": token(whole)}}, bo.scope)
    assert again.status_code == 201, "who had both may go on"
    both = {"methods": ["password", "totp"], "password": {"user": {"id": bo.id, "password": "pw"}},
            "totp": {"user": {"id": bo.id, "passcode": code(monkeypatch)}}}  # fmt: skip
    assert sign_in(running, both, bo.scope).status_code == 201
    with with_token(running, token(again)) as mine:
        made = mine.post(f"{V3}/users/{bo.id}/application_credentials", json={"application_credential": {"name": "robot"}})
    said = {"id": made.json()["application_credential"]["id"], "secret": made.json()["application_credential"]["secret"]}
    robot = {"methods": ["application_credential"], "application_credential": said}
    assert sign_in(running, robot).status_code == 201, "the part of its rule that there is"
    set_options(bo, multi_factor_auth_rules=[["password", "totp"]])
    assert sign_in(running, robot).json()["required_auth_methods"] == []


def test_receipts_are_the_users_own_and_end(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    cy, di = (with_totp(running, name, multi_factor_auth_rules=[["password", "totp"]]) for name in ("cy", "di"))
    receipt = {"openstack-auth-receipt": cy.login().headers["openstack-auth-receipt"]}
    assert by_code(di, code(monkeypatch), **receipt).status_code == 401
    for text in ("nonsense", "gAAAAA", "g" * 2000):
        assert by_code(cy, code(monkeypatch), **{"openstack-auth-receipt": text}).status_code == 401
    with running.http() as admin:
        as_receipt = {"openstack-auth-receipt": admin.headers["x-auth-token"]}
        assert by_code(cy, code(monkeypatch), **as_receipt).status_code == 401, "a token is no receipt"
        assert by_code(cy, code(monkeypatch), **receipt).status_code == 201
        admin.patch(f"{V3}/users/{cy.id}", json={"user": {"password": "new"}})
    assert by_code(cy, code(monkeypatch), **receipt).status_code == 401
    cy.password = "new"
    receipt = {"openstack-auth-receipt": cy.login().headers["openstack-auth-receipt"]}
    later = clock.utcnow() + timedelta(seconds=301)
    monkeypatch.setattr(clock, "utcnow", lambda: later)
    assert by_code(cy, code(monkeypatch), **receipt).status_code == 401


def test_rules_can_be_off_and_lock_nobody_out(running: Running) -> None:
    ed = with_totp(running, "ed", multi_factor_auth_rules=[["password", "totp"]], multi_factor_auth_enabled=False)
    assert ed.login().status_code == 201
    assert set_options(ed, multi_factor_auth_enabled=True).login().status_code == 401
    assert set_options(ed, multi_factor_auth_rules=[["iris"], ["smell", "taste"]]).login().status_code == 201
    assert set_options(ed, multi_factor_auth_rules=None).login().status_code == 201
    with running.http() as admin:
        assert admin.get(f"{V3}/users/{ed.id}").json()["user"]["options"] == {"multi_factor_auth_enabled": True}


@pytest.mark.parametrize("options", [
    {"multi_factor_auth_rules": ["password"]}, {"multi_factor_auth_rules": [[]]}, {"multi_factor_auth_rules": [["totp", "totp"]]},
    {"multi_factor_auth_rules": [["totp"], ["totp"]]}, {"multi_factor_auth_rules": [[7]]}, {"multi_factor_auth_enabled": "yes"}, {"any_other": True},
])  # fmt: skip
def test_options_that_are_none(running: Running, options: dict[str, Any]) -> None:
    with running.http() as admin:
        answer = admin.post(f"{V3}/users", json={"user": {"name": "odd", "options": options}})
        assert answer.status_code == 400 and next(iter(options)) in answer.json()["error"]["message"]


def test_with_the_client_library(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    fay = with_totp(running, "fay", multi_factor_auth_rules=[["password", "totp"]])
    url, where = f"{running.url}{V3}", {"project_id": fay.project_id}
    password = v3.PasswordMethod(user_id=fay.id, password="pw")
    with pytest.raises(exceptions.MissingAuthMethods) as missing:
        session.Session(auth=v3.Auth(url, [password], **where)).get_token()
    assert missing.value.required_auth_methods == [["password", "totp"]]
    second = [v3.TOTPMethod(user_id=fay.id, passcode=code(monkeypatch)), v3.ReceiptMethod(receipt=missing.value.receipt)]
    assert session.Session(auth=v3.Auth(url, second, **where)).get_project_id() == fay.project_id
    both = v3.MultiFactor(url, auth_methods=["v3password", "v3totp"], user_id=fay.id, password="pw", passcode=code(monkeypatch), **where)
    assert session.Session(auth=both).get_user_id() == fay.id
