"""What a guest reads about itself."""

import base64
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nacre.compute import vendordata
from nacre.compute.metadata import EC2, OPENSTACK, Guest, config_drive, files
from nacre.core.config import Api, Config
from nacre.network import Port
from nacre.node.metadata_child import page

PORT = Port(id="p1", network_id="n1", network_name="net", mac_address="fa:16:3e:00:00:01", tap="tapp1", mtu=1450,
            fixed_ips=({"ip_address": "172.16.1.5", "subnet_id": "s1"},), floating_ips={"172.16.1.5": "172.24.4.9"}, status="ACTIVE",
            security_groups=("default",), admin_state_up=True, device_id="x")  # fmt: skip
SUBNETS = {"s1": {"ip_version": 4, "cidr": "172.16.1.0/24", "gateway_ip": "172.16.1.1", "enable_dhcp": True, "dns_nameservers": [], "host_routes": [],
                  "ipv6_address_mode": None}}  # fmt: skip


def guest(*ports: Port, subnets: Any = SUBNETS, vendor: Any = None, **values: Any) -> Guest:
    return Guest(row(**values), ports, subnets, vendor or {})


def row(**values: Any) -> Any:
    return SimpleNamespace(**{
        "id": "uuid-1", "number": 26, "name": "my server", "hostname": "my-server", "launch_index": 0, "availability_zone": "nova",
        "meta": {"a": "b"},
        "key": {"name": "mykey", "type": "ssh", "data": "ssh-rsa AAA"}, "seed": "s", "project_id": "proj", "user_data": None, "image_id": "img",
        "flavor": {"name": "m1.nano", "swap_mb": 8}, "reservation_id": "r-1", "root_device_name": "/dev/vda",
        "root_device_tag": None, "guest_password": None, "injected_files": None, **values})  # fmt: skip


def test_openstack_files() -> None:
    found = files(guest(PORT, user_data=base64.b64encode(b"#!/bin/sh\n").decode()))
    whole = json.loads(found["openstack/latest/meta_data.json"])
    assert whole["uuid"] == "uuid-1" and whole["hostname"] == "my-server.novalocal" and whole["name"] == "my server"
    assert whole["public_keys"] == {"mykey": "ssh-rsa AAA"} and whole["keys"] == [{"name": "mykey", "type": "ssh", "data": "ssh-rsa AAA"}]
    assert whole["meta"] == {"a": "b"} and whole["project_id"] == "proj" and whole["devices"] == [] and whole["launch_index"] == 0
    assert len(base64.b64decode(whole["random_seed"])) == 512
    assert found["openstack/latest/user_data"] == "#!/bin/sh\n"
    assert json.loads(found["openstack/latest/vendor_data2.json"]) == {"static": {}}
    network = json.loads(found["openstack/latest/network_data.json"])
    assert network["links"] == [{"id": "tapp1", "vif_id": "p1", "type": "ovs", "mtu": 1450, "ethernet_mac_address": "fa:16:3e:00:00:01"}]
    assert network["networks"][0]["type"] == "ipv4_dhcp"
    assert "openstack/2012-08-10/network_data.json" not in found and "project_id" not in json.loads(found["openstack/2013-04-04/meta_data.json"])
    assert {name.split("/")[1] for name in found if name.startswith("openstack/")} == set(OPENSTACK)


def test_devices_with_a_tag_are_listed() -> None:
    other = replace(PORT, id="p2", mac_address="fa:16:3e:00:00:02", device_tag="inner")
    listed = {version: json.loads(found).get("devices") for version in OPENSTACK for name, found in files(guest(PORT, other)).items()
              if name == f"openstack/{version}/meta_data.json"}  # fmt: skip
    nic = {"type": "nic", "bus": "none", "address": "none", "mac": "fa:16:3e:00:00:02", "tags": ["inner"]}
    assert listed["2015-10-15"] is None and listed["2016-06-30"] == listed["2017-02-22"] == [nic]
    assert listed["2018-08-27"] == listed["latest"] == [{**nic, "vf_trusted": False}]
    whole = json.loads(config_drive(guest(PORT, root_device_tag="system"))["openstack/latest/meta_data.json"])
    assert whole["devices"] == [{"type": "disk", "bus": "none", "address": "none", "path": "/dev/vda", "tags": ["system"]}]


def test_user_data_that_is_no_text_is_not_damaged() -> None:
    raw = b"\x1f\x8b\x08\x00\xff\xfe"
    found = files(guest(PORT, user_data=base64.b64encode(raw).decode()))
    assert page(found, "openstack/latest/user_data") == page(found, "latest/user-data") == raw


def test_ec2_files() -> None:
    found = files(guest(PORT))
    for version in EC2:
        assert found[f"{version}/meta-data/instance-id"] == "i-0000001a"
    assert page(found, "/").split() == list(EC2), "OpenStack's tree is not listed"  # type: ignore[union-attr]
    assert page(found, "2009-04-04/meta-data/") == (
        "ami-id\nami-launch-index\nami-manifest-path\nblock-device-mapping/\nhostname\ninstance-action\ninstance-id\ninstance-type\nlocal-hostname\n"
        "local-ipv4\nplacement/\npublic-hostname\npublic-ipv4\npublic-keys/\nreservation-id\nsecurity-groups")  # fmt: skip
    assert page(found, "1.0/meta-data") == ("ami-id\nami-launch-index\nami-manifest-path\nhostname\ninstance-id\nlocal-ipv4\npublic-keys/\n"
                                            "reservation-id\nsecurity-groups")  # fmt: skip
    assert page(found, "latest/meta-data/public-keys") == "0=mykey" and page(found, "latest/meta-data/public-keys/0/") == "openssh-key"
    assert page(found, "latest/meta-data/block-device-mapping") == "ami\nroot\nswap"
    assert found["latest/meta-data/block-device-mapping/swap"] == "/dev/vdb" and found["latest/meta-data/block-device-mapping/ami"] == "vda"
    assert found["2009-04-04/meta-data/local-ipv4"] == "172.16.1.5" and found["latest/meta-data/public-ipv4"] == "172.24.4.9"
    assert found["latest/meta-data/public-keys/"] == "0=mykey" and found["latest/meta-data/public-keys/0/openssh-key"] == "ssh-rsa AAA"
    assert found["latest/meta-data/placement/availability-zone"] == "nova" and found["latest/meta-data/security-groups"] == "default"
    assert "latest/user-data" not in found


def test_the_same_guest_always_reads_the_same() -> None:
    assert files(guest(PORT)) == files(guest(PORT))
    assert files(guest(PORT, seed="other")) != files(guest(PORT))


def test_a_guest_without_key_or_port() -> None:
    found = files(guest(key=None, meta={}))
    whole = json.loads(found["openstack/latest/meta_data.json"])
    assert "public_keys" not in whole and "meta" not in whole
    assert found["latest/meta-data/local-ipv4"] == "" and not [name for name in found if "public-keys" in name]


def subnet(version: int, cidr: str, **values: Any) -> dict[str, Any]:
    return {"ip_version": version, "cidr": cidr, "gateway_ip": None, "enable_dhcp": False, "dns_nameservers": [], "host_routes": [],
            "ipv6_address_mode": None, **values}  # fmt: skip


def test_network_data_says_what_dhcp_does_not() -> None:
    subnets = {
        "a": subnet(4, "10.0.0.0/23", gateway_ip="10.0.0.1", dns_nameservers=["9.9.9.9"],
                    host_routes=[{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}]),
        "b": subnet(4, "10.1.0.0/24", enable_dhcp=True),
        "c": subnet(6, "2001:db8::/64", enable_dhcp=True, ipv6_address_mode="slaac", gateway_ip="2001:db8::1", dns_nameservers=["2001:db8::53"]),
        "d": subnet(6, "2001:db8:1::/64", enable_dhcp=True, ipv6_address_mode="dhcpv6-stateful"),
        "e": subnet(6, "2001:db8:2::/64"),
    }  # fmt: skip
    addresses = [("10.0.1.5", "a"), ("10.1.0.7", "b"), ("2001:db8::5", "c"), ("2001:db8:1::5", "d"), ("2001:db8:2::5", "e")]
    fixed = tuple({"ip_address": address, "subnet_id": id_} for address, id_ in addresses)
    ports = [replace(PORT, fixed_ips=fixed), replace(PORT, id="p2", tap="tapp2", fixed_ips=fixed[1:2]), replace(PORT, id="p3", fixed_ips=())]
    found = json.loads(config_drive(guest(*ports, subnets=subnets))["openstack/latest/network_data.json"])
    assert [link["id"] for link in found["links"]] == ["tapp1", "tapp2"], "a port without an address is no link"
    dns, dns6 = {"type": "dns", "address": "9.9.9.9"}, {"type": "dns", "address": "2001:db8::53"}
    full = "ffff:ffff:ffff:ffff::"
    common = {"link": "tapp1", "network_id": "n1"}
    assert found["networks"] == [
        {**common, "id": "network0", "type": "ipv4", "ip_address": "10.0.1.5", "netmask": "255.255.254.0", "services": [dns],
         "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
                    {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.9"}]},
        {**common, "id": "network1", "type": "ipv6_slaac", "ip_address": "2001:db8::5", "netmask": full, "services": [dns6],
         "routes": [{"network": "::", "netmask": "::", "gateway": "2001:db8::1"}]},
        {**common, "id": "network2", "type": "ipv6_dhcpv6-stateful", "ip_address": "2001:db8:1::5", "netmask": full, "services": [], "routes": []},
        {**common, "id": "network3", "type": "ipv6", "ip_address": "2001:db8:2::5", "netmask": full, "services": [], "routes": []},
        {"id": "network4", "type": "ipv4_dhcp", "link": "tapp2", "network_id": "n1"},
    ]  # fmt: skip
    assert found["services"] == [dns, dns6]


def test_a_config_drive_has_upstreams_tree() -> None:
    found = config_drive(guest(PORT, vendor={"motd": "hello"}, user_data=base64.b64encode(b"x").decode()))
    assert {name for name in found if name.startswith("ec2")} == {f"ec2/{version}/{name}" for version in ("2009-04-04", "latest")
                                                                 for name in ("meta-data.json", "user-data")}  # fmt: skip
    latest = {name.rpartition("/")[2] for name in found if name.startswith("openstack/latest/")}
    assert latest == {"meta_data.json", "user_data", "network_data.json", "vendor_data.json", "vendor_data2.json"}
    assert {name.rpartition("/")[2] for name in found if name.startswith("openstack/2012-08-10/")} == {"meta_data.json", "user_data"}
    whole = json.loads(found["ec2/latest/meta-data.json"])
    assert whole["placement"] == {"availability-zone": "nova"} and whole["security-groups"] == ["default"]
    assert whole["public-keys"] == {"0": {"openssh-key": "ssh-rsa AAA"}} and whole["ami-launch-index"] == 0
    assert json.loads(found["openstack/latest/vendor_data.json"]) == {"motd": "hello"}
    assert json.loads(found["openstack/latest/vendor_data2.json"]) == {"static": {"motd": "hello"}}
    over_http = files(guest(PORT, vendor={"motd": "hello"}, user_data=base64.b64encode(b"x").decode()))
    shared = {name for name in found if name.startswith("openstack/")}
    assert {name: found[name] for name in shared} == {name: over_http[name] for name in shared}


def test_vendor_data_comes_from_a_file_and_a_bad_one_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def told(given: str | None) -> Any:
        config = Config(api=Api(vendordata_jsonfile_path=given))
        return vendordata.static(SimpleNamespace(config=config, home=SimpleNamespace(path=tmp_path / "home", reach=tmp_path)))  # type: ignore[arg-type]

    path = tmp_path / "vendor.json"
    assert told(None) == {} and not caplog.text
    path.write_text('{"a": [1]}')
    assert told(str(path)) == told("vendor.json") == {"a": [1]}
    path.write_text('{"a": 2}')
    os.utime(path, ns=(1, 1))
    assert told(str(path)) == {"a": 2} and not caplog.text, "a changed file is read again"
    for bad in ("[1]", "{", "{" + " " * (1 << 20) + "}"):
        path.write_text(bad)
        caplog.clear()
        assert told(str(path)) == told(str(path)) == {} and caplog.text.count(str(path)) == 1, bad[:5]
    caplog.clear()
    assert told(str(tmp_path / "none.json")) == {} and "No such file" in caplog.text
