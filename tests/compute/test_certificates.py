"""Trusted image certificates: kept with the server, shown since 2.63, changed by a rebuild that says so."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fake_node import FakeNode, until

SERVERS = "/compute/v2.1/servers"


@pytest.fixture
def http(running: Any, node: FakeNode) -> Any:
    return running.http("admin", **{"openstack-api-version": "compute 2.96"})


@pytest.fixture
def body(image: Any, flavor: Any) -> dict[str, Any]:
    return {"name": "signed", "flavorRef": flavor.id, "imageRef": image.id, "networks": "none"}


@pytest.fixture
def signed(http: Any, body: dict[str, Any]) -> Iterator[str]:
    made = http.post(SERVERS, json={"server": {**body, "trusted_image_certificates": ["one", "two"]}}).json()["server"]
    address = f"{SERVERS}/{made['id']}"
    until(lambda: http.get(address).json()["server"]["status"] == "ACTIVE")
    yield address
    http.delete(address)
    until(lambda: http.get(address).status_code == 404)


def test_they_are_shown(running: Any, http: Any, signed: str) -> None:
    assert http.get(signed).json()["server"]["trusted_image_certificates"] == ["one", "two"]
    assert [each["trusted_image_certificates"] for each in http.get(f"{SERVERS}/detail").json()["servers"]] == [["one", "two"]]
    assert http.put(signed, json={"server": {"name": "renamed"}}).json()["server"]["trusted_image_certificates"] == ["one", "two"]
    assert "trusted_image_certificates" not in running.http("admin", **{"openstack-api-version": "compute 2.62"}).get(signed).json()["server"]


@pytest.mark.parametrize(("said", "after"), [
    ({}, ["one", "two"]), ({"trusted_image_certificates": ["three"]}, ["three"]), ({"trusted_image_certificates": None}, None)])  # fmt: skip
def test_a_rebuild_keeps_changes_or_unsets_them(http: Any, signed: str, image: Any, said: dict[str, Any], after: Any) -> None:
    answer = http.post(f"{signed}/action", json={"rebuild": {"imageRef": image.id, **said}})
    assert (answer.status_code, answer.json()["server"]["trusted_image_certificates"]) == (202, after)
    until(lambda: http.get(signed).json()["server"]["status"] == "ACTIVE")
    assert http.get(signed).json()["server"]["trusted_image_certificates"] == after


@pytest.mark.parametrize("wrong", [[], [""], ["x" * 256], ["same", "same"], [str(n) for n in range(51)], "one", [1], {}])
def test_what_is_no_list_of_certificates(http: Any, body: dict[str, Any], signed: str, image: Any, wrong: Any) -> None:
    said = {"trusted_image_certificates": wrong}
    for answer in (http.post(SERVERS, json={"server": {**body, **said}}),
                   http.post(f"{signed}/action", json={"rebuild": {"imageRef": image.id, **said}})):  # fmt: skip
        assert answer.status_code == 400 and "trusted_image_certificates" in answer.json()["badRequest"]["message"], answer.text
    assert len(http.get(SERVERS).json()["servers"]) == 1
    assert http.get(signed).json()["server"]["trusted_image_certificates"] == ["one", "two"]


@pytest.mark.parametrize("rule", ["create", "rebuild"])
def test_each_has_its_rule(running: Any, http: Any, body: dict[str, Any], signed: str, image: Any, rule: str) -> None:
    folder = running.cloud.home.reach / "policy"
    folder.mkdir(exist_ok=True)
    said = {"trusted_image_certificates": ["three"]}
    asked = {"create": (SERVERS, {"server": {**body, **said}}), "rebuild": (f"{signed}/action", {"rebuild": {"imageRef": image.id, **said}})}
    (folder / "compute.yaml").write_text(f'"os_compute_api:servers:{rule}:trusted_certs": "!"\n')
    try:
        time.sleep(2.5)  # an override is taken up
        refused = http.post(asked[rule][0], json=asked[rule][1])
    finally:
        (folder / "compute.yaml").unlink()
        time.sleep(2.5)
    assert refused.status_code == 403 and f"os_compute_api:servers:{rule}:trusted_certs" in refused.text, refused.text
    assert http.get(signed).json()["server"]["trusted_image_certificates"] == ["one", "two"]
    assert len(http.get(SERVERS).json()["servers"]) == 1
