"""Projects whose catalogs show some endpoints only."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from identity.directory_client import V3, login, make, scope_of

FILTER = f"{V3}/OS-EP-FILTER"


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


@pytest.fixture
def project(admin: httpx.Client, running: Running) -> Iterator[dict[str, Any]]:
    """A project with a user who may use it."""
    made, user = make(admin, "projects", "project", name="narrow"), make(admin, "users", "user", name="ned", password="pw")
    role = next(one["id"] for one in admin.get(f"{V3}/roles").json()["roles"] if one["name"] == "member")
    assert admin.put(f"{V3}/projects/{made['id']}/users/{user['id']}/roles/{role}").status_code == 204
    yield made | {"user": user}
    assert admin.delete(f"{V3}/projects/{made['id']}").status_code == admin.delete(f"{V3}/users/{user['id']}").status_code == 204


def catalog(running: Running, project: dict[str, Any]) -> set[tuple[str, str]]:
    """(type, interface) as a new token, its validation and the catalog's own address show it."""
    token = login(running, project["user"], "pw", scope_of("project", project))
    mine = {"x-auth-token": token.headers["x-subject-token"], "x-subject-token": token.headers["x-subject-token"]}
    told = [token.json()["token"]["catalog"], httpx.get(f"{running.url}{V3}/auth/catalog", headers=mine).json()["catalog"],
            httpx.get(f"{running.url}{V3}/auth/tokens", headers=mine).json()["token"]["catalog"]]  # fmt: skip
    assert told[0] == told[1] == told[2]
    return {(service["type"], endpoint["interface"]) for service in told[0] for endpoint in service["endpoints"]}


def test_a_project_is_given_endpoints(admin: httpx.Client, running: Running, project: dict[str, Any]) -> None:
    everything = catalog(running, project)
    services = {one["id"]: one["type"] for one in admin.get(f"{V3}/services").json()["services"]}
    endpoint = next(one for one in admin.get(f"{V3}/endpoints").json()["endpoints"] if services[one["service_id"]] == "image")
    at = f"{FILTER}/projects/{project['id']}/endpoints/{endpoint['id']}"
    assert admin.head(at).status_code == 404 and admin.delete(at).status_code == 404
    assert [admin.put(at).status_code for _ in range(2)] == [204, 409]
    assert admin.head(at).status_code == 204 and admin.get(at).status_code == 204
    assert catalog(running, project) == {("image", endpoint["interface"])}
    assert admin.get(f"{FILTER}/projects/{project['id']}/endpoints").json()["endpoints"] == [endpoint]
    assert [one["id"] for one in admin.get(f"{FILTER}/endpoints/{endpoint['id']}/projects").json()["projects"]] == [project["id"]]
    assert admin.delete(at).status_code == 204
    assert catalog(running, project) == everything
    for path in (f"projects/none/endpoints/{endpoint['id']}", f"projects/{project['id']}/endpoints/none"):
        assert admin.put(f"{FILTER}/{path}").status_code == 404


def test_a_group_says_what_endpoints_must_be(admin: httpx.Client, running: Running, project: dict[str, Any]) -> None:
    everything = catalog(running, project)
    made = make(admin, "OS-EP-FILTER/endpoint_groups", "endpoint_group", name="inside", filters={"interface": "internal"})
    at = f"{FILTER}/endpoint_groups/{made['id']}"
    assert made["description"] is None and made["links"]["self"].endswith(at) and admin.get(at).json()["endpoint_group"] == made
    assert {one["interface"] for one in admin.get(f"{at}/endpoints").json()["endpoints"]} == {"internal"}
    inside = f"{at}/projects/{project['id']}"
    assert admin.get(inside).status_code == 404 and [admin.put(inside).status_code for _ in range(2)] == [204, 409]
    shown = admin.get(inside).json()["project_endpoint_group"]
    assert (shown["project_id"], shown["endpoint_group_id"]) == (project["id"], made["id"])
    assert catalog(running, project) == {(kind, interface) for kind, interface in everything if interface == "internal"}
    assert [one["id"] for one in admin.get(f"{at}/projects").json()["projects"]] == [project["id"]]
    assert admin.get(f"{FILTER}/projects/{project['id']}/endpoint_groups").json()["endpoint_groups"] == [made]
    compute = next(one["id"] for one in admin.get(f"{V3}/services").json()["services"] if one["type"] == "compute")
    changed = admin.patch(at, json={"endpoint_group": {"filters": {"interface": "public", "service_id": compute}, "description": "one"}})
    assert changed.status_code == 200 and changed.json()["endpoint_group"]["description"] == "one"
    assert catalog(running, project) == {("compute", "public")}
    assert admin.delete(at).status_code == 204 and admin.get(at).status_code == 404
    assert catalog(running, project) == everything


def test_groups_are_refused_in_words(admin: httpx.Client, running: Running) -> None:
    for wrong, word in (
        ({"name": "x"}, "filters"), ({"name": "x", "filters": {}}, "filters"), ({"name": "x", "filters": {"url": "y"}}, "url"),
        ({"filters": {"interface": "public"}}, "name"), ({"name": "x", "filters": {"interface": "secret"}}, "interface"),
    ):  # fmt: skip
        refused = admin.post(f"{FILTER}/endpoint_groups", json={"endpoint_group": wrong})
        assert refused.status_code == 400 and word in refused.text, wrong
    with running.http("demo") as demo:
        assert demo.get(f"{FILTER}/endpoint_groups").status_code == 403
        assert demo.put(f"{FILTER}/projects/x/endpoints/y").status_code == 403
