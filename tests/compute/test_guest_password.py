"""A password that a guest leaves for its user: by the node API, once, for who may see the server; cleared it may come again. And /v2."""

import httpx
import pytest

from conftest import Running
from fake_node import FakeNode, until
from nacre import compute
from nacre.core.caller import System

V = "/compute/v2.1"


def left(running: Running, kind: str, scope: str, address: str, text: str) -> int:
    with running.cloud.db.write(System("req-x")) as tx:
        return compute.keep_password(tx, kind, scope, address, text)


def test_life(running: Running, admin: object, image: object, flavor: object, node: FakeNode) -> None:
    http = running.http("demo")
    network = http.post("/network/v2.0/networks", json={"network": {}}).json()["network"]["id"]
    http.post("/network/v2.0/subnets", json={"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.7.0.0/24"}})
    body = {"name": "s", "imageRef": image.id, "flavorRef": flavor.id, "networks": [{"uuid": network}]}  # type: ignore[attr-defined]
    server = http.post(f"{V}/servers", json={"server": body}).json()["server"]["id"]
    at = f"{V}/servers/{server}/os-server-password"
    assert http.get(at).json() == {"password": ""}
    until(lambda: http.get(f"{V}/servers/{server}").json()["server"]["status"] == "ACTIVE")
    address = next(iter(http.get(f"{V}/servers/{server}").json()["server"]["addresses"].values()))[0]["addr"]
    assert left(running, "network", network, "10.7.0.250", "lost") == 404
    assert [left(running, "network", network, address, text) for text in ("first", "second")] == [200, 409]
    assert http.get(at).json() == {"password": "first"}
    with running.cloud.db.read() as conn:
        files = compute.metadata(running.cloud, conn, "network", network, address)["files"]  # type: ignore[index]
    assert files["openstack/2013-10-17/password"] == files["openstack/latest/password"] == "first"
    with running.http("admin", **{"openstack-api-version": "compute 2.1"}) as other:
        assert other.get(at).status_code == 200
    assert http.delete(at).status_code == 204 and http.get(at).json() == {"password": ""}
    assert left(running, "network", network, address, "second") == 200
    assert http.delete(f"{V}/servers/{server}").status_code == 204


def test_v2_is_the_same_without_microversions(running: Running) -> None:
    versions = httpx.get(f"{running.url}/compute/").json()["versions"]
    assert [(one["id"], one["version"]) for one in versions] == [("v2.0", ""), ("v2.1", "2.96")]
    for one in versions:
        assert httpx.get(one["links"][0]["href"]).json()["version"]["links"][0] == one["links"][0]
    with running.http("demo", **{"openstack-api-version": "compute 2.96"}) as demo:
        old, new = demo.get("/compute/v2/servers/detail"), demo.get(f"{V}/servers/detail")
        assert old.status_code == new.status_code == 200 and old.headers.get("openstack-api-version") == "compute 2.1"
        assert demo.get("/compute/v2/os-security-groups").status_code == 200
        assert demo.get("/compute/v3/servers").status_code == 404


@pytest.mark.parametrize("said", ["0000:0000:0000:0000:0000:babe:220.12.22.2", "::babe:dc0c:1602"])
def test_an_address_has_one_spelling(running: Running, image: object, flavor: object, said: str) -> None:
    with running.http("demo") as http:
        body = {"name": "a", "imageRef": image.id, "flavorRef": flavor.id, "accessIPv6": said, "networks": []}  # type: ignore[attr-defined]
        server = http.post(f"{V}/servers", json={"server": body}).json()["server"]["id"]
        assert http.get(f"{V}/servers/{server}").json()["server"]["accessIPv6"] == "::babe:dc0c:1602"
        http.delete(f"{V}/servers/{server}")
