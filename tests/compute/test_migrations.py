"""Migrations by HTTP: what resizes leave, its filters and pages, at each shape; and small things of compute that Tempest found."""

from typing import Any

import httpx
import pytest

V = "/compute/v2.1"


def at(minor: int) -> dict[str, str]:
    return {"openstack-api-version": f"compute 2.{minor}"}


def status(http: httpx.Client, server: str, wanted: str) -> None:
    for _ in range(3000):
        if http.get(f"{V}/servers/{server}").json()["server"]["status"] == wanted:
            return
    raise AssertionError(f"the server is not {wanted}")


def act(http: httpx.Client, server: str, **body: Any) -> httpx.Response:
    return http.post(f"{V}/servers/{server}/action", json=body)


@pytest.fixture(scope="module")
def server(http: httpx.Client, image: Any, flavor: Any) -> str:
    body = {"name": "moving", "imageRef": image.id, "flavorRef": flavor.id, "networks": "none"}
    made = str(http.post(f"{V}/servers", json={"server": body}, headers=at(37)).json()["server"]["id"])
    status(http, made, "ACTIVE")
    return made


def test_what_resizes_leave(http: httpx.Client, demo: httpx.Client, admin: Any, server: str) -> None:
    admin.compute.create_flavor(name="m1.larger", ram=96, vcpus=1, disk=1, id="43")
    for end, after in (("revertResize", "reverted"), ("confirmResize", "confirmed")):
        assert act(http, server, resize={"flavorRef": "43"}).status_code == 202
        status(http, server, "VERIFY_RESIZE")
        newest = http.get(f"{V}/os-migrations").json()["migrations"][0]
        assert newest.items() >= {"instance_uuid": server, "status": "finished", "source_compute": "nacre-1", "dest_compute": "nacre-1"}.items()
        assert act(http, server, **{end: None}).status_code in (202, 204)
        status(http, server, "ACTIVE")
        assert http.get(f"{V}/os-migrations").json()["migrations"][0]["status"] == after
    whole = http.get(f"{V}/os-migrations", headers=at(80)).json()["migrations"]
    assert [each["status"] for each in whole] == ["confirmed", "reverted"] and {each["migration_type"] for each in whole} == {"resize"}
    assert "migration_type" not in newest and set(whole[0]) - set(newest) == {"migration_type", "uuid", "user_id", "project_id"}
    first = http.get(f"{V}/os-migrations", params={"limit": 1}, headers=at(59)).json()
    following = httpx.URL(first["migrations_links"][0]["href"])
    assert [each["uuid"] for each in http.get(following, headers=at(59)).json()["migrations"]] == [whole[1]["uuid"]]
    assert [each["status"] for each in http.get(f"{V}/os-migrations", params={"status": "reverted"}).json()["migrations"]] == ["reverted"]
    assert http.get(f"{V}/os-migrations", params={"host": "nobody"}).json()["migrations"] == []
    assert http.get(f"{V}/os-migrations", params={"changes-since": "2999-01-01T00:00:00Z"}, headers=at(59)).json()["migrations"] == []
    for query, version in (({"marker": "nobody"}, 59), ({"changes-before": "2999-01-01T00:00:00Z"}, 59), ({"user_id": "x"}, 66)):
        assert http.get(f"{V}/os-migrations", params=query, headers=at(version)).status_code == 400
    assert demo.get(f"{V}/os-migrations").status_code == 403
    assert http.get(f"{V}/servers/{server}/migrations", headers=at(23)).json() == {"migrations": []}


def test_backups_by_http(http: httpx.Client, server: str) -> None:
    wanted = {"name": "b", "backup_type": "daily", "rotation": 1}
    made = http.post(f"{V}/servers/{server}/action", json={"createBackup": wanted}, headers=at(45))
    assert made.status_code == 202 and made.json()["image_id"]
    status(http, server, "ACTIVE")
    for _ in range(3000):
        if http.get(f"{V}/servers/{server}").json()["server"]["OS-EXT-STS:task_state"] is None:
            break
    old = act(http, server, createBackup=wanted)
    assert old.status_code == 202 and "/image/images/" in old.headers["location"]
    for wrong in ({"rotation": -1}, {"rotation": "many"}, {"name": ""}, {"colour": "red"}):
        assert act(http, server, createBackup=wanted | wrong).status_code == 400


def test_a_private_flavor_is_nobodys_yet(http: httpx.Client, demo: httpx.Client) -> None:
    body = {"name": "own", "ram": 64, "vcpus": 1, "disk": 1, "id": "77", "os-flavor-access:is_public": False}
    assert http.post(f"{V}/flavors", json={"flavor": body}).status_code == 200
    assert http.get(f"{V}/flavors/77/os-flavor-access").json() == {"flavor_access": []}
    assert demo.post(f"{V}/flavors/77/action", json={"addTenantAccess": {"tenant": "x"}}).status_code == 403
    assert demo.post(f"{V}/flavors/77/action", json={"removeTenantAccess": {"tenant": "x"}}).status_code == 403


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "os-simple-tenant-usage/"), ("DELETE", "os-security-groups/"), ("DELETE", "images/"), ("DELETE", "servers/")])  # fmt: skip
def test_an_id_that_is_empty(http: httpx.Client, method: str, path: str) -> None:
    assert http.request(method, f"{V}/{path}").status_code == 404
    assert http.get(f"{V}/").status_code == 200


def test_extensions_have_their_names(http: httpx.Client) -> None:
    assert "Hosts" in {each["name"] for each in http.get(f"{V}/extensions").json()["extensions"]}


def test_groups_as_they_were_written(demo: httpx.Client) -> None:
    group = demo.post(f"{V}/os-security-groups", json={"security_group": {"name": " a b ", "description": " d "}}).json()["security_group"]
    assert (group["name"], group["description"]) == (" a b ", " d ")
    rule = {"parent_group_id": group["id"], "ip_protocol": "tcp", "from_port": 22, "to_port": 22, "cidr": "10.2.3.124/24"}
    made = demo.post(f"{V}/os-security-group-rules", json={"security_group_rule": rule}).json()["security_group_rule"]
    assert made["ip_range"] == {"cidr": "10.2.3.124/24"}
    wrong = demo.post(f"{V}/os-security-group-rules", json={"security_group_rule": rule | {"parent_group_id": "nonsense"}})
    assert (wrong.status_code, "parent_group_id" in wrong.text) == (400, True)


def test_a_group_for_a_guest_that_is_rescued(http: httpx.Client, image: Any, flavor: Any) -> None:
    network = http.post("/network/v2.0/networks", json={"network": {"name": "n"}}).json()["network"]["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "172.16.90.0/24"}
    assert http.post("/network/v2.0/subnets", json={"subnet": subnet}).status_code == 201
    body = {"name": "sick", "imageRef": image.id, "flavorRef": flavor.id, "networks": [{"uuid": network}]}
    server = http.post(f"{V}/servers", json={"server": body}).json()["server"]["id"]
    status(http, server, "ACTIVE")
    assert act(http, server, rescue=None).status_code == 200
    status(http, server, "RESCUE")
    assert http.post("/network/v2.0/security-groups", json={"security_group": {"name": "more"}}).status_code == 201
    assert act(http, server, addSecurityGroup={"name": "more"}).status_code == 202
    assert act(http, server, removeSecurityGroup={"name": "more"}).status_code == 202
