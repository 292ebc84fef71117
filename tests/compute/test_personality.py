"""Files injected by `personality`, which creates and rebuilds know before 2.57: limits, and what the guest finds on its config drive."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fake_node import FakeNode, until
from nacre.compute import tables

SERVERS = "/compute/v2.1/servers"


def file(path: str, content: bytes) -> dict[str, str]:
    return {"path": path, "contents": base64.b64encode(content).decode()}


@pytest.fixture
def http(running: Any, node: FakeNode) -> Any:
    return running.http("admin", **{"openstack-api-version": "compute 2.56"})


@pytest.fixture
def body(image: Any, flavor: Any) -> dict[str, Any]:
    return {"name": "person", "flavorRef": flavor.id, "imageRef": image.id, "networks": "none", "config_drive": True}


@pytest.fixture
def injected(http: Any, body: dict[str, Any]) -> Iterator[str]:
    files = [file("/etc/motd", b"hello\n"), file("/root/key", b"\xff\x00")]
    answer = http.post(SERVERS, json={"server": {**body, "personality": files}})
    path = f"{SERVERS}/{answer.json()['server']['id']}"
    until(lambda: http.get(path).json()["server"]["status"] == "ACTIVE")
    yield path
    http.delete(path)
    until(lambda: http.get(path).status_code == 404)


def found(node: FakeNode, path: str) -> dict[str, Any]:
    """Path in the guest -> what its config drive has for it."""
    files = node.agent.source.config_drive(path.rpartition("/")[2])
    named = json.loads(files["openstack/latest/meta_data.json"]).get("files", [])
    assert [name for name in files if name.startswith("openstack/content/")] == [f"openstack{each['content_path']}" for each in named]
    return {each["path"]: files[f"openstack{each['content_path']}"] for each in named}


def test_they_are_on_the_drive(running: Any, http: Any, injected: str, node: FakeNode) -> None:
    assert found(node, injected) == {"/etc/motd": "hello\n", "/root/key": {"base64": base64.b64encode(b"\xff\x00").decode()}}
    whole = json.loads(node.agent.source.config_drive(injected.rpartition("/")[2])["openstack/2012-08-10/meta_data.json"])
    assert whole["files"][1] == {"path": "/root/key", "content_path": "/content/0001"}
    assert "motd" not in http.get(injected).text


def test_a_rebuild_brings_its_own(http: Any, injected: str, image: Any, node: FakeNode) -> None:
    for said, after in (({"personality": [file("/new", b"n")]}, {"/new": "n"}), ({}, {})):
        assert http.post(f"{injected}/action", json={"rebuild": {"imageRef": image.id, **said}}).status_code == 202
        until(lambda: http.get(injected).json()["server"]["status"] == "ACTIVE")
        assert found(node, injected) == after


FINE = [file("x" * 255, b"x" * 10240)] * 5
OVER = [
    ([*FINE, file("a", b"a")], (403, "file limit exceeded")), ([file("x" * 256, b"")], (403, "path exceeds")),
    ([file("é" * 128, b"")], (403, "path exceeds")), ([file("a", b"x" * 10241)], (403, "content exceeds")),
    ([{"path": "a", "contents": "***"}], (400, "personality.contents")), ([{"path": "a"}], (400, "contents")), ([{"contents": ""}], (400, "path")),
    ([file("", b"")], (400, "path")), ([{**file("a", b""), "mode": 1}], (400, "mode")), ("all", (400, "personality"))]  # fmt: skip


@pytest.mark.parametrize(("files", "refusal"), OVER)
def test_what_is_refused(http: Any, injected: str, body: dict[str, Any], node: FakeNode, files: Any, refusal: tuple[int, str]) -> None:
    for answer in (http.post(SERVERS, json={"server": {**body, "personality": files}}),
                   http.post(f"{injected}/action", json={"rebuild": {"imageRef": body["imageRef"], "personality": files}})):  # fmt: skip
        assert answer.status_code == refusal[0] and refusal[1] in answer.text, answer.text
    assert len(http.get(SERVERS).json()["servers"]) == 1 and set(found(node, injected)) == {"/etc/motd", "/root/key"}


def test_as_much_as_may_be_and_a_quota_that_says_otherwise(running: Any, http: Any, admin: Any, body: dict[str, Any]) -> None:
    wanted, project = {"server": {**body, "flavorRef": "nowhere", "personality": FINE}}, admin.current_project_id
    assert "Flavor nowhere" in http.post(SERVERS, json=wanted).text
    quota = f"/compute/v2.1/os-quota-sets/{project}"
    fits = {"server": {**body, "personality": FINE}}
    assert http.put(quota, json={"quota_set": {"injected_files": 4}}).status_code == 200
    try:
        refused = http.post(SERVERS, json=fits)
    finally:
        http.delete(quota)
    assert refused.status_code == 403 and "injected_files is 4" in refused.text
    made = f"{SERVERS}/{http.post(SERVERS, json=fits).json()['server']['id']}"
    until(lambda: http.get(made).json()["server"]["status"] == "ACTIVE")
    http.delete(made)
    until(lambda: http.get(made).status_code == 404)
    with running.cloud.db.read() as conn:
        kept = tables.by_id(conn, made.rpartition("/")[2], deleted=True)
    assert kept is not None and kept.injected_files is None
