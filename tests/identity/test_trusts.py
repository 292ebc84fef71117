"""Trusts that are passed on: how far, with what, until when, and what ends them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from conftest import Running
from identity.people import V3, Person, openstack, person, role_id, token, with_token
from nacre.core import clock
from nacre.core.caller import System
from nacre.identity import tables

TRUSTS = f"{V3}/OS-TRUST/trusts"


@dataclass
class Line:
    """The first trustor, and those that it may be passed on to."""

    lord: Person
    page: Person
    groom: Person
    cook: Person

    def trust(self, by: httpx.Client, trustor: Person, trustee: Person, **said: Any) -> httpx.Response:
        whole = {"trustor_user_id": trustor.id, "trustee_user_id": trustee.id, "project_id": self.lord.project_id, "impersonation": True,
                 "roles": [{"name": "reader"}], **said}  # fmt: skip
        return by.post(TRUSTS, json={"trust": whole})

    def given(self, by: httpx.Client, trustee: Person, **said: Any) -> dict[str, Any]:
        answer = self.trust(by, self.lord, trustee, **said)
        assert answer.status_code == 201, answer.text
        return answer.json()["trust"]


def scope(trust: dict[str, Any]) -> dict[str, Any]:
    return {"OS-TRUST:trust": {"id": trust["id"]}}


@pytest.fixture(scope="module")
def line(running: Running) -> Line:
    return Line(person(running, "lord", "member"), person(running, "page"), person(running, "groom"), person(running, "cook"))


@pytest.fixture(scope="module")
def mine(line: Line) -> Iterator[httpx.Client]:
    with line.lord.http() as opened:
        yield opened


def test_a_trust_is_passed_on_as_often_as_it_says(line: Line, mine: httpx.Client) -> None:
    first = line.given(mine, line.page, allow_redelegation=True, redelegation_count=2, roles=[{"name": "member"}])
    assert (first["redelegation_count"], first["redelegated_trust_id"], first["deleted_at"]) == (2, None, None)
    with line.page.http(scope(first)) as page:
        second = line.given(page, line.groom, allow_redelegation=True)
        assert (second["redelegation_count"], second["redelegated_trust_id"]) == (1, first["id"])
        assert [role["name"] for role in second["roles"]] == ["reader"]
    with line.groom.http(scope(second)) as groom:
        third = line.given(groom, line.cook, allow_redelegation=True)
        assert (third["redelegation_count"], third["redelegated_trust_id"]) == (0, second["id"])
    answer = line.cook.login(scope(third))
    assert (answer.json()["token"]["user"]["id"], [role["name"] for role in answer.json()["token"]["roles"]]) == (line.lord.id, ["reader"])
    with with_token(line.lord.running, token(answer)) as cook:
        assert line.trust(cook, line.lord, line.page).status_code == 403, "no step is left"
        assert cook.get(f"{V3}/auth/catalog").status_code == 200
        assert mine.delete(f"{TRUSTS}/{first['id']}").status_code == 204
        assert cook.get(f"{V3}/auth/catalog").status_code == 401, "what it was passed on by is gone"
    for trust in (first, second, third):
        assert mine.get(f"{TRUSTS}/{trust['id']}").status_code == 404
    assert line.cook.login(scope(third)).status_code == 401


def test_what_is_passed_on_is_never_more(line: Line, mine: httpx.Client) -> None:
    ends = clock.utcnow() + timedelta(hours=1)
    first = line.given(mine, line.page, allow_redelegation=True, expires_at=ends.isoformat() + "Z", roles=[{"name": "reader"}])
    assert first["redelegation_count"] == 3
    with line.page.http(scope(first)) as page:
        for said, status in (({"roles": [{"name": "member"}]}, 403), ({"remaining_uses": 2}, 403),
                             ({"allow_redelegation": True, "redelegation_count": 3}, 403),
                             ({"expires_at": (ends + timedelta(seconds=1)).isoformat()}, 403),
                             ({"roles": [{"name": "admin"}]}, 404), ({"project_id": None}, 403),
                             ({"project_id": line.page.project_id}, 404), ({"roles": []}, 403)):  # fmt: skip
            answer = line.trust(page, line.lord, line.groom, **said)
            assert answer.status_code == status, f"{said}: {answer.text}"
        assert line.trust(page, line.page, line.groom).status_code == 403, "the trustor is who the token is for"
        same = line.given(page, line.groom, redelegated_trust_id="other")
        assert (same["expires_at"], same["redelegated_trust_id"]) == (first["expires_at"], first["id"])
        assert same["redelegation_count"] == 0
        assert line.given(page, line.groom, allow_redelegation=True, redelegation_count=2)["redelegation_count"] == 2


def test_what_the_first_may_say(line: Line, mine: httpx.Client) -> None:
    for said, status in (({"allow_redelegation": True, "redelegation_count": 4}, 403), ({"allow_redelegation": True, "remaining_uses": 1}, 400),
                         ({"redelegation_count": -1}, 400), ({"remaining_uses": 0}, 400), ({"remaining_uses": "a"}, 400),
                         ({"trustee_user_id": "none"}, 404), ({"project_id": "none"}, 404), ({"roles": [{"id": "none"}]}, 404),
                         ({"roles": [{"name": "reader", "more": "x"}]}, 400), ({"expires_at": "2001-01-01T00:00:00Z"}, 400),
                         ({"trustor_user_id": line.page.id}, 403), ({"impersonation": None}, 400)):  # fmt: skip
        answer = line.trust(mine, line.lord, line.page, **said)
        assert answer.status_code == status, f"{said}: {answer.text}"
    assert line.given(mine, line.page, redelegation_count=2)["redelegation_count"] == 0
    assert line.given(mine, line.page, allow_redelegation=True, redelegation_count=0)["redelegation_count"] == 0


def test_who_logs_in_with_a_trust_forgets_own_failures_alone(line: Line, mine: httpx.Client, running: Running) -> None:
    given = line.given(mine, line.page)
    with running.cloud.db.write(System("req-failures")) as tx:
        for one in (line.lord, line.page):
            tx.update(tables.users, {"id": one.id}, login_failures=2, login_failed_at=tx.now)
    assert line.page.login(scope(given)).status_code == 201
    with running.cloud.db.read() as conn:
        assert [tables.by_id(conn, tables.users, one.id).login_failures for one in (line.lord, line.page)] == [2, 0]


def test_without_impersonation_nobody_downstream_impersonates(line: Line, mine: httpx.Client) -> None:
    with line.lord.running.http() as admin:
        member = role_id(line.lord.running, "member")
        admin.put(f"{V3}/projects/{line.lord.project_id}/users/{line.page.id}/roles/{member}")
        first = line.given(mine, line.page, allow_redelegation=True, impersonation=False)
        with line.page.http(scope(first)) as page:
            assert line.trust(page, line.page, line.groom).status_code == 403
            second = line.trust(page, line.page, line.groom, impersonation=False).json()["trust"]
        assert line.groom.login(scope(second)).json()["token"]["user"]["id"] == line.groom.id
        admin.delete(f"{V3}/projects/{line.lord.project_id}/users/{line.page.id}/roles/{member}")
        assert line.groom.login(scope(second)).status_code == 403


def test_who_stands_between_must_be_there(line: Line, mine: httpx.Client) -> None:
    running = line.lord.running
    between = person(running, "between")
    first = line.given(mine, between, allow_redelegation=True)
    with between.http(scope(first)) as agent:
        second = line.given(agent, line.cook)
    with line.cook.http(scope(second)) as cook, running.http() as admin:
        admin.patch(f"{V3}/users/{between.id}", json={"user": {"enabled": False}})
        assert cook.get(f"{V3}/auth/catalog").status_code == 401
        assert line.cook.login(scope(second)).status_code == 403
        admin.patch(f"{V3}/users/{between.id}", json={"user": {"enabled": True}})
        assert cook.get(f"{V3}/auth/catalog").status_code == 200
        admin.delete(f"{V3}/users/{between.id}")
        assert line.cook.login(scope(second)).status_code == 401
        assert mine.get(f"{TRUSTS}/{second['id']}").status_code == 404


def test_uses_and_ends(line: Line, mine: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = line.given(mine, line.page, remaining_uses=2)
    assert [line.page.login(scope(twice)).status_code for _ in range(3)] == [201, 201, 401]
    ends = clock.utcnow() + timedelta(minutes=1)
    short = line.given(mine, line.page, expires_at=ends.isoformat() + "Z")
    assert short["expires_at"] == ends.isoformat(timespec="microseconds") + "Z"
    answer = line.page.login(scope(short))
    assert answer.json()["token"]["expires_at"] == short["expires_at"]
    seen = {trust["id"] for trust in mine.get(TRUSTS, params={"trustor_user_id": line.lord.id}).json()["trusts"]}
    assert {twice["id"], short["id"]} <= seen
    monkeypatch.setattr(clock, "utcnow", lambda: ends)
    assert line.page.login(scope(short)).status_code == 401


def test_listing_is_for_either_side(line: Line, mine: httpx.Client) -> None:
    trust = line.given(mine, line.cook)
    with line.cook.http("unscoped") as cook:
        told = cook.get(TRUSTS, params={"trustee_user_id": line.cook.id}).json()["trusts"]
        assert trust["id"] in {one["id"] for one in told} and "roles" not in told[0]
        assert cook.get(f"{TRUSTS}/{trust['id']}").status_code == cook.head(f"{TRUSTS}/{trust['id']}").status_code == 200
        assert cook.get(TRUSTS, params={"trustor_user_id": line.lord.id}).status_code == cook.get(TRUSTS).status_code == 403
        assert cook.delete(f"{TRUSTS}/{trust['id']}").status_code == 403
    with line.groom.running.http() as admin:
        assert trust["id"] in {one["id"] for one in admin.get(TRUSTS).json()["trusts"]}
    assert mine.patch(f"{TRUSTS}/{trust['id']}", json={"trust": {}}).status_code == 405


@pytest.mark.commands
def test_the_command_line(line: Line) -> None:
    lord = line.lord
    with lord.running.http() as admin:  # the client looks names up, which only administrators may
        ids = (lord.project_id, role_id(lord.running, "reader"), lord.id, line.page.id)
        assert admin.get(f"{V3}/users/{lord.id}").status_code == 200
    project, reader, trustor, trustee = ids
    made = json.loads(lord.openstack("trust", "create", "--project", project, "--role", reader, "--impersonate", trustor, trustee, "-f", "json"))
    env = {"OS_USERNAME": "page", "OS_PASSWORD": "pw", "OS_USER_DOMAIN_ID": "default", "OS_TRUST_ID": made["id"]}
    assert openstack(lord.running, "token", "issue", **env).returncode == 0
    shown = json.loads(lord.openstack("trust", "show", made["id"], "-f", "json"))
    assert shown["trustee_user_id"] == trustee
    lord.openstack("trust", "delete", made["id"])
    assert lord.tried("trust", "show", made["id"]).returncode == 1
