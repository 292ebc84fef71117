"""The directory as its administrator and its users change it: every kind, its names, what goes with it, and when a change counts."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running

V3 = "/identity/v3"


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


def make(client: httpx.Client, plural: str, word: str, **said: Any) -> dict[str, Any]:
    answer = client.post(f"{V3}/{plural}", json={word: said})
    assert answer.status_code == 201, answer.text
    return answer.json()[word]


def login(running: Running, user: dict[str, Any], password: str, scope: Any = None) -> httpx.Response:
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": {"id": user["id"], "password": password}}}}
    return httpx.post(f"{running.url}{V3}/auth/tokens", json={"auth": auth | ({"scope": scope} if scope else {})})


def project_scope(project: dict[str, Any]) -> dict[str, Any]:
    return {"project": {"id": project["id"]}}


KINDS = [
    ("domains", "domain", {"name": "west"}, {"description": "the west", "enabled": False}, {"name": 7}),
    ("projects", "project", {"name": "works"}, {"description": "all", "name": "worked"}, {"enabled": "yes"}),
    ("users", "user", {"name": "ann", "password": "pw", "email": "ann@example.org"}, {"description": "Ann", "email": "a@example.org"}, {"name": ""}),
    ("groups", "group", {"name": "crew"}, {"description": "of the ship"}, {"description": 1}),
    ("roles", "role", {"name": "captain"}, {"name": "skipper", "description": "steers"}, {"name": ["x"]}),
    ("regions", "region", {"id": "Two", "description": "second"}, {"description": "2"}, {"description": 1}),
    ("services", "service", {"type": "weather", "name": "rain"}, {"name": "sun", "enabled": False}, {"type": ""}),
    ("policies", "policy", {"type": "text/plain", "blob": "any"}, {"blob": "none"}, {"blob": {}}),
]


@pytest.mark.parametrize(("plural", "word", "new", "change", "wrong"), KINDS, ids=[kind[1] for kind in KINDS])
def test_life(admin: httpx.Client, plural: str, word: str, new: dict[str, Any], change: dict[str, Any], wrong: dict[str, Any]) -> None:
    made = make(admin, plural, word, **new)
    assert made["links"]["self"].endswith(f"{V3}/{plural}/{made['id']}")
    assert {name: value for name, value in new.items() if name != "password"}.items() <= made.items() and "password" not in str(made.get("extra"))
    at = f"{V3}/{plural}/{made['id']}"
    changed = admin.patch(at, json={word: change})
    assert changed.status_code == 200 and change.items() <= changed.json()[word].items(), changed.text
    assert admin.get(at).json()[word] == changed.json()[word]
    assert made["id"] in {one["id"] for one in admin.get(f"{V3}/{plural}").json()[plural]}
    refused = admin.patch(at, json={word: wrong})
    assert refused.status_code == 400 and next(iter(wrong)) in refused.json()["error"]["message"]
    assert admin.delete(at).status_code == 204
    assert admin.get(at).status_code == 404 and admin.delete(at).status_code == 404


@pytest.mark.parametrize("word", ["domain", "project", "user", "group", "role"])
def test_a_name_is_given_once(admin: httpx.Client, word: str) -> None:
    plural = f"{word}s"
    make(admin, plural, word, name="only")
    other = make(admin, plural, word, name="other")
    for answer in (admin.post(f"{V3}/{plural}", json={word: {"name": "only"}}),
                   admin.patch(f"{V3}/{plural}/{other['id']}", json={word: {"name": "only"}})):  # fmt: skip
        assert answer.status_code == 409 and "only" in answer.json()["error"]["message"]
    assert admin.patch(f"{V3}/{plural}/{other['id']}", json={word: {"name": "other"}}).status_code == 200


def test_endpoints_have_a_service_and_a_region(admin: httpx.Client) -> None:
    service = make(admin, "services", "service", type="tide")
    said = {"service_id": service["id"], "interface": "public", "url": "http://tide.example.org", "region": "Shore"}
    made = make(admin, "endpoints", "endpoint", **said)
    assert made["region_id"] == made["region"] == "Shore"
    catalog = {one["type"]: one for one in admin.get(f"{V3}/auth/catalog").json()["catalog"]}
    assert catalog["tide"]["endpoints"][0]["url"] == "http://tide.example.org"
    assert admin.delete(f"{V3}/regions/Shore").status_code == 409
    assert admin.post(f"{V3}/endpoints", json={"endpoint": {**said, "service_id": "none"}}).status_code == 400
    assert admin.patch(f"{V3}/endpoints/{made['id']}", json={"endpoint": {"url": "http://ebb.example.org"}}).json()["endpoint"]["region"] == "Shore"
    assert admin.delete(f"{V3}/services/{service['id']}").status_code == 204
    assert admin.get(f"{V3}/endpoints/{made['id']}").status_code == 404
    assert admin.delete(f"{V3}/regions/Shore").status_code == 204


def test_regions_are_a_tree(admin: httpx.Client) -> None:
    assert admin.put(f"{V3}/regions/Top", json={"region": {}}).status_code == 201
    assert admin.put(f"{V3}/regions/Top", json={"region": {}}).status_code == 409
    make(admin, "regions", "region", id="Below", parent_region_id="Top")
    assert admin.patch(f"{V3}/regions/Top", json={"region": {"parent_region_id": "Below"}}).status_code == 400
    assert admin.patch(f"{V3}/regions/Top", json={"region": {"parent_region_id": "Nowhere"}}).status_code == 404
    assert admin.delete(f"{V3}/regions/Top").status_code == 204 and admin.get(f"{V3}/regions/Below").status_code == 404


def test_projects_are_a_tree(admin: httpx.Client) -> None:
    top = make(admin, "projects", "project", name="top")
    assert (top["domain_id"], top["parent_id"]) == ("default", "default")
    below = make(admin, "projects", "project", name="below", parent_id=top["id"])
    refused = admin.delete(f"{V3}/projects/{top['id']}")
    assert refused.status_code == 403 and top["id"] in refused.json()["error"]["message"]
    assert admin.patch(f"{V3}/projects/{top['id']}", json={"project": {"enabled": False}}).status_code == 403
    assert admin.patch(f"{V3}/projects/{below['id']}", json={"project": {"domain_id": "elsewhere"}}).status_code == 400
    assert admin.post(f"{V3}/projects", json={"project": {"name": "lost", "parent_id": "nowhere"}}).status_code == 404
    assert admin.delete(f"{V3}/projects/{below['id']}").status_code == 204
    assert admin.delete(f"{V3}/projects/{top['id']}").status_code == 204


def test_a_domain_goes_with_everything_in_it_once_it_is_disabled(admin: httpx.Client, running: Running) -> None:
    domain = make(admin, "domains", "domain", name="isle")
    user = make(admin, "users", "user", name="bo", password="pw", domain_id=domain["id"])
    project = make(admin, "projects", "project", name="port", domain_id=domain["id"])
    group = make(admin, "groups", "group", name="crew", domain_id=domain["id"])
    assert project["parent_id"] == domain["id"]
    assert login(running, user, "pw").status_code == 201
    assert admin.delete(f"{V3}/domains/{domain['id']}").status_code == 403
    assert admin.patch(f"{V3}/domains/{domain['id']}", json={"domain": {"enabled": False}}).status_code == 200
    assert login(running, user, "pw").status_code == 401
    assert admin.delete(f"{V3}/domains/{domain['id']}").status_code == 204
    for plural, one in (("users", user), ("projects", project), ("groups", group)):
        assert admin.get(f"{V3}/{plural}/{one['id']}").status_code == 404


def test_a_grant_counts_at_once_and_so_does_its_end(admin: httpx.Client, running: Running) -> None:
    role, project = make(admin, "roles", "role", name="pilot"), make(admin, "projects", "project", name="harbour")
    user, group = make(admin, "users", "user", name="cy", password="pw"), make(admin, "groups", "group", name="pilots")
    assert login(running, user, "pw", project_scope(project)).status_code == 401
    for actor, place in ((f"users/{user['id']}", f"projects/{project['id']}"), (f"groups/{group['id']}", f"projects/{project['id']}"),
                         (f"users/{user['id']}", "domains/default"), (f"users/{user['id']}", "system")):  # fmt: skip
        at = f"{V3}/{place}/{actor}/roles"
        assert admin.head(f"{at}/{role['id']}").status_code == 404
        assert [admin.put(f"{at}/{role['id']}").status_code for _ in range(2)] == [204, 204]
        assert admin.head(f"{at}/{role['id']}").status_code == 204
        assert [one["name"] for one in admin.get(at).json()["roles"]] == ["pilot"]
    listed = admin.get(f"{V3}/role_assignments", params={"role.id": role["id"], "include_names": ""}).json()["role_assignments"]
    assert sorted((("group" in one), next(iter(one["scope"]))) for one in listed) == [
        (False, "domain"), (False, "project"), (False, "system"), (True, "project")]  # fmt: skip
    token = login(running, user, "pw", project_scope(project))
    assert [one["name"] for one in token.json()["token"]["roles"]] == ["pilot"]
    mine = {"x-auth-token": token.headers["x-subject-token"]}
    assert [one["name"] for one in httpx.get(f"{running.url}{V3}/auth/projects", headers=mine).json()["projects"]] == ["harbour"]
    assert admin.delete(f"{V3}/projects/{project['id']}/users/{user['id']}/roles/{role['id']}").status_code == 204
    assert httpx.get(f"{running.url}{V3}/auth/projects", headers=mine).status_code == 401
    assert admin.delete(f"{V3}/roles/{role['id']}").status_code == 204
    assert admin.get(f"{V3}/role_assignments", params={"user.id": user["id"]}).json()["role_assignments"] == []


def test_a_group_gives_its_members_its_roles(admin: httpx.Client, running: Running) -> None:
    role, project = make(admin, "roles", "role", name="rower"), make(admin, "projects", "project", name="boat")
    user, group = make(admin, "users", "user", name="di", password="pw"), make(admin, "groups", "group", name="rowers")
    admin.put(f"{V3}/projects/{project['id']}/groups/{group['id']}/roles/{role['id']}")
    inside = f"{V3}/groups/{group['id']}/users/{user['id']}"
    assert admin.head(inside).status_code == 404 and admin.delete(inside).status_code == 404
    assert [admin.put(inside).status_code for _ in range(2)] == [204, 204]
    assert admin.head(inside).status_code == 204
    assert admin.get(f"{V3}/groups/{group['id']}/users").json()["users"] == [user]
    assert [one["name"] for one in admin.get(f"{V3}/users/{user['id']}/groups").json()["groups"]] == ["rowers"]
    token = login(running, user, "pw", project_scope(project))
    assert [one["name"] for one in token.json()["token"]["roles"]] == ["rower"]
    assert admin.delete(inside).status_code == 204
    assert httpx.get(f"{running.url}{V3}/auth/catalog", headers={"x-auth-token": token.headers["x-subject-token"]}).status_code == 401


def test_passwords(admin: httpx.Client, running: Running) -> None:
    user = make(admin, "users", "user", name="ed", password="first")
    token = {"x-auth-token": login(running, user, "first").headers["x-subject-token"]}
    at = f"{running.url}{V3}/users/{user['id']}/password"
    wrong = httpx.post(at, json={"user": {"original_password": "guess", "password": "second"}})
    assert wrong.status_code == 401
    assert httpx.post(at, json={"user": {"original_password": "first"}}).status_code == 400
    assert httpx.post(at, json={"user": {"original_password": "first", "password": "second"}}).status_code == 204
    assert httpx.get(f"{running.url}{V3}/auth/projects", headers=token).status_code == 401
    assert (login(running, user, "first").status_code, login(running, user, "second").status_code) == (401, 201)
    admin.patch(f"{V3}/users/{user['id']}", json={"user": {"enabled": False}})
    assert login(running, user, "second").status_code == 401


def test_credentials_are_sealed_and_ones_own(admin: httpx.Client, running: Running) -> None:
    with running.http("demo") as demo:
        project = demo.get(f"{V3}/auth/projects").json()["projects"][0]["id"]
        said = {"type": "ec2", "project_id": project, "blob": '{"access": "AKIA", "secret": "hush"}'}
        made = make(demo, "credentials", "credential", **said)
        assert said.items() <= made.items()
        with running.cloud.db.read() as conn:
            assert "hush" not in str(conn.exec_driver_sql("SELECT sealed FROM identity_credentials").all())
        at = f"{V3}/credentials/{made['id']}"
        assert demo.post(f"{V3}/credentials", json={"credential": said}).status_code == 409
        assert demo.patch(at, json={"credential": {"type": "cert"}}).status_code == 400
        assert demo.patch(at, json={"credential": {"blob": '{"access": "AKIA", "secret": "new"}'}}).status_code == 200
        assert "new" in demo.get(at).json()["credential"]["blob"]
        other = make(admin, "credentials", "credential", type="cert", blob="admin's")
        assert demo.get(f"{V3}/credentials/{other['id']}").status_code == 403
        assert [one["id"] for one in demo.get(f"{V3}/credentials").json()["credentials"]] == [made["id"]]
        assert demo.delete(at).status_code == 204


def test_trusts(admin: httpx.Client, running: Running) -> None:
    project = make(admin, "projects", "project", name="estate")
    lord, page = make(admin, "users", "user", name="lord", password="pw"), make(admin, "users", "user", name="page", password="pw")
    roles = {one["name"]: one["id"] for one in admin.get(f"{V3}/roles").json()["roles"]}
    at = f"{V3}/projects/{project['id']}/users/{lord['id']}/roles/{roles['member']}"
    admin.put(at)
    mine = httpx.Client(base_url=running.url, headers={"x-auth-token": login(running, lord, "pw", project_scope(project)).headers["x-subject-token"]})
    said = {"trustor_user_id": lord["id"], "trustee_user_id": page["id"], "project_id": project["id"], "impersonation": True}
    trusts = f"{V3}/OS-TRUST/trusts"
    assert admin.post(trusts, json={"trust": {**said, "roles": [{"name": "member"}]}}).status_code == 403
    for wrong, status in (({"roles": []}, 403), ({"roles": [{"name": "admin"}]}, 404), ({"roles": [{"name": "none"}]}, 404),
                          ({"roles": [{"name": "reader"}], "expires_at": "2001-01-01T00:00:00Z"}, 400)):  # fmt: skip
        assert mine.post(trusts, json={"trust": said | wrong}).status_code == status
    trust = make(mine, "OS-TRUST/trusts", "trust", **said, roles=[{"name": "reader"}], remaining_uses=1)
    assert [role["name"] for role in mine.get(f"{trusts}/{trust['id']}").json()["trust"]["roles"]] == ["reader"]
    assert mine.get(f"{trusts}/{trust['id']}/roles/{roles['reader']}").status_code == 200
    assert mine.get(f"{trusts}/{trust['id']}/roles/{roles['member']}").status_code == 404
    assert mine.get(trusts).status_code == 403 and len(mine.get(trusts, params={"trustor_user_id": lord["id"]}).json()["trusts"]) == 1
    scope = {"OS-TRUST:trust": {"id": trust["id"]}}
    assert login(running, lord, "pw", scope).status_code == 403
    acting = login(running, page, "pw", scope)
    shown = acting.json()["token"]
    assert (shown["user"]["id"], [one["name"] for one in shown["roles"]], shown["project"]["id"]) == (lord["id"], ["reader"], project["id"])
    assert login(running, page, "pw", scope).status_code == 401, "its one use was taken"
    assert mine.get(f"{trusts}/{trust['id']}").status_code == 404
    token = acting.headers["x-subject-token"]
    again = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": project_scope(project)}}
    assert httpx.post(f"{running.url}{V3}/auth/tokens", json=again).status_code == 403
    theirs = {"x-auth-token": token}
    assert httpx.get(f"{running.url}{V3}/auth/catalog", headers=theirs).status_code == 200
    admin.delete(at)
    assert httpx.get(f"{running.url}{V3}/auth/catalog", headers=theirs).status_code == 401
    assert admin.delete(f"{trusts}/{trust['id']}").status_code == 404, "one that is used up is missing, as upstream"


def test_a_member_changes_nothing(running: Running) -> None:
    with running.http("demo") as demo:
        for plural, word, new, _, _ in KINDS:
            answer = demo.post(f"{V3}/{plural}", json={word: new})
            assert answer.status_code == 403 and f"identity:create_{word}" in answer.json()["error"]["message"]


def test_a_deleted_project_is_forgotten(admin: httpx.Client, running: Running) -> None:
    project, user = make(admin, "projects", "project", name="gone"), make(admin, "users", "user", name="fay", password="pw")
    member = next(one["id"] for one in admin.get(f"{V3}/roles").json()["roles"] if one["name"] == "member")
    admin.put(f"{V3}/projects/{project['id']}/users/{user['id']}/roles/{member}")
    admin.patch(f"{V3}/users/{user['id']}", json={"user": {"default_project_id": project["id"]}})
    token = {"x-auth-token": login(running, user, "pw").headers["x-subject-token"]}
    assert httpx.get(f"{running.url}/network/v2.0/security-groups", headers=token).json()["security_groups"]
    assert admin.delete(f"{V3}/projects/{project['id']}").status_code == 204
    assert httpx.get(f"{running.url}{V3}/auth/catalog", headers=token).status_code == 401
    assert admin.get(f"{V3}/users/{user['id']}").json()["user"]["default_project_id"] is None
    assert admin.get("/network/v2.0/security-groups", params={"project_id": project["id"]}).json()["security_groups"] == []


def test_a_slash_at_the_end_changes_nothing(running: Running) -> None:
    with running.http() as http:
        assert [http.get(f"/identity/v3/{path}").status_code for path in ("projects/", "OS-TRUST/trusts/", "users/")] == [200, 200, 200]
