"""Unified limits, and that images are counted by them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from identity.directory_client import V3, make, message

REGISTERED, LIMITS = f"{V3}/registered_limits", f"{V3}/limits"


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http() as opened:
        yield opened


@pytest.fixture(scope="module")
def service(admin: httpx.Client) -> str:
    return make(admin, "services", "service", type="weather")["id"]


def register(client: httpx.Client, *wanted: dict[str, Any]) -> httpx.Response:
    return client.post(REGISTERED, json={"registered_limits": list(wanted)})


def limit(client: httpx.Client, *wanted: dict[str, Any]) -> httpx.Response:
    return client.post(LIMITS, json={"limits": list(wanted)})


def test_the_model_is_flat(running: Running) -> None:
    with running.http("demo") as demo:
        assert demo.get(f"{LIMITS}/model").json()["model"]["name"] == "flat"


def test_registered_limits(admin: httpx.Client, running: Running, service: str) -> None:
    rain = {"service_id": service, "resource_name": "rain", "default_limit": 10}
    answer = register(admin, rain, {**rain, "region_id": "RegionOne", "description": "here"})
    assert answer.status_code == 201 and "links" not in answer.json()
    plain, here = answer.json()["registered_limits"]
    assert (plain["region_id"], plain["description"], here["region_id"], here["default_limit"]) == (None, None, "RegionOne", 10)
    assert plain["links"]["self"].endswith(f"{REGISTERED}/{plain['id']}")
    for wrong, status in (({**rain}, 409), ({**rain, "region_id": "RegionOne"}, 409), ({**rain, "service_id": "none"}, 400),
                          ({**rain, "region_id": "Nowhere"}, 400), ({**rain, "default_limit": "10"}, 400), ({**rain, "default_limit": -2}, 400),
                          ({**rain, "resource_name": ""}, 400), ({**rain, "more": 1}, 400), ({"service_id": service}, 400)):  # fmt: skip
        assert register(admin, {**rain, "resource_name": "fresh"}, wrong).status_code == status, wrong
    assert register(admin).status_code == 400
    assert {one["id"] for one in admin.get(REGISTERED, params={"service_id": service}).json()["registered_limits"]} == {plain["id"], here["id"]}
    assert len(admin.get(REGISTERED, params={"service_id": service, "region_id": "RegionOne"}).json()["registered_limits"]) == 1
    at = f"{REGISTERED}/{plain['id']}"
    assert admin.patch(at, json={"registered_limit": {"resource_name": "snow"}}).json()["registered_limit"]["resource_name"] == "snow"
    assert admin.patch(at, json={"registered_limit": {"resource_name": "rain", "region_id": "RegionOne"}}).status_code == 409
    assert admin.patch(at, json={"registered_limit": {"service_id": "none"}}).status_code == 400
    with running.http("demo") as demo:
        assert demo.get(at).status_code == 200 and demo.delete(at).status_code == 403 and register(demo, rain).status_code == 403
    assert [admin.delete(f"{REGISTERED}/{one['id']}").status_code for one in (plain, here)] == [204, 204]
    assert admin.get(at).status_code == 404 and admin.delete(at).status_code == 404


def test_limits(admin: httpx.Client, running: Running, service: str) -> None:
    wind = {"service_id": service, "resource_name": "wind", "resource_limit": 5}
    project = make(admin, "projects", "project", name="coast")["id"]
    assert limit(admin, {**wind, "project_id": project}).status_code == 403, "nothing like it is registered"
    registered = register(admin, {"service_id": service, "resource_name": "wind", "default_limit": 3}).json()["registered_limits"][0]
    answer = limit(admin, {**wind, "project_id": project}, {**wind, "domain_id": "default", "description": "all"})
    assert answer.status_code == 201, answer.text
    of_project, of_domain = answer.json()["limits"]
    assert (of_project["project_id"], of_project["domain_id"], of_domain["domain_id"], of_domain["project_id"]) == (project, None, "default", None)
    assert (of_project["resource_name"], of_project["service_id"], of_project["region_id"]) == ("wind", service, None)
    for wrong, status in (
        ({"project_id": project}, 409), ({"domain_id": "default"}, 409), ({}, 400), ({"project_id": project, "domain_id": "default"}, 400),
        ({"project_id": "none"}, 400), ({"domain_id": "none"}, 400), ({"project_id": project, "resource_limit": 1.5}, 400),
        ({"project_id": project, "region_id": "RegionOne"}, 403),
    ):  # fmt: skip
        assert limit(admin, wind | wrong).status_code == status, wrong
    for asked, count in (({}, 2), ({"project_id": project}, 1), ({"domain_id": "default"}, 1), ({"resource_name": "wind"}, 2),
                         ({"region_id": "x"}, 0)):  # fmt: skip
        assert len(admin.get(LIMITS, params={"service_id": service, **asked}).json()["limits"]) == count, asked
    at = f"{LIMITS}/{of_project['id']}"
    changed = admin.patch(at, json={"limit": {"resource_limit": 7, "description": "more"}}).json()["limit"]
    assert changed | {"resource_limit": 5, "description": None} == of_project and admin.get(at).json()["limit"] == changed
    assert admin.patch(at, json={"limit": {"project_id": "other"}}).status_code == 400
    one = f"{REGISTERED}/{registered['id']}"
    refused = admin.patch(one, json={"registered_limit": {"resource_name": "gale"}})
    assert refused.status_code == 403 and registered["id"] in message(refused) and admin.delete(one).status_code == 403
    assert admin.patch(one, json={"registered_limit": {"default_limit": 4}}).status_code == 200
    with running.http("demo") as demo:
        assert demo.get(LIMITS).json()["limits"] == [] and demo.get(at).status_code == 403
        assert demo.patch(at, json={"limit": {}}).status_code == 403 and limit(demo, wind).status_code == 403
    assert admin.delete(f"{V3}/projects/{project}").status_code == 204 and admin.get(at).status_code == 404
    assert admin.delete(f"{LIMITS}/{of_domain['id']}").status_code == 204
    assert admin.delete(one).status_code == 204


def test_a_project_sees_its_own(admin: httpx.Client, running: Running, service: str) -> None:
    register(admin, {"service_id": service, "resource_name": "sun", "default_limit": 3})
    with running.http("demo") as demo:
        mine = demo.get(f"{V3}/auth/projects").json()["projects"][0]["id"]
        made = limit(admin, {"service_id": service, "resource_name": "sun", "resource_limit": 1, "project_id": mine}).json()["limits"][0]
        assert demo.get(LIMITS).json()["limits"] == [made] and demo.get(f"{LIMITS}/{made['id']}").json()["limit"] == made


def test_images_are_counted_by_them(admin: httpx.Client, running: Running) -> None:
    image = next(one["id"] for one in admin.get(f"{V3}/services").json()["services"] if one["type"] == "image")
    count = {"service_id": image, "resource_name": "image_count_total"}
    assert register(admin, {**count, "default_limit": 1}).status_code == 201

    def create(client: httpx.Client) -> int:
        return client.post("/image/v2/images", json={"name": "x", "disk_format": "raw", "container_format": "bare"}).status_code

    with running.http("demo") as demo:
        mine = demo.get(f"{V3}/auth/projects").json()["projects"][0]["id"]
        assert [create(demo) for _ in range(2)] == [201, 413]
        assert demo.get("/image/v2/info/usage").json()["usage"]["image_count_total"] == {"usage": 1, "limit": 1}
        made = limit(admin, {**count, "resource_limit": 2, "project_id": mine}).json()["limits"][0]
        assert [create(demo) for _ in range(2)] == [201, 413]
        admin.patch(f"{LIMITS}/{made['id']}", json={"limit": {"resource_limit": -1}})
        assert create(demo) == 201


def test_clients_know_them(running: Running, service: str) -> None:
    identity = running.connect().identity
    made = identity.create_registered_limit(service_id=service, resource_name="fog", default_limit=2)
    assert identity.update_registered_limit(made, default_limit=3).default_limit == 3
    project = identity.find_project("demo").id
    one = identity.create_limit(service_id=service, resource_name="fog", resource_limit=9, project_id=project)
    assert [found.resource_limit for found in identity.limits(resource_name="fog")] == [9]
    assert identity.update_limit(one, resource_limit=8).resource_limit == 8
    identity.delete_limit(one)
    identity.delete_registered_limit(made)
