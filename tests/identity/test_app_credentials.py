"""Application credentials and access rules: what programs may do with them, and when no longer."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import openstack as sdk
import pytest

from conftest import Running
from identity import people
from identity.people import V3, Person, person, sign_in, token, with_token
from nacre.core import clock


@pytest.fixture(scope="module")
def ann(running: Running) -> Person:
    return person(running, "ann", "member")


@pytest.fixture(scope="module")
def mine(ann: Person) -> Iterator[httpx.Client]:
    with ann.http() as opened:
        yield opened


def make(client: httpx.Client, user: Person, name: str, **said: Any) -> dict[str, Any]:
    answer = client.post(f"{V3}/users/{user.id}/application_credentials", json={"application_credential": {"name": name, **said}})
    assert answer.status_code == 201, answer.text
    return answer.json()["application_credential"]


def signed_in(running: Running, made: dict[str, Any]) -> httpx.Response:
    said = {"id": made["id"], "secret": made["secret"]}
    return sign_in(running, {"methods": ["application_credential"], "application_credential": said})


def acting(running: Running, made: dict[str, Any]) -> httpx.Client:
    return with_token(running, token(signed_in(running, made)))


def test_life(running: Running, ann: Person, mine: httpx.Client) -> None:
    made = make(mine, ann, "backup", description="nightly", roles=[{"name": "reader"}])
    at = f"{V3}/users/{ann.id}/application_credentials"
    assert (made["project_id"], made["unrestricted"], made["expires_at"], [role["name"] for role in made["roles"]]) == (
        ann.project_id, False, None, ["reader"])  # fmt: skip
    assert len(made["secret"]) > 80 and made["links"]["self"].endswith(f"{at}/{made['id']}") and "access_rules" not in made
    seen = mine.get(f"{at}/{made['id']}").json()["application_credential"]
    assert seen == {name: value for name, value in made.items() if name != "secret"}
    assert mine.get(at, params={"name": "backup"}).json()["application_credentials"] == [seen]
    assert mine.get(at, params={"name": "none"}).json()["application_credentials"] == []
    twice = mine.post(at, json={"application_credential": {"name": "backup"}})
    assert twice.status_code == 409 and "backup" in twice.json()["error"]["message"]
    shown = signed_in(running, made).json()["token"]
    assert shown["application_credential"] == {"id": made["id"], "name": "backup", "restricted": True}
    assert (shown["methods"], shown["project"]["id"], [role["name"] for role in shown["roles"]]) == (
        ["application_credential"], ann.project_id, ["reader"])  # fmt: skip
    by_name = {"name": "backup", "user": {"name": "ann", "domain": {"name": "Default"}}, "secret": made["secret"]}
    assert sign_in(running, {"methods": ["application_credential"], "application_credential": by_name}).status_code == 201
    by_name["user"] = {"id": ann.id}
    assert sign_in(running, {"methods": ["application_credential"], "application_credential": by_name}).status_code == 201
    program = acting(running, made)
    assert mine.delete(f"{at}/{made['id']}").status_code == 204
    assert program.get(f"{V3}/auth/catalog").status_code == 401, "a token of what is gone counts no more"
    assert signed_in(running, made).status_code == 401
    assert mine.get(f"{at}/{made['id']}").status_code == mine.delete(f"{at}/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [({"name": ""}, 400, "name"), ({}, 400, "name"), ({"name": "x", "secret": 7}, 400, "secret"), ({"name": "x", "roles": ["reader"]}, 400, "roles"),
     ({"name": "x", "roles": [{"name": "none"}]}, 404, "none"), ({"name": "x", "roles": [{"name": "admin"}]}, 400, "unassigned role"),
     ({"name": "x", "expires_at": "soon"}, 400, "expires_at"), ({"name": "x", "expires_at": "2001-01-01T00:00:00"}, 400, "expires_at"),
     ({"name": "x", "expires_at": "0001-01-01T00:00:00+14:00"}, 400, "expires_at"),
     ({"name": "x", "access_rules": [{"service": "compute", "method": "LIST", "path": "/"}]}, 400, "method"),
     ({"name": "x", "access_rules": [{"service": "compute", "method": "GET", "path": "servers"}]}, 400, "path"),
     ({"name": "x", "access_rules": [{"service": "compute", "method": "GET"}]}, 400, "path"),
     ({"name": "x", "access_rules": [{"id": "none"}]}, 404, "none"), ({"name": "x", "unrestricted": "yes"}, 400, "unrestricted")],
)  # fmt: skip
def test_nonsense_is_refused_by_name(ann: Person, mine: httpx.Client, said: dict[str, Any], status: int, word: str) -> None:
    answer = mine.post(f"{V3}/users/{ann.id}/application_credentials", json={"application_credential": said})
    assert (answer.status_code, word in answer.json()["error"]["message"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [({}, 400, "secret"), ({"secret": "x"}, 400, "name"), ({"secret": "x", "name": "y"}, 400, "user"),
     ({"secret": "x", "name": "y", "user": {"name": "ann"}}, 400, "domain"), ({"secret": "x", "id": 7}, 400, "id"),
     ({"secret": "x", "id": "none"}, 401, ""), ({"secret": "x", "name": "y", "user": {"id": "none"}}, 401, "")],
)  # fmt: skip
def test_a_wrong_login_is_refused(running: Running, said: dict[str, Any], status: int, word: str) -> None:
    answer = sign_in(running, {"methods": ["application_credential"], "application_credential": said})
    assert answer.status_code == status and word in answer.json()["error"]["message"], answer.text


def test_secrets_are_hashed_and_a_wrong_one_is_refused(running: Running, ann: Person, mine: httpx.Client) -> None:
    for made in (make(mine, ann, "made-here"), make(mine, ann, "thought-up", secret="correct horse")):
        with running.cloud.db.read() as conn:
            assert made["secret"] not in str(conn.exec_driver_sql("SELECT * FROM application_credentials").all())
            assert made["secret"] not in str(conn.exec_driver_sql("SELECT * FROM journal").all())
        assert [signed_in(running, made).status_code for _ in range(2)] == [201, 201]
        assert signed_in(running, {**made, "secret": made["secret"] + "x"}).status_code == 401
        stolen = {**made, "secret": "sha256:"}
        assert signed_in(running, stolen).status_code == 401


def test_no_scope_is_asked_for(running: Running, ann: Person, mine: httpx.Client) -> None:
    made = make(mine, ann, "scoped")
    said = {"methods": ["application_credential"], "application_credential": {"id": made["id"], "secret": made["secret"]}}
    refused = sign_in(running, said, ann.scope)
    assert refused.status_code == 401 and "cannot request a scope" in refused.json()["error"]["message"]
    of_token = {"methods": ["token"], "token": {"id": token(signed_in(running, made))}}
    assert sign_in(running, of_token, ann.scope).status_code == 403
    again = sign_in(running, of_token).json()["token"]
    assert again["application_credential"]["id"] == made["id"] and again["methods"] == ["application_credential", "token"]
    assert sign_in(running, said, "unscoped").status_code == 401


def test_it_ends(running: Running, ann: Person, mine: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = clock.utcnow() + timedelta(minutes=5)
    made = make(mine, ann, "short", expires_at=ends.isoformat())
    assert made["expires_at"] == ends.isoformat(timespec="microseconds")
    answer = signed_in(running, made)
    assert answer.json()["token"]["expires_at"] == ends.isoformat(timespec="microseconds") + "Z"
    later = ends + timedelta(seconds=1)
    monkeypatch.setattr(clock, "utcnow", lambda: later)
    assert signed_in(running, made).status_code == 401
    assert with_token(running, token(answer)).get(f"{V3}/auth/catalog").status_code == 401


def test_it_is_worth_nothing_without_the_users_role(running: Running, mine: httpx.Client) -> None:
    bo = person(running, "bo", "member", "reader")
    role = people.role_id(running, "member")
    made = make(bo.http(), bo, "all")
    program = acting(running, made)
    at = f"{V3}/projects/{bo.project_id}/users/{bo.id}/roles/{role}"
    with running.http() as admin:
        assert admin.delete(at).status_code == 204
        assert program.get(f"{V3}/auth/catalog").status_code == 401
        assert signed_in(running, made).status_code == 401
        assert admin.put(at).status_code == 204
        assert signed_in(running, made).status_code == 401, "it does not come back with the role"
        assert admin.get(f"{V3}/users/{bo.id}/application_credentials").json()["application_credentials"] == []


def test_a_role_that_is_deleted_does_not_make_it_less(running: Running) -> None:
    with running.http() as admin:
        admin.post(f"{V3}/roles", json={"role": {"name": "oarsman"}})
        cy = person(running, "cy", "oarsman", "member")
        made = make(cy.http(), cy, "both")
        assert signed_in(running, made).status_code == 201
        assert admin.delete(f"{V3}/roles/{people.role_id(running, 'oarsman')}").status_code == 204
        assert signed_in(running, made).status_code == 401


def test_what_a_group_gave_counts_while_it_gives(running: Running) -> None:
    di = person(running, "di")
    with running.http() as admin:
        group = admin.post(f"{V3}/groups", json={"group": {"name": "rowing"}}).json()["group"]["id"]
        admin.put(f"{V3}/projects/{di.project_id}/groups/{group}/roles/{people.role_id(running, 'member')}")
        admin.put(f"{V3}/groups/{group}/users/{di.id}")
        made = make(di.http(), di, "crew")
        assert signed_in(running, made).status_code == 201
        admin.delete(f"{V3}/groups/{group}/users/{di.id}")
        assert signed_in(running, made).status_code == 401


@pytest.mark.parametrize("what", ["user", "project"])
def test_it_goes_with_its_user_and_its_project(running: Running, what: str) -> None:
    who = person(running, f"going-{what}", "member")
    rule = {"service": "compute", "method": "GET", "path": "/v2.1/servers"}
    made = make(who.http(), who, "all", access_rules=[rule])
    with running.http() as admin:
        assert admin.delete(f"{V3}/users/{who.id}" if what == "user" else f"{V3}/projects/{who.project_id}").status_code == 204
        assert signed_in(running, made).status_code == 401
        assert admin.get(f"{V3}/users/{who.id}/application_credentials").json()["application_credentials"] == []


def test_a_restricted_one_makes_no_others(running: Running, ann: Person, mine: httpx.Client) -> None:
    at, trusts = f"{V3}/users/{ann.id}/application_credentials", f"{V3}/OS-TRUST/trusts"
    trust = {"trust": {"trustor_user_id": ann.id, "trustee_user_id": ann.id, "project_id": ann.project_id, "impersonation": False,
                       "roles": [{"name": "reader"}]}}  # fmt: skip
    weak, strong = make(mine, ann, "weak"), make(mine, ann, "strong", unrestricted=True, roles=[{"name": "member"}])
    with acting(running, weak) as program:
        for answer in (program.post(at, json={"application_credential": {"name": "child"}}), program.delete(f"{at}/{weak['id']}"),
                       program.post(trusts, json=trust)):  # fmt: skip
            assert answer.status_code == 403 and "application_credential" in answer.json()["error"]["message"]
        assert program.get(f"{at}/{weak['id']}").status_code == 200
    with acting(running, strong) as program:
        made = make(program, ann, "child")
        assert [role["name"] for role in made["roles"]] == ["member", "reader"]
        assert program.post(trusts, json=trust).status_code == 201
        assert program.delete(f"{at}/{made['id']}").status_code == 204
    with acting(running, make(mine, ann, "reads", unrestricted=True, roles=[{"name": "reader"}])) as program:
        grasping = program.post(at, json={"application_credential": {"name": "more", "roles": [{"name": "member"}]}})
        assert grasping.status_code == 400, "no role that the token does not have"
        trust["trust"]["roles"] = [{"name": "member"}]
        assert program.post(trusts, json=trust).status_code == 404


def test_they_are_ones_own(running: Running, ann: Person, mine: httpx.Client) -> None:
    made = make(mine, ann, "private", access_rules=[{"service": "image", "method": "GET", "path": "/v2/images"}])
    eve = person(running, "eve", "member")
    at, rule = f"{V3}/users/{ann.id}/application_credentials", made["access_rules"][0]["id"]
    with eve.http() as other:
        for path in (at, f"{at}/{made['id']}", f"{V3}/users/{eve.id}/application_credentials/{made['id']}", f"{V3}/users/{ann.id}/access_rules",
                     f"{V3}/users/{eve.id}/access_rules/{rule}"):  # fmt: skip
            assert other.get(path).status_code == 403, path
        assert other.delete(f"{V3}/users/{eve.id}/application_credentials/{made['id']}").status_code == 403
        assert other.post(at, json={"application_credential": {"name": "forged"}}).status_code == 403
        stolen = {"name": "x", "access_rules": [{"id": rule}]}
        assert other.post(f"{V3}/users/{eve.id}/application_credentials", json={"application_credential": stolen}).status_code == 404
    with running.http() as admin:
        assert admin.get(f"{at}/{made['id']}").status_code == 200
        assert admin.post(at, json={"application_credential": {"name": "forged"}}).status_code == 403
        assert admin.delete(f"{at}/{made['id']}").status_code == 204


def test_access_rules_are_shared_and_stay_while_used(running: Running, ann: Person, mine: httpx.Client) -> None:
    rule = {"service": "network", "method": "GET", "path": "/v2.0/ports"}
    first, second = make(mine, ann, "one", access_rules=[rule]), make(mine, ann, "two", access_rules=[rule, rule])
    assert first["access_rules"] == second["access_rules"] and rule.items() <= first["access_rules"][0].items()
    at, rule_id = f"{V3}/users/{ann.id}/access_rules", first["access_rules"][0]["id"]
    third = make(mine, ann, "three", access_rules=[{"id": rule_id}])
    assert third["access_rules"] == first["access_rules"]
    assert [one["id"] for one in mine.get(at, params={"path": "/v2.0/ports"}).json()["access_rules"]] == [rule_id]
    assert mine.get(f"{at}/{rule_id}").json()["access_rule"]["links"]["self"].endswith(f"{at}/{rule_id}")
    assert mine.delete(f"{at}/{rule_id}").status_code == 403
    for made in (first, second, third):
        mine.delete(f"{V3}/users/{ann.id}/application_credentials/{made['id']}")
    assert mine.delete(f"{at}/{rule_id}").status_code == 204
    assert mine.get(f"{at}/{rule_id}").status_code == mine.delete(f"{at}/{rule_id}").status_code == 404


def test_access_rules_hold_in_every_service(running: Running, ann: Person, mine: httpx.Client) -> None:
    rules = [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}, {"service": "network", "method": "GET", "path": "/v2.0/*"},
             {"service": "image", "method": "GET", "path": "/image/v2/**"}, {"service": "compute", "method": "GET", "path": "/v2.1/flavors/{id}"},
             {"service": "identity", "method": "GET", "path": "/v3/users/{user_id}/application_credentials"}]  # fmt: skip
    made = make(mine, ann, "narrow", access_rules=rules)
    with acting(running, made) as program:
        for path, allowed in (("/compute/v2.1/servers", True), ("/compute/v2.1/servers/detail", False), ("/compute/v2.1/flavors", False),
                              ("/compute/v2.1/flavors/1", True), ("/compute/v2.1/flavors/1/os-extra_specs", False), ("/network/v2.0/ports", True),
                              ("/network/v2.0/ports/1", False), ("/image/v2/images", True), ("/image/v2/images/1/members", True),
                              ("/placement/resource_providers", False), (f"{V3}/users/{ann.id}/application_credentials", True),
                              (f"{V3}/auth/catalog", False), ("/compute//v2.1/servers", True),
                              ("/compute/v2.1/flavors/a%2Fb/os-extra_specs", False)):  # fmt: skip
            answer = program.get(path)
            assert (answer.status_code != 401) == allowed, f"{path}: {answer.status_code}"
        refused = program.post("/compute/v2.1/servers", json={})
        assert refused.status_code == 401 and made["id"] in refused.text
        mine_too = {"x-subject-token": program.headers["x-auth-token"], "openstack-identity-access-rules": "1.0"}
        seen = program.get(f"{V3}/auth/tokens", headers=mine_too)
        assert seen.status_code == 200, "a token is always validated"
        assert [{name: rule[name] for name in ("service", "method", "path")} for rule in seen.json()["token"]["application_credential"][
            "access_rules"]] == sorted(rules, key=lambda rule: (rule["service"], rule["path"]))  # fmt: skip
        del mine_too["openstack-identity-access-rules"]
        assert program.get(f"{V3}/auth/tokens", headers=mine_too).status_code == 404, "who does not know of rules is not told that it is good"


@pytest.mark.commands
def test_the_command_line(running: Running, tmp_path: Path) -> None:
    ann = person(running, "typist", "member")
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps([{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]))
    made = json.loads(ann.openstack("application", "credential", "create", "cli", "--role", "reader", "--description", "by hand", "--expiration",
                                    "2099-01-01T00:00:00", "--unrestricted", "--access-rules", str(rules), "-f", "json"))  # fmt: skip
    credential = {"OS_AUTH_TYPE": "v3applicationcredential", "OS_APPLICATION_CREDENTIAL_ID": made.get("id") or made["ID"],
                  "OS_APPLICATION_CREDENTIAL_SECRET": made.get("secret") or made["Secret"]}  # fmt: skip
    assert people.openstack(running, "token", "issue", **credential).returncode == 0
    assert people.openstack(running, "flavor", "list", **credential).returncode == 1
    assert "cli" in ann.openstack("application", "credential", "list", "-f", "value", "-c", "Name").split()
    shown = json.loads(ann.openstack("application", "credential", "show", "cli", "-f", "json"))
    assert "by hand" in shown.values()
    rule = ann.openstack("access", "rule", "list", "-f", "value", "-c", "ID").split()
    assert any("/v2.1/servers" in ann.openstack("access", "rule", "show", one, "-f", "json") for one in rule)
    used = ann.tried("access", "rule", "delete", *rule)
    assert used.returncode == 1
    ann.openstack("application", "credential", "delete", "cli")
    left = ann.openstack("access", "rule", "list", "-f", "value", "-c", "ID").split()
    ann.openstack("access", "rule", "delete", *left)
    assert ann.openstack("access", "rule", "list", "-f", "value", "-c", "ID") == ""


def test_the_sdk_signs_in_by_one(running: Running, ann: Person, mine: httpx.Client) -> None:
    made = make(mine, ann, "sdk")
    cloud = sdk.connect(load_yaml_config=False, load_envvars=False, auth_type="v3applicationcredential", auth_url=f"{running.url}/identity/v3",
                        application_credential_name="sdk", username="ann", user_domain_id="default",
                        application_credential_secret=made["secret"], region_name="RegionOne")  # fmt: skip
    assert cloud.current_project_id == ann.project_id
    assert "sdk" in {one.name for one in cloud.identity.application_credentials(ann.id)}
    assert list(cloud.compute.servers()) == []
