"""Implied roles, inherited grants, domains' own roles: what they come to in tokens, at once, and how they are listed."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from identity.directory_client import V3, login, make, message, roles_in, scope_of


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


@pytest.fixture(scope="module")
def fleet(admin: httpx.Client) -> dict[str, Any]:
    """A domain with projects top > middle > leaf, a user in a group, and roles a, b, c."""
    domain = make(admin, "domains", "domain", name="fleet")
    found: dict[str, Any] = {"domain": domain, "top": make(admin, "projects", "project", name="top", domain_id=domain["id"])}
    found["middle"] = make(admin, "projects", "project", name="middle", parent_id=found["top"]["id"])
    found["leaf"] = make(admin, "projects", "project", name="leaf", parent_id=found["middle"]["id"])
    found["user"] = make(admin, "users", "user", name="ann", password="pw", domain_id=domain["id"])
    found["group"] = make(admin, "groups", "group", name="crew", domain_id=domain["id"])
    assert admin.put(f"{V3}/groups/{found['group']['id']}/users/{found['user']['id']}").status_code == 204
    return found | {name: make(admin, "roles", "role", name=name) for name in ("a", "b", "c")}


def listed(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    """`inherited_to`, and other parameters with _ for their dots."""
    names = {"inherited_to": "scope.OS-INHERIT:inherited_to", "include_names": "include_names", "include_subtree": "include_subtree"}
    answer = client.get(f"{V3}/role_assignments", params={names.get(name, name.replace("_", ".")): value for name, value in params.items()})
    assert answer.status_code == 200, answer.text
    return answer.json()["role_assignments"]


def implies(prior: dict[str, Any], implied: dict[str, Any]) -> str:
    return f"{V3}/roles/{prior['id']}/implies/{implied['id']}"


def test_what_is_implied_counts_at_once(admin: httpx.Client, running: Running, fleet: dict[str, Any]) -> None:
    a, b, c, user, top = (fleet[name] for name in ("a", "b", "c", "user", "top"))
    grant = f"{V3}/projects/{top['id']}/users/{user['id']}/roles/{a['id']}"
    assert admin.put(grant).status_code == 204
    token = login(running, user, "pw", scope_of("project", top))
    assert roles_in(token) == ["a"]
    for prior, implied in ((a, b), (b, c)):
        assert admin.get(implies(prior, implied)).status_code == 404
        made = admin.put(implies(prior, implied))
        assert made.status_code == 201 and made.json()["role_inference"]["implies"]["name"] == implied["name"]
        assert admin.put(implies(prior, implied)).status_code == 201, "harmless when repeated"
        assert admin.head(implies(prior, implied)).status_code == 204
    seen = admin.get(f"{V3}/auth/tokens", headers={"x-subject-token": token.headers["x-subject-token"]})
    assert [role["name"] for role in seen.json()["token"]["roles"]] == ["a", "b", "c"]
    for prior, implied in ((c, a), (a, a), (b, a)):
        refused = admin.put(implies(prior, implied))
        assert refused.status_code == 400 and "circle" in message(refused)
    assert [one["name"] for one in admin.get(f"{V3}/roles/{a['id']}/implies").json()["role_inference"]["implies"]] == ["b"]
    every = admin.get(f"{V3}/role_inferences").json()["role_inferences"]
    rules = {one["prior_role"]["name"]: [role["name"] for role in one["implies"]] for one in every}
    assert rules["a"] == ["b"] and rules["b"] == ["c"] and rules["admin"] == ["manager"]
    found = listed(admin, user_id=user["id"], scope_project_id=top["id"], effective="")
    assert {one["role"]["id"] for one in found} == {a["id"], b["id"], c["id"]}
    assert {one["links"]["assignment"].rpartition("/")[2] for one in found} == {a["id"]}
    assert [one["role"]["id"] for one in listed(admin, effective="", role_id=c["id"], user_id=user["id"])] == [c["id"]]
    assert admin.delete(implies(a, b)).status_code == 204 and admin.delete(implies(a, b)).status_code == 404
    assert roles_in(login(running, user, "pw", scope_of("project", top))) == ["a"]
    assert admin.delete(grant).status_code == 204 and admin.delete(implies(b, c)).status_code == 204


def test_who_may_not_be_implied(admin: httpx.Client, fleet: dict[str, Any]) -> None:
    roles = {one["name"]: one for one in admin.get(f"{V3}/roles").json()["roles"]}
    own = make(admin, "roles", "role", name="a", domain_id=fleet["domain"]["id"])
    for prior, implied, status in ((fleet["a"], roles["admin"], 403), (fleet["a"], own, 403), (own, fleet["a"], 201), (own, {"id": "none"}, 404)):
        assert admin.put(implies(prior, implied)).status_code == status
    with httpx.Client(base_url=admin.base_url, headers={"x-auth-token": "none"}) as nobody:
        assert nobody.put(implies(own, fleet["b"])).status_code == 401
    assert admin.delete(f"{V3}/roles/{own['id']}").status_code == 204


def test_a_domains_own_roles(admin: httpx.Client, running: Running, fleet: dict[str, Any]) -> None:
    domain, user, top = fleet["domain"], fleet["user"], fleet["top"]
    own = make(admin, "roles", "role", name="b", domain_id=domain["id"])
    assert admin.post(f"{V3}/roles", json={"role": {"name": "b", "domain_id": domain["id"]}}).status_code == 409
    assert admin.post(f"{V3}/roles", json={"role": {"name": "x", "domain_id": "nowhere"}}).status_code == 404
    assert own["id"] not in {one["id"] for one in admin.get(f"{V3}/roles").json()["roles"]}
    assert admin.get(f"{V3}/roles", params={"domain_id": domain["id"]}).json()["roles"] == [own]
    assert admin.patch(f"{V3}/roles/{own['id']}", json={"role": {"domain_id": "default"}}).status_code == 400
    elsewhere = f"{V3}/domains/default/users/{user['id']}/roles/{own['id']}"
    assert admin.put(elsewhere).status_code == 403
    assert admin.put(f"{V3}/system/users/{user['id']}/roles/{own['id']}").status_code == 400
    assert admin.put(f"{V3}/projects/{top['id']}/users/{user['id']}/roles/{own['id']}").status_code == 204
    assert login(running, user, "pw", scope_of("project", top)).status_code == 401, "it is worth what it implies: nothing yet"
    assert admin.put(implies(own, fleet["c"])).status_code == 201
    assert roles_in(login(running, user, "pw", scope_of("project", top))) == ["c"]
    assert [one["role"]["id"] for one in listed(admin, user_id=user["id"], effective="")] == [fleet["c"]["id"]]
    named = listed(admin, user_id=user["id"], include_names="")[0]
    assert named["role"] == {"id": own["id"], "name": "b", "domain": {"id": domain["id"], "name": "fleet"}}
    assert named["user"]["domain"] == {"id": domain["id"], "name": "fleet"} and named["scope"]["project"]["name"] == "top"
    assert admin.delete(f"{V3}/roles/{own['id']}").status_code == 204
    assert login(running, user, "pw", scope_of("project", top)).status_code == 401


@pytest.mark.parametrize("actor", ["user", "group"])
@pytest.mark.parametrize("place", ["domain", "top"])
def test_what_is_inherited_counts_at_once(admin: httpx.Client, running: Running, fleet: dict[str, Any], actor: str, place: str) -> None:
    role, user, leaf = fleet["a"], fleet["user"], fleet["leaf"]
    scope = "domain" if place == "domain" else "project"
    at = f"{V3}/OS-INHERIT/{scope}s/{fleet[place]['id']}/{actor}s/{fleet[actor]['id']}/roles"
    one = f"{at}/{role['id']}/inherited_to_projects"
    assert admin.head(one).status_code == 404
    assert [admin.put(one).status_code for _ in range(2)] == [204, 204]
    assert admin.head(one).status_code == 204
    if scope == "domain":
        assert [found["name"] for found in admin.get(f"{at}/inherited_to_projects").json()["roles"]] == ["a"]
    assert roles_in(login(running, user, "pw", scope_of("project", leaf))) == ["a"]
    assert login(running, user, "pw", scope_of(scope, fleet[place])).status_code == 401, "what is below has it, the place itself has not"
    assert {project["name"] for project in mine(running, user)} == ({"top", "middle", "leaf"} if place == "domain" else {"middle", "leaf"})
    given = listed(admin, role_id=role["id"], inherited_to="projects")
    assert [found["links"]["assignment"] for found in given] == [f"{running.url}{one}"]
    assert given[0]["scope"] == {scope: {"id": fleet[place]["id"]}, "OS-INHERIT:inherited_to": "projects"}
    counts = listed(admin, user_id=user["id"], scope_project_id=leaf["id"], effective="true")
    assert [(found["role"]["id"], found["scope"]["project"]["id"]) for found in counts] == [(role["id"], leaf["id"])]
    assert ("membership" in counts[0]["links"]) is (actor == "group") and counts[0]["links"]["assignment"] == f"{running.url}{one}"
    assert admin.delete(one).status_code == 204 and admin.delete(one).status_code == 404
    assert login(running, user, "pw", scope_of("project", leaf)).status_code == 401
    assert listed(admin, user_id=user["id"], effective="true") == []


def mine(running: Running, user: dict[str, Any]) -> list[dict[str, Any]]:
    token = login(running, user, "pw").headers["x-subject-token"]
    return httpx.get(f"{running.url}{V3}/auth/projects", headers={"x-auth-token": token}).json()["projects"]


def test_a_place_is_wanted_on_unknown_ids(admin: httpx.Client, fleet: dict[str, Any]) -> None:
    role, user, top = fleet["a"]["id"], fleet["user"]["id"], fleet["top"]["id"]
    for path in (f"projects/none/users/{user}/roles/{role}", f"projects/{top}/users/none/roles/{role}", f"projects/{top}/users/{user}/roles/none"):
        assert admin.put(f"{V3}/OS-INHERIT/{path}/inherited_to_projects").status_code == 404


def test_filters(admin: httpx.Client, fleet: dict[str, Any]) -> None:
    user, group, role = fleet["user"]["id"], fleet["group"]["id"], fleet["b"]["id"]
    places = (f"projects/{fleet['top']['id']}", f"projects/{fleet['leaf']['id']}", f"domains/{fleet['domain']['id']}", "system")
    at = [f"{place}/{actor}/roles/{role}" for place in places for actor in (f"users/{user}", f"groups/{group}")]
    assert {admin.put(f"{V3}/{path}").status_code for path in at} == {204}
    for asked, count in (({}, 8), ({"user_id": user}, 4), ({"group_id": group}, 4), ({"scope_project_id": fleet["top"]["id"]}, 2),
                         ({"scope_domain_id": fleet["domain"]["id"]}, 2), ({"scope_system": "all"}, 2), ({"effective": ""}, 8),
                         ({"scope_project_id": fleet["top"]["id"], "include_subtree": ""}, 4), ({"user_id": user, "scope_system": "all"}, 1),
                         ({"scope_project_id": fleet["middle"]["id"], "include_subtree": "", "effective": ""}, 2),
                         ({"inherited_to": "projects"}, 0)):  # fmt: skip
        assert len(listed(admin, role_id=role, **asked)) == count, asked
    for wrong in (
        {"user.id": user, "group.id": group}, {"scope.project.id": "x", "scope.domain.id": "y"}, {"scope.system": "all", "scope.domain.id": "y"},
        {"scope.system": "all", "scope.project.id": "y"}, {"effective": "", "group.id": group}, {"include_subtree": ""},
        {"effective": "", "scope.domain.id": "y", "scope.OS-INHERIT:inherited_to": "projects"},
    ):  # fmt: skip
        assert admin.get(f"{V3}/role_assignments", params=wrong).status_code == 400, wrong
    assert admin.get(f"{V3}/role_assignments", params={"include_subtree": "", "scope.project.id": "none"}).status_code == 404
    assert {admin.delete(f"{V3}/{path}").status_code for path in at} == {204}


def test_a_domains_reader_sees_the_domain(admin: httpx.Client, running: Running, fleet: dict[str, Any]) -> None:
    roles = {one["name"]: one["id"] for one in admin.get(f"{V3}/roles").json()["roles"]}
    user, domain = fleet["user"]["id"], fleet["domain"]
    places = (f"domains/{domain['id']}", f"projects/{fleet['leaf']['id']}", "system")
    grants = [f"{V3}/{place}/users/{user}/roles/{roles['reader']}" for place in places]
    assert {admin.put(path).status_code for path in grants} == {204}
    token = login(running, fleet["user"], "pw", scope_of("domain", domain)).headers["x-subject-token"]
    with httpx.Client(base_url=running.url, headers={"x-auth-token": token}) as reader:
        found = listed(reader)
        assert {next(iter(one["scope"])) for one in found} == {"domain", "project"} and len(found) == 2
        assert len(listed(reader, scope_project_id=fleet["top"]["id"], include_subtree="")) == 1
        elsewhere = {"scope.project.id": admin.get(f"{V3}/auth/projects").json()["projects"][0]["id"], "include_subtree": ""}
        assert reader.get(f"{V3}/role_assignments", params=elsewhere).status_code == 403
        assert [one["name"] for one in reader.get(f"{V3}/projects").json()["projects"]] == ["leaf", "middle", "top"]
        assert [one["name"] for one in reader.get(f"{V3}/domains").json()["domains"]] == ["fleet"]
    assert {admin.delete(path).status_code for path in grants} == {204}


def test_what_is_immutable(admin: httpx.Client) -> None:
    for plural, word in (("roles", "role"), ("projects", "project"), ("domains", "domain")):
        made = make(admin, plural, word, name="stone", options={"immutable": True})
        at = f"{V3}/{plural}/{made['id']}"
        assert made["options"] == {"immutable": True}
        assert admin.patch(at, json={word: {"name": "sand"}}).status_code == 403 and admin.delete(at).status_code == 403
        assert admin.patch(at, json={word: {"options": {"hard": True}}}).status_code == 400
        assert admin.patch(at, json={word: {"options": {"immutable": "very"}}}).status_code == 400
        freed = admin.patch(at, json={word: {"options": {"immutable": None}, "description": "free"}})
        assert freed.status_code == 200 and freed.json()[word]["options"] == {}
        if word == "domain":
            admin.patch(at, json={word: {"enabled": False}})
        assert admin.delete(at).status_code == 204
