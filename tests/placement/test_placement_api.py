"""The placement API by plain HTTP, as services and its command-line plugin call it, at several microversions."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running


@pytest.fixture(scope="module")
def admin(running: Running) -> Iterator[httpx.Client]:
    with running.http(**{"openstack-api-version": "placement 1.24"}) as client:
        yield client


def at(version: str) -> dict[str, str]:
    return {"openstack-api-version": f"placement {version}"}


def provider(admin: httpx.Client, name: str, **totals: int) -> str:
    made = admin.post("/placement/resource_providers", json={"name": name})
    assert made.status_code == 200, made.text
    provider_id = str(made.json()["uuid"])
    offers = {resource: {"total": total} for resource, total in totals.items()}
    answer = admin.put(f"/placement/resource_providers/{provider_id}/inventories", json={"resource_provider_generation": 0, "inventories": offers})
    assert (answer.status_code, answer.json()["resource_provider_generation"]) == (200, 1), answer.text
    return provider_id


def share(provider_id: str, **resources: int) -> dict[str, Any]:
    return {"allocations": {provider_id: {"resources": resources}}, "project_id": "p1", "user_id": "u1"}


def test_root_and_versions(admin: httpx.Client) -> None:
    (version,) = admin.get("/placement/").json()["versions"]
    assert (version["min_version"], version["max_version"]) == ("1.0", "1.24")
    answer = admin.get("/placement/resource_providers", headers=at("1.99"))
    assert (answer.status_code, answer.json()["errors"][0]["max_version"]) == (406, "1.24")
    answer = admin.get("/placement/traits", headers=at("1.5"))
    assert (answer.status_code, answer.json()["errors"][0]["status"]) == (404, 404)
    answer = admin.get("/placement/traits", headers=at("latest"))
    assert answer.headers["openstack-api-version"] == "placement 1.24"
    assert (answer.headers["cache-control"], answer.headers["last-modified"][-3:]) == ("no-cache", "GMT")


def test_members_may_not(running: Running) -> None:
    with running.http("demo", **at("1.24")) as demo:
        answer = demo.get("/placement/resource_providers")
        assert (answer.status_code, "placement:resource_providers:list" in answer.json()["errors"][0]["detail"]) == (403, True)
        own = running.connect("demo").current_project_id
        assert demo.get(f"/placement/usages?project_id={own}").json() == {"usages": {}}
        assert demo.get("/placement/usages?project_id=other").status_code == 403


def test_providers(admin: httpx.Client) -> None:
    old = admin.post("/placement/resource_providers", json={"name": "old"}, headers=at("1.0"))
    assert (old.status_code, old.content) == (201, b"")
    address = old.headers["location"]
    shown = admin.get(address, headers=at("1.0")).json()
    assert [link["rel"] for link in shown["links"]] == ["self", "inventories", "usages"]
    assert "root_provider_uuid" not in shown
    again = admin.post("/placement/resource_providers", json={"name": "old"})
    assert (again.status_code, again.json()["errors"][0]["code"]) == (409, "placement.duplicate_name")
    child = admin.post("/placement/resource_providers", json={"name": "child", "parent_provider_uuid": shown["uuid"]}).json()
    assert (child["parent_provider_uuid"], child["root_provider_uuid"]) == (shown["uuid"], shown["uuid"])
    tree = admin.get(f"/placement/resource_providers?in_tree={child['uuid']}").json()["resource_providers"]
    assert {each["name"] for each in tree} == {"old", "child"}
    assert admin.delete(address).json()["errors"][0]["code"] == "placement.resource_provider.cannot_delete_parent"
    assert admin.put(address, json={"name": "new"}).json()["name"] == "new"
    assert [each["name"] for each in admin.get("/placement/resource_providers?name=new").json()["resource_providers"]] == ["new"]
    for bad in ({}, {"name": ""}, {"name": "x", "colour": 1}, {"name": "x", "uuid": "1"}, {"name": "x", "parent_provider_uuid": str(uuid.uuid4())}):
        assert admin.post("/placement/resource_providers", json=bad).status_code == 400, bad
    assert admin.post("/placement/resource_providers", json={"name": "x", "parent_provider_uuid": None}, headers=at("1.13")).status_code == 400
    assert admin.get("/placement/resource_providers?colour=red").status_code == 400
    for each in (f"/placement/resource_providers/{child['uuid']}", address):
        assert admin.delete(each).status_code == 204
        assert admin.get(each).status_code == 404


def test_inventories(admin: httpx.Client) -> None:
    provider_id = provider(admin, "inv", VCPU=4)
    address = f"/placement/resource_providers/{provider_id}/inventories"
    assert admin.get(address).json()["inventories"]["VCPU"] == {"total": 4, "reserved": 0, "min_unit": 1, "max_unit": 2147483647, "step_size": 1,
                                                                "allocation_ratio": 1.0}  # fmt: skip
    stale = admin.put(address, json={"resource_provider_generation": 0, "inventories": {}})
    assert (stale.status_code, stale.json()["errors"][0]["code"]) == (409, "placement.concurrent_update")
    made = admin.post(address, json={"resource_class": "DISK_GB", "total": 10, "reserved": 2})
    assert (made.status_code, made.json()["reserved"], made.json()["resource_provider_generation"]) == (201, 2, 2)
    assert admin.post(address, json={"resource_class": "DISK_GB", "total": 10}).status_code == 409
    changed = admin.put(f"{address}/DISK_GB", json={"resource_provider_generation": 2, "total": 20, "allocation_ratio": 1.5})
    assert (changed.json()["total"], changed.json()["allocation_ratio"], changed.json()["resource_provider_generation"]) == (20, 1.5, 3)
    for bad in ({"total": 0}, {"total": 5, "reserved": 5}, {"total": 5, "step_size": 0}, {"total": 5, "colour": 1}, {}):
        assert admin.put(f"{address}/DISK_GB", json={"resource_provider_generation": 3, **bad}).status_code == 400, bad
    assert admin.put(address, json={"resource_provider_generation": 3, "inventories": {"NOTHING": {"total": 1}}}).status_code == 400
    consumer = f"/placement/allocations/{uuid.uuid4()}"
    assert admin.put(consumer, json=share(provider_id, VCPU=1)).status_code == 204
    for refused in (admin.delete(f"{address}/VCPU"), admin.delete(address)):
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (409, "placement.inventory.inuse")
    refused = admin.delete(f"/placement/resource_providers/{provider_id}")
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (409, "placement.resource_provider.inuse")
    assert admin.delete(consumer).status_code == 204
    assert admin.delete(consumer).status_code == 404
    assert admin.delete(f"{address}/VCPU").status_code == 204
    assert admin.get(f"{address}/VCPU").status_code == 404
    assert admin.delete(f"/placement/resource_providers/{provider_id}").status_code == 204


def test_allocations(admin: httpx.Client) -> None:
    one, two, consumer = provider(admin, "alloc1", VCPU=4, MEMORY_MB=100), provider(admin, "alloc2", VCPU=4), str(uuid.uuid4())
    address = f"/placement/allocations/{consumer}"
    assert admin.get(address).json() == {"allocations": {}}
    assert admin.put(address, json=share(one, VCPU=4, MEMORY_MB=50)).status_code == 204
    assert admin.put(address, json=share(one, VCPU=3, MEMORY_MB=60)).status_code == 204, "in place of what it held"
    shown = admin.get(address).json()
    assert (shown["allocations"][one]["resources"], shown["project_id"]) == ({"VCPU": 3, "MEMORY_MB": 60}, "p1")
    assert admin.get(f"/placement/resource_providers/{one}/usages").json()["usages"] == {"VCPU": 3, "MEMORY_MB": 60}
    holders = admin.get(f"/placement/resource_providers/{one}/allocations").json()["allocations"]
    assert holders == {consumer: {"resources": {"VCPU": 3, "MEMORY_MB": 60}}}
    assert admin.get("/placement/usages?project_id=p1&user_id=u1").json()["usages"] == {"VCPU": 3, "MEMORY_MB": 60}
    other = str(uuid.uuid4())
    refused = admin.put(f"/placement/allocations/{other}", json=share(one, VCPU=2))
    assert (refused.status_code, "2 requested, 1 of 4 free" in refused.json()["errors"][0]["detail"]) == (409, True)
    nowhere = {"allocations": {}, "project_id": "p1", "user_id": "u1"}
    assert admin.post("/placement/allocations", json={consumer: nowhere, other: share(one, VCPU=4)}).status_code == 204, "a move, at once"
    assert admin.get(address).json() == {"allocations": {}}
    both = {"allocations": [{"resource_provider": {"uuid": two}, "resources": {"VCPU": 1}}]}
    assert admin.put(address, json=both, headers=at("1.0")).status_code == 204
    assert admin.put(address, json=both, headers=at("1.8")).status_code == 400, "no owner said"
    assert "project_id" not in admin.get(address, headers=at("1.11")).json()
    for bad in ({}, {"allocations": {}, "project_id": "p", "user_id": "u"}, share(one, VCPU=0), share(str(uuid.uuid4()), VCPU=1), share(one, NONE=1)):
        assert admin.put(address, json=bad).status_code == 400, bad
    assert admin.put("/placement/allocations/me", json=share(one, VCPU=1)).status_code == 400
    for each in (consumer, other):
        admin.delete(f"/placement/allocations/{each}")


def test_classes_traits_aggregates_and_candidates(admin: httpx.Client) -> None:
    fast, slow = provider(admin, "fast", VCPU=4, DISK_GB=10), provider(admin, "slow", VCPU=8, DISK_GB=10)
    assert [admin.put("/placement/traits/CUSTOM_FAST").status_code for _ in range(2)] == [201, 204]
    assert admin.put("/placement/traits/FAST").status_code == 400
    assert admin.get("/placement/traits?name=startswith:CUSTOM").json() == {"traits": ["CUSTOM_FAST"]}
    body = {"traits": ["CUSTOM_FAST"], "resource_provider_generation": 1}
    assert admin.put(f"/placement/resource_providers/{fast}/traits", json=body).json() == {**body, "resource_provider_generation": 2}
    assert admin.put(f"/placement/resource_providers/{fast}/traits", json={"traits": ["NO"], "resource_provider_generation": 2}).status_code == 400
    assert admin.get("/placement/traits?associated=true").json() == {"traits": ["CUSTOM_FAST"]}
    assert admin.delete("/placement/traits/CUSTOM_FAST").status_code == 409
    rack = str(uuid.uuid4())
    assert admin.put(f"/placement/resource_providers/{slow}/aggregates", json=[rack], headers=at("1.1")).json() == {"aggregates": [rack]}
    body = {"aggregates": [rack], "resource_provider_generation": 2}
    assert admin.put(f"/placement/resource_providers/{slow}/aggregates", json=body).json()["resource_provider_generation"] == 3
    assert admin.put("/placement/resource_classes/CUSTOM_GOLD").status_code == 201
    assert admin.post("/placement/resource_classes", json={"name": "CUSTOM_GOLD"}).status_code == 409
    assert admin.put("/placement/resource_classes/CUSTOM_GOLD", json={"name": "CUSTOM_AU"}, headers=at("1.6")).json()["name"] == "CUSTOM_AU"
    assert admin.delete("/placement/resource_classes/CUSTOM_AU").status_code == 204
    assert admin.delete("/placement/resource_classes/VCPU").status_code == 400

    def names(query: str) -> list[str]:
        return [each["name"] for each in admin.get(f"/placement/resource_providers?{query}").json()["resource_providers"]]

    assert names(f"member_of={rack}") == ["slow"]
    assert names("required=CUSTOM_FAST") == ["fast"]
    assert names("required=!CUSTOM_FAST&resources=DISK_GB:1") == ["slow"]
    assert names("resources=VCPU:5,DISK_GB:10") == ["slow"]

    def candidates(query: str, version: str = "1.24") -> Any:
        answer = admin.get(f"/placement/allocation_candidates?{query}", headers=at(version))
        assert answer.status_code == 200, answer.text
        return answer.json()

    found = candidates("resources=VCPU:2,DISK_GB:1")
    assert found["allocation_requests"] == [{"allocations": {each: {"resources": {"VCPU": 2, "DISK_GB": 1}}}} for each in (fast, slow)]
    assert found["provider_summaries"][fast] == {
        "resources": {"VCPU": {"capacity": 4, "used": 0}, "DISK_GB": {"capacity": 10, "used": 0}}, "traits": ["CUSTOM_FAST"]}  # fmt: skip
    assert len(candidates("resources=VCPU:2&limit=1")["allocation_requests"]) == 1
    assert candidates("resources=VCPU:99") == {"allocation_requests": [], "provider_summaries": {}}
    assert list(candidates("resources=VCPU:1&required=CUSTOM_FAST")["provider_summaries"]) == [fast]
    assert list(candidates(f"resources=VCPU:1&member_of=in:{rack}")["provider_summaries"]) == [slow]
    old = candidates("resources=DISK_GB:1", "1.10")
    assert old["allocation_requests"][0] == {"allocations": [{"resource_provider": {"uuid": fast}, "resources": {"DISK_GB": 1}}]}
    for bad in ("", "resources=VCPU", "resources=VCPU:0", "resources=NONE:1", "resources=VCPU:1&required=NONE", "resources=VCPU:1&member_of=x",
                "resources=VCPU:1&limit=0", "resources=VCPU:1&required=!CUSTOM_FAST,CUSTOM_FAST"):  # fmt: skip
        assert admin.get(f"/placement/allocation_candidates?{bad}").status_code == 400, bad


def test_many_at_once_never_pass_the_inventory(running: Running, admin: httpx.Client) -> None:
    provider_id = provider(admin, "contended", VCPU=10)
    answers: list[int] = []

    def claimer() -> None:
        with running.http(**at("1.24")) as client:
            for _ in range(6):
                answers.append(client.put(f"/placement/allocations/{uuid.uuid4()}", json=share(provider_id, VCPU=1)).status_code)

    threads = [threading.Thread(target=claimer) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers.count(204), answers.count(409)) == (10, 20)
    assert admin.get(f"/placement/resource_providers/{provider_id}/usages").json()["usages"] == {"VCPU": 10}
