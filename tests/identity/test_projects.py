"""Trees of projects, their tags, and domains that are seen as projects."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from identity.directory_client import V3, login, make, message, scope_of

PROJECTS = f"{V3}/projects"


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


@pytest.fixture(scope="module")
def tree(admin: httpx.Client) -> list[dict[str, Any]]:
    """Five projects, each below the one before."""
    found: list[dict[str, Any]] = []
    for number in range(5):
        found.append(make(admin, "projects", "project", name=f"p{number}", parent_id=found[-1]["id"] if found else "default"))
    return found


def change(admin: httpx.Client, project: dict[str, Any], **said: Any) -> httpx.Response:
    return admin.patch(f"{PROJECTS}/{project['id']}", json={"project": said})


def test_a_tree_is_five_deep(admin: httpx.Client, tree: list[dict[str, Any]]) -> None:
    refused = admin.post(PROJECTS, json={"project": {"name": "deep", "parent_id": tree[-1]["id"]}})
    assert refused.status_code == 403 and "depth" in message(refused)


def test_what_is_above_and_below(admin: httpx.Client, tree: list[dict[str, Any]]) -> None:
    def show(project: dict[str, Any], *asked: str) -> httpx.Response:
        return admin.get(f"{PROJECTS}/{project['id']}", params=dict.fromkeys(asked, ""))

    ids = [one["id"] for one in tree]
    both = show(tree[2], "parents_as_ids", "subtree_as_ids").json()["project"]
    assert both["parents"] == {ids[1]: {ids[0]: {"default": None}}} and both["subtree"] == {ids[3]: {ids[4]: None}}
    assert show(tree[4], "subtree_as_ids").json()["project"]["subtree"] is None
    assert show(tree[2], "parents_as_list", "subtree_as_list").json()["project"]["parents"] == [], "only where the caller has a role"
    user = admin.get(f"{V3}/auth/tokens", headers={"x-subject-token": admin.headers["x-auth-token"]}).json()["token"]["user"]["id"]
    role = next(one["id"] for one in admin.get(f"{V3}/roles").json()["roles"] if one["name"] == "reader")
    grants = [f"{V3}/OS-INHERIT/projects/{ids[0]}/users/{user}/roles/{role}/inherited_to_projects", f"{PROJECTS}/{ids[0]}/users/{user}/roles/{role}"]
    assert {admin.put(at).status_code for at in grants} == {204}
    both = show(tree[2], "parents_as_list", "subtree_as_list").json()["project"]
    assert [[one["project"]["id"] for one in both[way]] for way in ("parents", "subtree")] == [[ids[1], ids[0]], [ids[3], ids[4]]]
    assert {admin.delete(at).status_code for at in grants} == {204}
    for way in ("parents", "subtree"):
        assert show(tree[2], f"{way}_as_list", f"{way}_as_ids").status_code == 400


def test_what_is_below_a_disabled_project_is_disabled(admin: httpx.Client, tree: list[dict[str, Any]]) -> None:
    assert change(admin, tree[2], enabled=False).status_code == 403
    assert change(admin, tree[4], enabled=False).status_code == 200
    assert change(admin, tree[2], enabled=False).status_code == 403, "the one between is enabled"
    assert change(admin, tree[3], enabled=False).status_code == 200
    refused = change(admin, tree[4], enabled=True)
    assert refused.status_code == 403 and "disabled parents" in message(refused)
    assert admin.post(PROJECTS, json={"project": {"name": "below", "parent_id": tree[3]["id"]}}).status_code == 403
    assert [change(admin, tree[n], enabled=True).status_code for n in (3, 4)] == [200, 200]
    assert admin.delete(f"{PROJECTS}/{tree[3]['id']}").status_code == 403


def test_tags(admin: httpx.Client) -> None:
    made = make(admin, "projects", "project", name="tagged", tags=["blue", "big"])
    at = f"{PROJECTS}/{made['id']}"
    tags = f"{at}/tags"
    assert made["tags"] == admin.get(tags).json()["tags"] == ["big", "blue"]
    assert [admin.head(f"{tags}/{tag}").status_code for tag in ("blue", "red")] == [204, 404]
    assert [admin.put(f"{tags}/red").status_code for _ in range(2)] == [201, 201]
    assert admin.delete(f"{tags}/blue").status_code == 204 and admin.delete(f"{tags}/blue").status_code == 404
    assert admin.get(at).json()["project"]["tags"] == ["big", "red"]
    put = admin.put(tags, json={"tags": ["one", "two"]})
    assert put.status_code == 200 and put.json()["tags"] == ["one", "two"]
    assert change(admin, made, tags=["three"]).json()["project"]["tags"] == ["three"]
    for wrong in (["a,b"], ["a/b"], [""], ["x" * 256], ["twice", "twice"], [str(number) for number in range(81)], [7], "word"):
        assert admin.put(tags, json={"tags": wrong}).status_code == 400, wrong
    for wrong in ({"tag": []}, {}, {"tags": [], "more": 1}):
        assert admin.put(tags, json=wrong).status_code == 400, wrong
    assert admin.put(f"{tags}/a,b").status_code == 400 and admin.put(f"{PROJECTS}/none/tags/a").status_code == 404
    assert admin.delete(tags).status_code == 204 and admin.get(tags).json()["tags"] == []
    admin.put(f"{tags}/kept")
    assert admin.delete(at).status_code == 204


def test_lists_by_tags(admin: httpx.Client) -> None:
    for name, tags in (("none", []), ("a", ["a"]), ("b", ["b"]), ("both", ["a", "b"])):
        make(admin, "projects", "project", name=f"t-{name}", tags=tags)
    for asked, wanted in (
        ({"tags": "a"}, {"a", "both"}), ({"tags": "a,b"}, {"both"}), ({"tags-any": "a,b"}, {"a", "b", "both"}),
        ({"not-tags": "a,b"}, {"none", "a", "b"}), ({"not-tags-any": "a,b"}, {"none"}), ({"tags": "a", "not-tags": "b"}, {"a"}),
    ):  # fmt: skip
        found = admin.get(PROJECTS, params={"name__startswith": "t-", **asked}).json()["projects"]
        assert {one["name"].removeprefix("t-") for one in found} == wanted, asked


def test_a_domain_is_a_project_too(admin: httpx.Client) -> None:
    made = make(admin, "projects", "project", name="realm", is_domain=True)
    at, domain = f"{PROJECTS}/{made['id']}", f"{V3}/domains/{made['id']}"
    assert made["is_domain"] is True and made["domain_id"] is None and made["parent_id"] is None
    assert admin.get(domain).json()["domain"]["name"] == "realm" and admin.get(at).json()["project"] == made
    assert {one["name"] for one in admin.get(PROJECTS, params={"is_domain": "true"}).json()["projects"]} >= {"realm", "Default"}
    assert made["id"] not in {one["id"] for one in admin.get(PROJECTS).json()["projects"]}
    assert make(admin, "projects", "project", name="in", parent_id=made["id"])["domain_id"] == made["id"]
    for wrong in ({"is_domain": True, "domain_id": "default"}, {"is_domain": True, "parent_id": made["id"]}):
        assert admin.post(PROJECTS, json={"project": {"name": "no", **wrong}}).status_code == 400
    assert change(admin, made, is_domain=False).status_code == 400
    assert admin.delete(at).status_code == 403, "it is enabled"
    assert change(admin, made, enabled=False).json()["project"]["enabled"] is False
    assert admin.delete(at).status_code == 204 and admin.get(domain).status_code == 404


def test_a_domain_takes_its_roles_and_what_was_inherited_from_it_along(admin: httpx.Client, running: Running) -> None:
    domain = make(admin, "domains", "domain", name="atoll")
    role = make(admin, "roles", "role", name="fisher", domain_id=domain["id"])
    project = make(admin, "projects", "project", name="reef", domain_id=domain["id"], tags=["wet"])
    below = make(admin, "projects", "project", name="hole", parent_id=project["id"])
    user = make(admin, "users", "user", name="gil", password="pw")
    reader = next(one["id"] for one in admin.get(f"{V3}/roles").json()["roles"] if one["name"] == "reader")
    grant = f"{V3}/OS-INHERIT/domains/{domain['id']}/users/{user['id']}/roles/{reader}/inherited_to_projects"
    assert admin.put(grant).status_code == 204
    token = login(running, user, "pw", scope_of("project", below)).headers["x-subject-token"]
    admin.patch(f"{V3}/domains/{domain['id']}", json={"domain": {"enabled": False}})
    assert httpx.get(f"{running.url}{V3}/auth/catalog", headers={"x-auth-token": token}).status_code == 401
    assert admin.delete(f"{V3}/domains/{domain['id']}").status_code == 204
    for plural, one in (("roles", role), ("projects", project), ("projects", below)):
        assert admin.get(f"{V3}/{plural}/{one['id']}").status_code == 404
    assert admin.get(f"{V3}/role_assignments", params={"user.id": user["id"]}).json()["role_assignments"] == []


def test_inexact_filters_and_pages(admin: httpx.Client) -> None:
    for name in ("Page-1", "page-2", "page_3", "100%"):
        make(admin, "projects", "project", name=name)
    for asked, wanted in (
        ("contains=age-", {"Page-1", "page-2"}), ("icontains=PAGE", {"Page-1", "page-2", "page_3"}), ("startswith=page", {"page-2", "page_3"}),
        ("istartswith=page-", {"Page-1", "page-2"}), ("endswith=-1", {"Page-1"}), ("iendswith=E_3", {"page_3"}), ("contains=%", {"100%"}),
        ("icontains=_", {"page_3"}),
    ):  # fmt: skip
        word, _, value = asked.partition("=")
        found = admin.get(PROJECTS, params={f"name__{word}": value}).json()["projects"]
        assert {one["name"] for one in found} == wanted, asked
    everything = [one["id"] for one in admin.get(PROJECTS).json()["projects"]]
    seen: list[str] = []
    address: str | None = f"{PROJECTS}?limit=2"
    while address:
        page = admin.get(address).json()
        assert len(page["projects"]) <= 2
        seen += [one["id"] for one in page["projects"]]
        address = page["links"]["next"]
    assert seen == everything
    assert admin.get(PROJECTS, params={"limit": "many"}).status_code == 400
    assert admin.get(PROJECTS, params={"marker": "nobody"}).status_code == 400
