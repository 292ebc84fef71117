"""Host aggregates by HTTP: their face at both shapes, the availability zone that they make, and what servers on a host forbid."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from fake_node import FakeNode

AGGREGATES = "/compute/v2.1/os-aggregates"


@pytest.fixture(scope="module")
def http(running: Running, node: FakeNode) -> Iterator[httpx.Client]:
    with running.http() as client:
        yield client


def made(http: httpx.Client, **fields: Any) -> int:
    answer = http.post(AGGREGATES, json={"aggregate": fields})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["aggregate"]["id"])


def act(http: httpx.Client, number: int, **body: Any) -> httpx.Response:
    return http.post(f"{AGGREGATES}/{number}/action", json=body)


def test_both_shapes(http: httpx.Client) -> None:
    number = made(http, name="shapes")
    old = http.get(f"{AGGREGATES}/{number}").json()["aggregate"]
    assert old.items() >= {"name": "shapes", "availability_zone": None, "hosts": [], "metadata": {}, "deleted": False, "deleted_at": None}.items()
    new = http.get(AGGREGATES, headers={"openstack-api-version": "compute 2.41"}).json()["aggregates"]
    assert [set(each) - set(old) for each in new if each["id"] == number] == [{"uuid"}]
    set_ = act(http, number, set_metadata={"metadata": {"ssd": "true", "availability_zone": "fast"}}).json()["aggregate"]
    assert (set_["metadata"], set_["availability_zone"]) == ({"ssd": "true", "availability_zone": "fast"}, "fast")
    gone = act(http, number, set_metadata={"metadata": {"ssd": None}}).json()["aggregate"]
    assert gone["metadata"] == {"availability_zone": "fast"}
    changed = http.put(f"{AGGREGATES}/{number}", json={"aggregate": {"name": "other"}}).json()["aggregate"]
    assert (changed["name"], changed["availability_zone"]) == ("other", "fast") and changed["updated_at"]
    assert http.delete(f"{AGGREGATES}/{number}").status_code == 200
    assert http.get(f"{AGGREGATES}/{number}").status_code == 404


@pytest.mark.parametrize(("body", "status"), [
    ({"name": ""}, 400), ({"name": "a" * 256}, 400), ({"name": " a"}, 400), ({"name": "a", "availability_zone": "b:c"}, 400), ({}, 400),
    ({"name": "twice"}, 409)])  # fmt: skip
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], status: int) -> None:
    if status == 409:
        made(http, **body)
    assert http.post(AGGREGATES, json={"aggregate": body}).status_code == status


def test_hosts_and_their_zone(http: httpx.Client, admin: Any, image: Any, flavor: Any) -> None:
    plain, fast, slow = made(http, name="plain"), made(http, name="f", availability_zone="fast"), made(http, name="s", availability_zone="slow")
    assert act(http, plain, add_host={"host": "nobody"}).status_code == 404
    assert act(http, plain, add_host={"host": "nacre-1"}).json()["aggregate"]["hosts"] == ["nacre-1"]
    assert act(http, plain, add_host={"host": "nacre-1"}).status_code == 409
    assert act(http, fast, add_host={"host": "nacre-1"}).status_code == 200
    assert act(http, slow, add_host={"host": "nacre-1"}).status_code == 409
    zones = {zone["zoneName"] for zone in http.get("/compute/v2.1/os-availability-zone").json()["availabilityZoneInfo"]}
    assert zones == {"fast"}
    assert {service.availability_zone for service in admin.compute.services(binary="nova-compute")} == {"fast"}
    provider = http.get("/placement/resource_providers", headers={"openstack-api-version": "placement 1.3"}).json()["resource_providers"][0]
    shown = http.get(f"/placement/resource_providers/{provider['uuid']}/aggregates", headers={"openstack-api-version": "placement 1.3"}).json()
    assert len(shown["aggregates"]) == 2

    body = {"name": "there", "imageRef": image.id, "flavorRef": flavor.id, "availability_zone": "fast", "networks": "none"}
    placed = http.post("/compute/v2.1/servers", json={"server": body}, headers={"openstack-api-version": "compute 2.37"}).json()["server"]
    server = admin.compute.wait_for_server(admin.compute.get_server(placed["id"]), wait=30)
    assert server.availability_zone == "fast"
    assert act(http, fast, remove_host={"host": "nacre-1"}).status_code == 409
    assert http.put(f"{AGGREGATES}/{fast}", json={"aggregate": {"availability_zone": "faster"}}).status_code == 400
    assert act(http, plain, remove_host={"host": "nacre-1"}).json()["aggregate"]["hosts"] == []
    assert act(http, plain, remove_host={"host": "nacre-1"}).status_code == 404

    assert http.delete(f"{AGGREGATES}/{fast}").status_code == 400
    admin.compute.delete_server(server)
    admin.compute.wait_for_delete(server, wait=30)
    assert act(http, fast, remove_host={"host": "nacre-1"}).status_code == 200
    body["availability_zone"] = "fast"
    refused = http.post("/compute/v2.1/servers", json={"server": body}, headers={"openstack-api-version": "compute 2.37"})
    assert (refused.status_code, refused.json()["badRequest"]["message"]) == (400, "The requested availability zone is not available")
