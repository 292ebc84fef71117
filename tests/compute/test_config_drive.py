"""Who has a config drive, and which host may know what is on it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_node import FakeNode, until
from nacre.node.deadline import NodeError

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def made(admin: Any) -> Iterator[list[str]]:
    ids: list[str] = []
    yield ids
    for server_id in ids:
        admin.compute.delete_server(server_id, ignore_missing=True)
    until(lambda: not [server for server in admin.compute.servers() if server.id in ids])


def create(admin: Any, made: list[str], image: Any, flavor: Any, **values: Any) -> Any:
    server = admin.compute.create_server(**{"name": "drive", "image_id": image.id, "flavor_id": flavor.id, "networks": "none", **values})
    made.append(server.id)
    until(lambda: admin.compute.get_server(server.id).status == "ACTIVE")
    return admin.compute.get_server(server.id)


def has_drive(node: FakeNode, server: Any) -> bool:
    return node.hypervisor._guests[server.id].spec.config_drive


def test_a_drive_that_was_asked_for(running: Any, made: list[str], image: Any, flavor: Any, node: FakeNode, tmp_path: Path) -> None:
    admin = running.connect("admin")
    wanted = {"config_drive": True, "user_data": base64.b64encode(b"\xff\x00").decode(), "metadata": {"a": "b"}}
    server = create(admin, made, image, flavor, **wanted)
    assert server.has_config_drive == "True" and has_drive(node, server)
    files = node.agent.source.config_drive(server.id)
    whole = json.loads(files["openstack/latest/meta_data.json"])
    assert whole["uuid"] == server.id and whole["meta"] == {"a": "b"} and whole["hostname"] == "drive.novalocal"
    assert files["ec2/latest/user-data"] == {"base64": base64.b64encode(b"\xff\x00").decode()}
    assert json.loads(files["ec2/2009-04-04/meta-data.json"])["instance-type"] == "m1.nano"
    http = running.http("admin", **{"openstack-api-version": "compute 2.96"})
    assert [s["id"] for s in http.get(f"{SERVERS}?config_drive=true").json()["servers"]] == [server.id]
    other = FakeNode(node.cloud, "nacre-other", tmp_path)
    other._thread.start()
    until(lambda: other._server.started)
    try:
        with pytest.raises(NodeError, match=f"there is no config drive for server {server.id}"):
            other.agent.source.config_drive(server.id)
    finally:
        other._server.should_exit = True
        other._thread.join(10)
    admin.compute.delete_server(server.id)
    until(lambda: http.get(f"{SERVERS}?config_drive=true").json() == {"servers": []})
    with pytest.raises(NodeError, match=f"there is no config drive for server {server.id}"):
        node.agent.source.config_drive(server.id)


def test_a_server_without_one_has_none(admin: Any, made: list[str], image: Any, flavor: Any, node: FakeNode) -> None:
    server = create(admin, made, image, flavor)
    assert not server.has_config_drive and not has_drive(node, server)
    for nothing in (server.id, "no-such-server", "../metadata"):
        with pytest.raises(NodeError, match="there is no config drive"):
            node.agent.source.config_drive(nothing)


def test_an_image_may_demand_it(admin: Any, made: list[str], image: Any, flavor: Any, node: FakeNode) -> None:
    plain = create(admin, made, image, flavor)
    admin.image.update_image(image, img_config_drive="mandatory")
    try:
        server = create(admin, made, image, flavor)
        assert server.has_config_drive == "True" and has_drive(node, server)
        admin.compute.rebuild_server(plain.id, image=image.id)
        until(lambda: has_drive(node, plain) and admin.compute.get_server(plain.id).status == "ACTIVE")
        assert admin.compute.get_server(plain.id).has_config_drive == "True"
        admin.image.update_image(image, img_config_drive="optional")
        assert not create(admin, made, image, flavor).has_config_drive
    finally:
        admin.image.update_image(image, img_config_drive="optional")


def test_the_operator_may_force_it(admin: Any, made: list[str], image: Any, flavor: Any, node: FakeNode, running: Any) -> None:
    before = running.cloud.config
    running.cloud.config = msgspec.structs.replace(before, DEFAULT=msgspec.structs.replace(before.DEFAULT, force_config_drive=True))
    try:
        server = create(admin, made, image, flavor, config_drive=False)
    finally:
        running.cloud.config = before
    assert server.has_config_drive == "True" and has_drive(node, server)


def test_user_data_over_64_kb_is_refused(running: Any, admin: Any, made: list[str], image: Any, flavor: Any) -> None:
    http = running.http("admin", **{"openstack-api-version": "compute 2.96"})
    server = create(admin, made, image, flavor, user_data="QUFB")
    too_much = base64.b64encode(b"x" * 49152).decode()
    assert len(too_much) == 65536
    body = {"name": "x", "flavorRef": flavor.id, "imageRef": image.id, "networks": "none", "user_data": too_much}
    refused = [http.post(SERVERS, json={"server": body}),
               http.post(f"{SERVERS}/{server.id}/action", json={"rebuild": {"imageRef": image.id, "user_data": too_much}})]  # fmt: skip
    for answer in refused:
        assert answer.status_code == 400 and "user_data" in answer.json()["badRequest"]["message"], answer.text[:300]
    assert http.get(f"{SERVERS}/{server.id}").json()["server"]["OS-EXT-SRV-ATTR:user_data"] == "QUFB"
    assert [s.name for s in admin.compute.servers()] == ["drive"]
