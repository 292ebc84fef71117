"""What requests may say at which microversion: refused bodies name the field, and nothing is made of them."""

from typing import Any

import pytest

V = "/compute/v2.1"
NOBODY = "11111111-1111-4111-8111-111111111111"
NIC = {"uuid": NOBODY}


def send(running: Any, version: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
    answer = running.http("admin", **{"openstack-api-version": f"compute {version}"}).request(method, V + path, json=body)
    return answer.status_code, next(iter(answer.json().values()))["message"] if answer.status_code >= 400 else ""


SERVER: list[tuple[str, dict[str, Any], str]] = [
    ("2.1", {"accessIPv4": "x"}, "accessIPv4"), ("2.1", {"accessIPv4": "fe80::1"}, "accessIPv4"), ("2.1", {"accessIPv6": "1.2.3.4"}, "accessIPv6"),
    ("2.1", {"config_drive": None}, "config_drive"), ("2.1", {"config_drive": "perhaps"}, "config_drive"), ("2.1", {"key_name": None}, "key_name"),
    ("2.1", {"user_data": None}, "user_data"), ("2.1", {"user_data": "A" * 65536}, "user_data"), ("2.1", {"user_data": "YQ="}, "user_data"),
    ("2.1", {"user_data": "not base64"}, "user_data"), ("2.19", {"description": "x" * 256}, "description"),
    ("2.1", {"metadata": {"fine": "1", "wrong": 5}}, "metadata.wrong"), ("2.1", {"metadata": {"long": "x" * 256}}, "metadata.long"),
    ("2.1", {"metadata": {"a/b": "c"}}, "'a/b'"), ("2.1", {"networks": [{**NIC, "fixed_ip": "x"}]}, "fixed_ip"),
    ("2.31", {"networks": [{**NIC, "tag": "t"}]}, "tag"), ("2.37", {"networks": [{**NIC, "tag": "t"}]}, "tag"),
    ("2.41", {"networks": [{**NIC, "tag": "t"}]}, "tag"),
    ("2.1", {"block_device_mapping_v2": [{"uuid": NOBODY, "source_type": "image", "destination_type": "local", "colour": 1}]}, "colour"),
    ("2.41", {"block_device_mapping_v2": [{"uuid": NOBODY, "source_type": "image", "destination_type": "local", "tag": "t"}]}, "tag"),
    ("2.62", {"trusted_image_certificates": ["a"]}, "trusted_image_certificates"), ("2.63", {"trusted_image_certificates": []}, "trusted"),
    ("2.63", {"trusted_image_certificates": [""]}, "trusted_image_certificates"), ("2.90", {"hostname": "h"}, "hostname"),
    ("2.93", {"hostname": "a.b"}, "hostname"), ("2.94", {"hostname": "a b"}, "hostname")]  # fmt: skip


@pytest.mark.parametrize(("version", "change", "names"), SERVER)
def test_a_server_that_cannot_be_asked_for(running: Any, version: str, change: dict[str, Any], names: str) -> None:
    base = {"name": "n", "flavorRef": "nowhere", "imageRef": NOBODY} | ({"networks": "none"} if version >= "2.37" else {})
    status, told = send(running, version, "POST", "/servers", {"server": {**base, **change}})
    assert status == 400 and names in told, told
    status, told = send(running, version, "POST", "/servers", {"server": base})
    assert status == 400 and told == "Flavor nowhere could not be found.", told


@pytest.mark.parametrize(("version", "change"), [
    ("2.1", {"accessIPv4": "192.0.2.1", "accessIPv6": "fe80::1"}), ("2.1", {"config_drive": "yes"}), ("2.1", {"config_drive": "1"}),
    ("2.1", {"user_data": "A" * 65532}), ("2.32", {"networks": [{**NIC, "tag": "t"}]}), ("2.36", {"networks": [{**NIC, "tag": "t"}]}),
    ("2.42", {"networks": [{**NIC, "tag": "t"}]}), ("2.63", {"trusted_image_certificates": ["a"]}), ("2.90", {"hostname": "ab"}),
    ("2.94", {"hostname": "a.example.org"})])  # fmt: skip
def test_a_server_that_can(running: Any, version: str, change: dict[str, Any]) -> None:
    base = {"name": "n", "flavorRef": "nowhere", "imageRef": NOBODY} | ({"networks": "none"} if version >= "2.37" else {})
    assert send(running, version, "POST", "/servers", {"server": {**base, **change}}) == (400, "Flavor nowhere could not be found.")


ACTION = f"/servers/{NOBODY}/action"
OTHERS: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("2.73", "POST", ACTION, {"lock": {"locked_reason": ""}}, "locked_reason"),
    ("2.73", "POST", ACTION, {"lock": {"locked_reason": "x" * 256}}, "locked_reason"), ("2.73", "POST", ACTION, {"lock": {"why": "x"}}, "why"),
    ("2.1", "POST", ACTION, {"os-getConsoleOutput": {"length": -2}}, "length"), ("2.1", "POST", ACTION, {"resize": {"flavorRef": ""}}, "flavorRef"),
    ("2.54", "POST", ACTION, {"rebuild": {"imageRef": NOBODY, "key_name": ""}}, "key_name"),
    ("2.1", "POST", ACTION, {"rebuild": {"imageRef": NOBODY, "metadata": {"k": 1}}}, "metadata.k"),
    ("2.1", "POST", ACTION, {"createImage": {"name": "i", "metadata": {"k": 1}}}, "metadata.k"),
    ("2.1", "PUT", f"/servers/{NOBODY}", {"server": {"accessIPv4": ""}}, "accessIPv4"),
    ("2.1", "POST", f"/servers/{NOBODY}/metadata", {"metadata": {"k": None}}, "metadata.k"),
    ("2.1", "POST", f"/servers/{NOBODY}/os-interface", {"interfaceAttachment": {"net_id": NOBODY, "fixed_ips": []}}, "fixed_ips"),
    ("2.1", "POST", f"/servers/{NOBODY}/os-interface", {"interfaceAttachment": {"net_id": NOBODY, "fixed_ips": [{"ip_address": "x"}]}}, "ip_address"),
    ("2.91", "POST", "/os-keypairs", {"keypair": {"name": "a@b"}}, "name"),
    ("2.64", "POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 2}}}, "rules"),
    ("2.96", "PUT", "/os-quota-sets/x", {"quota_set": {"force": "perhaps"}}, "force"),
    ("2.53", "PUT", f"/os-services/{NOBODY}", {"status": "disabled", "disabled_reason": ""}, "disabled_reason"),
    ("2.53", "PUT", f"/os-services/{NOBODY}", {"forced_down": "perhaps"}, "forced_down"),
    ("2.1", "POST", "/flavors", {"flavor": {"name": "f", "ram": 1, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": "perhaps"}}, "is_public")]


@pytest.mark.parametrize(("version", "method", "path", "body", "names"), OTHERS)
def test_what_is_refused_elsewhere(running: Any, version: str, method: str, path: str, body: dict[str, Any], names: str) -> None:
    status, told = send(running, version, method, path, body)
    assert status == 400 and names in told, told


@pytest.mark.parametrize(("version", "query", "status"), [
    ("2.74", "/os-server-groups?colour=1", 200), ("2.75", "/os-server-groups?colour=1", 400), ("2.1", "/os-server-groups?offset=x", 400),
    ("2.52", "/os-hypervisors?colour=1", 200), ("2.53", "/os-hypervisors?colour=1", 400), ("2.1", "/flavors?sort_dir=up", 400),
    ("2.39", "/os-simple-tenant-usage?limit=x", 200), ("2.40", "/os-simple-tenant-usage?limit=x", 400),
    ("2.75", "/os-simple-tenant-usage?colour=1", 400), ("2.75", "/limits?reserved=1", 400)])  # fmt: skip
def test_query_parameters(running: Any, version: str, query: str, status: int) -> None:
    assert send(running, version, "GET", query)[0] == status


def test_a_group_without_its_rule(running: Any) -> None:
    http = running.http("admin", **{"openstack-api-version": "compute 2.64"})
    made = http.post(f"{V}/os-server-groups", json={"server_group": {"name": "g", "policy": "affinity", "rules": {}}}).json()["server_group"]
    assert (made["policy"], made["rules"]) == ("affinity", {})
    http.delete(f"{V}/os-server-groups/{made['id']}")
