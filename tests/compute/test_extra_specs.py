"""Extra specs from 2.86 on: what is known is checked, what is an operator's own is not; before, nothing is."""

from typing import Any

import pytest

V = "/compute/v2.1"


def at(running: Any, version: str, user: str = "admin") -> Any:
    return running.http(user, **{"openstack-api-version": f"compute {version}"})


@pytest.fixture(scope="module")
def specs(running: Any) -> str:
    made = at(running, "2.96").post(f"{V}/flavors", json={"flavor": {"name": "special", "ram": 64, "vcpus": 1, "disk": 1}}).json()["flavor"]
    return f"{V}/flavors/{made['id']}/os-extra_specs"


@pytest.mark.parametrize(("name", "value"), [
    ("hw:numa_nodes", "1"), ("hw:numa_cpus.0", "0-3,^2"), ("hw:numa_mem.1", "512"), ("hw:cpu_policy", "mixed"), ("hw:mem_page_size", "2MB"),
    ("hw:mem_page_size", "large"), ("hw:boot_menu", "Yes"), ("hw:watchdog_action", "poweroff"), ("hw:tpm_version", "2.0"),
    ("hw:redirected_usb_ports", "15"), ("hw_rng:allowed", "True"), ("hw_rng:rate_bytes", "4096"), ("hw_video:ram_max_mb", "16"),
    ("quota:cpu_quota", "-1"), ("quota:vif_inbound_average", "1000"), ("quota:disk_read_iops_sec", "10"), ("quota:memory_shares_level", "low"),
    ("os:secure_boot", "required"), ("pci_passthrough:alias", "gpu:1, nic:2"), ("trait:HW_CPU_X86_AVX2", "required"),
    ("trait_RP1:CUSTOM_GOLD", "forbidden"), ("resources:VCPU", "2"), ("resources1:CUSTOM_IRON", "1"), ("accel:device_profile", "x"),
    ("aggregate_instance_extra_specs:ssd", "s== true"), ("capabilities:cpu_info:features", "<in> avx"), ("capabilities:vcpus", ">= 4"),
    ("group_policy", "none"), ("vmware:hw_version", "vmx-13"), ("colour", "anything"), ("acme:colour", "anything"), ("hw_disk:x", "y")])  # fmt: skip
def test_what_may_be(running: Any, specs: str, name: str, value: str) -> None:
    http = at(running, "2.86")
    assert http.post(specs, json={"extra_specs": {name: value}}).status_code == 200
    assert http.put(f"{specs}/{name}", json={name: value}).json() == {name: value}
    assert http.get(specs).json()["extra_specs"][name] == value
    http.delete(f"{specs}/{name}")


@pytest.mark.parametrize(("name", "value"), [
    ("hw:numa_nodes", "none"), ("hw:numa_nodes", "0"), ("hw:numa_cpus.0", "all"), ("hw:numa_cpus.x", "0"), ("hw:cpu_policy", "shard"),
    ("hw:cpu_polcy", "shared"), ("hw:mem_page_size", "huge"), ("hw:boot_menu", "maybe"), ("hw:redirected_usb_ports", "16"),
    ("hw_rng:rate_bytes", "-1"), ("hw_rng:rate", "1"), ("hw_video:ram_max_mb", "1.5"), ("quota:cpu_qouta", "1"),
    ("quota:vif_inbound_average", "fast"), ("quota:cpu_shares_level", "medium"), ("os:secure_boot", "true"),
    ("os:secureboot", "required"), ("pci_passthrough:alias", "gpu"),
    ("trait:HW_CPU_X86_AVX2", "true"), ("trait:HW_CPU_X86_AVX3", "required"), ("trait:GOLD", "required"), ("resources:VCPUS", "1"),
    ("resources:CUSTOM_IRON", "some"), ("accel:profile", "x"), ("capabilities:colour", "red"), ("group_policy", "all"),
    ("vmware:x", "y")])  # fmt: skip
def test_what_may_not_be(running: Any, specs: str, name: str, value: str) -> None:
    http = at(running, "2.86")
    before = http.get(specs).json()
    for answer in (http.post(specs, json={"extra_specs": {"fine": "1", name: value}}), http.put(f"{specs}/{name}", json={name: value})):
        assert answer.status_code == 400 and f"'{name}'" in answer.json()["badRequest"]["message"], answer.text
    assert http.get(specs).json() == before
    assert at(running, "2.85").post(specs, json={"extra_specs": {name: value}}).status_code == 200
    assert http.delete(f"{specs}/{name}").status_code == 200


@pytest.mark.parametrize("value", [None, True, ["1"], {"a": "b"}, "x" * 256])
def test_what_no_value_can_be(running: Any, specs: str, value: object) -> None:
    for version in ("2.1", "2.86"):
        answer = at(running, version).post(specs, json={"extra_specs": {"colour": value}})
        assert answer.status_code == 400 and "colour" in answer.json()["badRequest"]["message"], answer.text
        assert at(running, version).put(f"{specs}/colour", json={"colour": value}).status_code == 400
    assert at(running, "2.86").post(specs, json={"extra_specs": {"hw:numa_nodes": 2}}).json() == {"extra_specs": {"hw:numa_nodes": 2}}
    assert at(running, "2.86").get(f"{specs}/hw:numa_nodes").json() == {"hw:numa_nodes": "2"}
