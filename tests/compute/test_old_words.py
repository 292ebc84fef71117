"""What compute shows of other services until 2.35: images, networks, floating IPs; of hosts until 2.42; and where each ends."""

from typing import Any

import httpx
import pytest

V = "/compute/v2.1"


@pytest.mark.parametrize(("path", "last"), [
    ("images", 35), ("images/detail", 35), ("os-networks", 35), ("os-tenant-networks", 35), ("os-floating-ips", 35), ("os-floating-ip-pools", 35),
    ("os-hosts", 42)])  # fmt: skip
def test_where_each_ends(http: httpx.Client, path: str, last: int) -> None:
    for minor, status in ((last, 200), (last + 1, 404)):
        assert http.get(f"{V}/{path}", headers={"openstack-api-version": f"compute 2.{minor}"}).status_code == status


def test_images(http: httpx.Client, demo: httpx.Client, image: Any) -> None:
    listed = demo.get(f"{V}/images", params={"status": "ACTIVE", "name": "cirros"}).json()["images"]
    assert [each["id"] for each in listed] == [image.id] and {link["rel"] for link in listed[0]["links"]} == {"self", "bookmark", "alternate"}
    assert demo.get(f"{V}/images", params={"type": "snapshot"}).json()["images"] == []
    assert demo.get(f"{V}/images", params={"server": "http://x/servers/nobody"}).json()["images"] == []
    shown = demo.get(f"{V}/images/{image.id}").json()["image"]
    assert shown.items() >= {"status": "ACTIVE", "progress": 100, "minRam": 0, "minDisk": 0, "OS-EXT-IMG-SIZE:size": 4096}.items()
    following = http.get(f"{V}/images/detail", params={"limit": 1}).json()
    assert len(following["images"]) == 1
    assert demo.get(f"{V}/images/nobody").json()["itemNotFound"]["message"] == "Image not found."
    assert demo.delete(f"{V}/images/{image.id}").status_code in (403, 404)


def test_metadata_of_images(http: httpx.Client) -> None:
    made = http.post("/image/v2/images", json={"name": "mine", "disk_format": "raw", "container_format": "bare"}).json()["id"]
    path = f"{V}/images/{made}/metadata"
    assert http.post(path, json={"metadata": {"a": "1", "b": "2"}}).json()["metadata"] == {"a": "1", "b": "2"}
    assert http.post(path, json={"metadata": {"b": "3"}}).json()["metadata"] == {"a": "1", "b": "3"}
    assert http.put(path, json={"metadata": {"c": "4"}}).json()["metadata"] == {"c": "4"}
    assert http.put(f"{path}/d", json={"meta": {"d": "5"}}).json() == {"meta": {"d": "5"}}
    assert http.put(f"{path}/d", json={"meta": {"e": "5"}}).status_code == 400
    assert http.get(f"{path}/d").json() == {"meta": {"d": "5"}}
    assert http.delete(f"{path}/c").status_code == 204
    assert http.delete(f"{path}/c").status_code == 404
    assert http.get(path).json() == {"metadata": {"d": "5"}}
    assert http.post(path, json={"metadata": {f"k{n}": "v" for n in range(129)}}).status_code == 403
    assert http.get(f"{V}/images/{made}").json()["image"]["status"] == "SAVING"
    assert http.delete(f"{V}/images/{made}").status_code == 204
    assert http.get(f"{V}/images/{made}").status_code == 404


def test_networks_and_floating_ips(http: httpx.Client, demo: httpx.Client) -> None:
    outside = {"name": "outside", "router:external": True, "provider:network_type": "flat", "provider:physical_network": "external"}
    external = http.post("/network/v2.0/networks", json={"network": outside}).json()["network"]["id"]
    subnet = {"network_id": external, "ip_version": 4, "cidr": "198.51.100.0/29", "enable_dhcp": False}
    assert http.post("/network/v2.0/subnets", json={"subnet": subnet}).status_code == 201
    mine = demo.post("/network/v2.0/networks", json={"network": {"name": "mine"}}).json()["network"]["id"]
    assert demo.get(f"{V}/os-tenant-networks").json() == {"networks": [{"id": mine, "label": "mine", "cidr": "None"}]}
    assert {each["label"] for each in http.get(f"{V}/os-networks").json()["networks"]} >= {"outside", "mine"}
    assert demo.get(f"{V}/os-networks/{mine}").json()["network"].items() >= {"id": mine, "label": "mine", "cidr": None}.items()
    assert demo.get(f"{V}/os-networks/nobody").status_code == 404

    assert demo.get(f"{V}/os-floating-ip-pools").json() == {"floating_ip_pools": [{"name": "outside"}]}
    assert demo.post(f"{V}/os-floating-ips", json={"pool": "nowhere"}).status_code == 404
    made = demo.post(f"{V}/os-floating-ips", json={"pool": "outside"}).json()["floating_ip"]
    assert made.items() >= {"pool": "outside", "fixed_ip": None, "instance_id": None}.items() and made["ip"].startswith("198.51.100.")
    assert demo.get(f"{V}/os-floating-ips").json() == {"floating_ips": [made]}
    assert demo.get(f"{V}/os-floating-ips/{made['id']}").json() == {"floating_ip": made}
    for _ in range(4):
        assert demo.post(f"{V}/os-floating-ips", json={"pool": external}).status_code == 200
    full = demo.post(f"{V}/os-floating-ips", json={"pool": None})
    assert (full.status_code, full.json()["itemNotFound"]["message"]) == (404, "No more floating IPs in pool outside.")
    assert http.get(f"{V}/os-floating-ips").json() == {"floating_ips": []}
    assert demo.delete(f"{V}/os-floating-ips/{made['id']}").status_code == 202
    assert demo.delete(f"{V}/os-floating-ips/{made['id']}").status_code == 404


def test_hosts(http: httpx.Client, demo: httpx.Client) -> None:
    listed = http.get(f"{V}/os-hosts").json()["hosts"]
    assert {"host_name": "nacre-1", "service": "compute", "zone": "nova"} in listed and len(listed) == 3
    assert [each["host_name"] for each in http.get(f"{V}/os-hosts", params={"zone": "nova"}).json()["hosts"]] == ["nacre-1"]
    shown = [each["resource"] for each in http.get(f"{V}/os-hosts/nacre-1").json()["host"]]
    assert [each["project"] for each in shown] == ["(total)", "(used_now)", "(used_max)"] and {each["host"] for each in shown} == {"nacre-1"}
    assert http.put(f"{V}/os-hosts/nacre-1", json={"status": "disable"}).json() == {"host": "nacre-1", "status": "disabled"}
    assert http.put(f"{V}/os-hosts/nacre-1", json={"status": "enable"}).json() == {"host": "nacre-1", "status": "enabled"}
    for body, status in (({"status": "x"}, 400), ({}, 400), ({"maintenance_mode": "enable"}, 501)):
        assert http.put(f"{V}/os-hosts/nacre-1", json=body).status_code == status
    for path, status in (("nobody/reboot", 404), ("nacre-1/reboot", 501), ("nobody", 404)):
        assert http.get(f"{V}/os-hosts/{path}").status_code == status
        assert demo.get(f"{V}/os-hosts/{path}").status_code == 403


def test_usage_by_period_is_not_written(http: httpx.Client, demo: httpx.Client) -> None:
    shown = http.get(f"{V}/os-instance_usage_audit_log/2026-03-31 12:00:00").json()["instance_usage_audit_log"]
    assert (shown["period_beginning"], shown["period_ending"]) == ("2026-02-01 00:00:00", "2026-03-01 00:00:00")
    assert (shown["hosts_not_run"], shown["overall_status"]) == (["nacre-1"], "0 of 1 hosts done. 0 errors.")
    assert http.get(f"{V}/os-instance_usage_audit_log").json()["instance_usage_audit_logs"]["num_hosts"] == 1
    assert http.get(f"{V}/os-instance_usage_audit_log/yesterday").status_code == 400
    assert demo.get(f"{V}/os-instance_usage_audit_log").status_code == 403


def test_limits_of_everybody(http: httpx.Client, demo: httpx.Client) -> None:
    path = f"{V}/os-quota-class-sets/default"
    assert http.get(path).json()["quota_class_set"].items() >= {"id": "default", "cores": 20}.items()
    assert http.put(path, json={"quota_class_set": {"cores": 21}}).json()["quota_class_set"]["cores"] == 21
    assert demo.get(f"{V}/limits").json()["limits"]["absolute"]["maxTotalCores"] == 21
    assert "floating_ips" not in http.get(path, headers={"openstack-api-version": "compute 2.50"}).json()["quota_class_set"]
    assert http.put(path, json={"quota_class_set": {"cores": 20}}).status_code == 200
    assert http.put(path, json={"quota_class_set": {"pears": 20}}).status_code == 400
    assert http.put(f"{V}/os-quota-class-sets/other", json={"quota_class_set": {"cores": 20}}).status_code == 400
    assert demo.get(path).status_code == 403


def test_actions_that_do_nothing(http: httpx.Client, image: Any, flavor: Any) -> None:
    body = {"name": "idle", "imageRef": image.id, "flavorRef": flavor.id, "networks": "none"}
    made = http.post(f"{V}/servers", json={"server": body}, headers={"openstack-api-version": "compute 2.37"}).json()["server"]["id"]
    while http.get(f"{V}/servers/{made}").json()["server"]["status"] != "ACTIVE":
        pass
    for action, status in (("injectNetworkInfo", 202), ("resetNetwork", 202), ("restore", 409)):
        assert http.post(f"{V}/servers/{made}/action", json={action: None}).status_code == status


def test_diagnostics(http: httpx.Client, demo: httpx.Client, image: Any, flavor: Any) -> None:
    body = {"name": "measured", "imageRef": image.id, "flavorRef": flavor.id, "networks": "none"}
    made = http.post(f"{V}/servers", json={"server": body}, headers={"openstack-api-version": "compute 2.37"}).json()["server"]["id"]
    while http.get(f"{V}/servers/{made}").json()["server"]["status"] != "ACTIVE":
        pass
    old = http.get(f"{V}/servers/{made}/diagnostics").json()
    assert old.items() >= {"cpu0_time": 0, "memory": 65536, "vda_read": 0, "vda_write_req": 0}.items()
    new = http.get(f"{V}/servers/{made}/diagnostics", headers={"openstack-api-version": "compute 2.48"}).json()
    assert (new["state"], new["driver"], new["num_cpus"], new["num_nics"], new["num_disks"]) == ("running", "libvirt", 1, 0, 1)
    assert new["memory_details"] == {"maximum": 64, "used": 64} and new["uptime"] >= 0
    assert demo.get(f"{V}/servers/{made}/diagnostics").status_code == 404
    http.post(f"{V}/servers/{made}/action", json={"os-stop": None})
    while http.get(f"{V}/servers/{made}").json()["server"]["status"] != "SHUTOFF":
        pass
    assert http.get(f"{V}/servers/{made}/diagnostics").status_code == 409

    path, nobody = f"{V}/os-server-external-events", "00000000-0000-4000-8000-000000000000"
    known, unknown = ({"name": "network-changed", "server_uuid": server} for server in (made, nobody))
    for events, status in (([known], 200), ([known, unknown], 207), ([unknown], 404), ([{**known, "name": "power-update"}], 400), ([], 400)):
        assert http.post(path, json={"events": events}).status_code == status
    assert http.post(path, json={"events": [known]}).json() == {"events": [{**known, "status": "completed", "code": 200}]}
    assert demo.post(path, json={"events": [known]}).status_code == 403


def test_a_certificate_is_made(http: httpx.Client) -> None:
    made = http.post(f"{V}/os-keypairs", json={"keypair": {"name": "windows", "type": "x509"}}, headers={"openstack-api-version": "compute 2.2"})
    pair = made.json()["keypair"]
    assert made.status_code == 201 and pair["public_key"].startswith("-----BEGIN CERTIFICATE-----") and "PRIVATE KEY" in pair["private_key"]
    assert len(pair["fingerprint"].split(":")) == 20
