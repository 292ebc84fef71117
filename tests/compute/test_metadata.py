"""What a guest reads about itself."""

import base64
import json
from types import SimpleNamespace
from typing import Any

from nacre.compute.metadata import EC2, OPENSTACK, files
from nacre.network import Port
from nacre.node.metadata_child import page

PORT = Port(id="p1", network_id="n1", network_name="net", mac_address="fa:16:3e:00:00:01", tap="tapp1", mtu=1450,
            fixed_ips=({"ip_address": "172.16.1.5", "subnet_id": "s1"},), floating_ips={"172.16.1.5": "172.24.4.9"}, status="ACTIVE",
            security_groups=("default",), admin_state_up=True, device_id="x")  # fmt: skip


def row(**values: Any) -> Any:
    return SimpleNamespace(**{
        "id": "uuid-1", "number": 26, "name": "my server", "hostname": "my-server", "launch_index": 0, "availability_zone": "nova",
        "meta": {"a": "b"},
        "key": {"name": "mykey", "type": "ssh", "data": "ssh-rsa AAA"}, "seed": "s", "project_id": "proj", "user_data": None, "image_id": "img",
        "flavor": {"name": "m1.nano"}, "reservation_id": "r-1", "root_device_name": "/dev/vda", **values})  # fmt: skip


def test_openstack_files() -> None:
    found = files(row(user_data=base64.b64encode(b"#!/bin/sh\n").decode()), [PORT])
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


def test_user_data_that_is_no_text_is_not_damaged() -> None:
    raw = b"\x1f\x8b\x08\x00\xff\xfe"
    found = files(row(user_data=base64.b64encode(raw).decode()), [PORT])
    assert page(found, "openstack/latest/user_data") == page(found, "latest/user-data") == raw


def test_ec2_files() -> None:
    found = files(row(), [PORT])
    for version in EC2:
        assert found[f"{version}/meta-data/instance-id"] == "i-0000001a"
    assert found["2009-04-04/meta-data/local-ipv4"] == "172.16.1.5" and found["latest/meta-data/public-ipv4"] == "172.24.4.9"
    assert found["latest/meta-data/public-keys/"] == "0=mykey" and found["latest/meta-data/public-keys/0/openssh-key"] == "ssh-rsa AAA"
    assert found["latest/meta-data/placement/availability-zone"] == "nova" and found["latest/meta-data/security-groups"] == "default"
    assert "latest/user-data" not in found


def test_the_same_guest_always_reads_the_same() -> None:
    assert files(row(), [PORT]) == files(row(), [PORT])
    assert files(row(seed="other"), [PORT]) != files(row(), [PORT])


def test_a_guest_without_key_or_port() -> None:
    found = files(row(key=None, meta={}), [])
    whole = json.loads(found["openstack/latest/meta_data.json"])
    assert "public_keys" not in whole and "meta" not in whole
    assert found["latest/meta-data/local-ipv4"] == "" and not [name for name in found if "public-keys" in name]
