"""Tags of devices: said at create and at attach, shown by os-interface and told to the guest, gone with the attachment."""

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fake_node import FakeNode, until

V = "/compute/v2.1"
WRONG = ["", "x" * 61, "a,b", "a/b", None, 5]


@pytest.fixture(scope="module")
def at(running: Any, node: FakeNode) -> Callable[[str], Any]:
    return lambda version: running.http("admin", **{"openstack-api-version": f"compute {version}"})


@pytest.fixture(scope="module")
def net(admin: Any) -> Any:
    made = admin.network.create_network(name="tagged")
    admin.network.create_subnet(network_id=made.id, ip_version=4, cidr="172.16.7.0/24")
    return made


@pytest.fixture
def body(image: Any, flavor: Any, net: Any) -> dict[str, Any]:
    root = {"boot_index": 0, "uuid": image.id, "source_type": "image", "destination_type": "local", "tag": "system"}
    nics = [{"uuid": net.id, "tag": "inner"}, {"uuid": net.id}]
    return {"name": "tagged", "flavorRef": flavor.id, "networks": nics, "block_device_mapping_v2": [root], "config_drive": True}


@pytest.fixture
def made(at: Callable[[str], Any], body: dict[str, Any], node: FakeNode) -> Iterator[SimpleNamespace]:
    server_id = at("2.96").post(f"{V}/servers", json={"server": body}).json()["server"]["id"]
    path = f"{V}/servers/{server_id}"
    until(lambda: at("2.96").get(path).json()["server"]["status"] == "ACTIVE")
    yield SimpleNamespace(path=path, nics=f"{path}/os-interface", devices=lambda: devices(node, server_id))
    at("2.96").delete(path)
    until(lambda: at("2.96").get(path).status_code == 404)


def devices(node: FakeNode, server_id: str) -> list[tuple[str, str, list[str]]]:
    told = json.loads(node.agent.source.config_drive(server_id)["openstack/latest/meta_data.json"])["devices"]
    return [(device["type"], device.get("mac") or device["path"], device["tags"]) for device in told]


def test_a_server_made_with_tags(at: Callable[[str], Any], made: SimpleNamespace, admin: Any) -> None:
    shown = at("2.70").get(made.nics).json()["interfaceAttachments"]
    assert [nic["tag"] for nic in shown] == ["inner", None]
    assert at("2.70").get(f"{made.nics}/{shown[0]['port_id']}").json()["interfaceAttachment"]["tag"] == "inner"
    assert not [nic for nic in at("2.69").get(made.nics).json()["interfaceAttachments"] if "tag" in nic]
    assert made.devices() == [("nic", shown[0]["mac_addr"], ["inner"]), ("disk", "/dev/vda", ["system"])]
    assert "device_tag" not in admin.network.get(f"/ports/{shown[0]['port_id']}").json()["port"]


def test_an_interface_attached_with_a_tag(at: Callable[[str], Any], made: SimpleNamespace, admin: Any, net: Any) -> None:
    """A port that was given is used again later: the tag is of the attachment."""
    port, before = admin.network.create_port(network_id=net.id), made.devices()
    said = {"interfaceAttachment": {"port_id": port.id, "tag": "outer"}}
    assert at("2.48").post(made.nics, json=said).status_code == 400
    answer = at("2.70").post(made.nics, json=said)
    assert (answer.status_code, answer.json()["interfaceAttachment"]["tag"]) == (200, "outer")
    until(lambda: len(at("2.96").get(made.nics).json()["interfaceAttachments"]) == 3)
    assert made.devices() == [before[0], ("nic", port.mac_address, ["outer"]), before[1]]
    until(lambda: at("2.96").delete(f"{made.nics}/{port.id}").status_code == 202)
    until(lambda: len(at("2.96").get(made.nics).json()["interfaceAttachments"]) == 2)
    assert made.devices() == before
    assert at("2.70").post(made.nics, json={"interfaceAttachment": {"port_id": port.id}}).json()["interfaceAttachment"]["tag"] is None


def test_on_the_projects_only_network(at: Callable[[str], Any], made: SimpleNamespace) -> None:
    before = made.devices()
    answer = at("2.49").post(made.nics, json={"interfaceAttachment": {"tag": "more"}})
    assert answer.status_code == 200 and "tag" not in answer.json()["interfaceAttachment"]
    assert made.devices() == [before[0], ("nic", answer.json()["interfaceAttachment"]["mac_addr"], ["more"]), before[1]]


@pytest.mark.parametrize("tag", WRONG)
def test_what_is_no_tag(at: Callable[[str], Any], made: SimpleNamespace, body: dict[str, Any], net: Any, tag: Any) -> None:
    http, root = at("2.96"), body["block_device_mapping_v2"][0]
    for change in ({"networks": [{"uuid": net.id, "tag": tag}]}, {"block_device_mapping_v2": [{**root, "tag": tag}]}):
        refused = http.post(f"{V}/servers", json={"server": {**body, **change}})
        assert refused.status_code == 400 and "tag" in refused.json()["badRequest"]["message"], refused.text
    refused = http.post(made.nics, json={"interfaceAttachment": {"net_id": net.id, "tag": tag}})
    assert refused.status_code == 400 and "tag" in refused.json()["badRequest"]["message"], refused.text
    assert len(http.get(made.nics).json()["interfaceAttachments"]) == 2 and len(http.get(f"{V}/servers").json()["servers"]) == 1


@pytest.mark.parametrize(("version", "nic", "root"), [
    ("2.31", False, False), ("2.32", True, True), ("2.33", True, False), ("2.36", True, False), ("2.37", False, False), ("2.41", False, False),
    ("2.42", True, True)])  # fmt: skip
def test_the_versions_in_which_a_create_says_them(at: Callable[[str], Any], body: dict[str, Any], version: str, nic: bool, root: bool) -> None:
    untagged, bare = [{"uuid": each["uuid"]} for each in body["networks"]], {**body["block_device_mapping_v2"][0]}
    del bare["tag"]
    for change, fine in (({"block_device_mapping_v2": [bare]}, nic), ({"networks": untagged}, root)):
        answer = at(version).post(f"{V}/servers", json={"server": {**body, **change, "flavorRef": "nowhere"}})
        told = answer.json()["badRequest"]["message"]
        assert answer.status_code == 400 and (told == "Flavor nowhere could not be found.") is fine and (fine or "tag" in told), told
