"""What a guest can know, seen from inside a real one: its config drive, the metadata service in both of its tongues, names by DNS.

One cloud, one guest; the operator's vendor data is in the cloud's home.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence

import pytest

from machine.course import GUEST_SSH, Course, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest

pytestmark = pytest.mark.machine
USER_DATA = "#!/bin/sh\necho from-user-data > /run/told\n"
EC2 = ["1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04", "latest"]


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        (made.home / "vendor.json").write_text('{"motd": "from the operator"}')
        (made.home / "vendor.json").chmod(0o644)
        options = (made.home / "nacre.toml").read_text()
        (made.home / "nacre.toml").write_text(options + '\n[api]\nvendordata_jsonfile_path = "vendor.json"\n')
        made.nacre("up")
        prepare(made)
        (made.work / "script").write_text(USER_DATA)
        yield made


@pytest.fixture(scope="module")
def guest(course: Course) -> Guest:
    demo = Rest(course, "demo")
    network = demo("GET", "/network/v2.0/networks?name=net1")["networks"][0]["id"]
    demo.network("port", network_id=network, name="named", dns_name="printer")
    made = create(course, "Drive", "--config-drive", "True", "--user-data", "script", "--property", "colour=blue")
    made.reached()
    made.run("sudo mount $(/sbin/blkid -L config-2 -o device) /mnt")
    return made


def texts(guest: Guest, command: str, names: Sequence[str]) -> dict[str, str]:
    """What `command NAME` says in the guest for each name, asked all at once."""
    told = guest.run(f"for name in {' '.join(names)}; do {command}$name; echo; echo =====; done", timeout=60)
    return dict(zip(names, [text.strip() for text in f"{told}\n".split("=====\n")], strict=False))


def http(guest: Guest, *paths: str) -> dict[str, str]:
    return texts(guest, "wget -q -O - http://169.254.169.254/", paths)


def test_the_config_drive(course: Course, guest: Guest) -> None:
    assert guest.api("GET", f"/compute/v2.1/servers/{guest.id}")["server"]["config_drive"] == "True"
    listed = course.exec("virsh", "domblklist", "--details", guest.domain).stdout
    assert [line.split()[:3] for line in listed.splitlines() if "disk.config" in line] == [["file", "cdrom", "hda"]]
    seen = guest.run("sudo dd if=/dev/sr0 bs=1 skip=32808 count=8 2>/dev/null; echo; cat /run/told; cd /mnt; ls . ec2 ec2/latest openstack/latest")
    assert seen.split() == [
        "config-2", "from-user-data", ".:", "ec2", "openstack", "ec2:", "2009-04-04", "latest", "ec2/latest:", "meta-data.json", "user-data",
        "openstack/latest:", "meta_data.json", "network_data.json", "user_data", "vendor_data.json", "vendor_data2.json"]  # fmt: skip
    names = ["openstack/latest/meta_data.json", "openstack/latest/vendor_data.json", "openstack/latest/vendor_data2.json",
             "ec2/2009-04-04/meta-data.json", "openstack/2012-08-10/user_data"]  # fmt: skip
    *read, user_data = texts(guest, "cat /mnt/", names).values()
    whole, vendor, vendor2, ec2 = map(json.loads, read)
    assert (whole["uuid"], whole["name"], whole["hostname"], whole["launch_index"]) == (guest.id, "Drive", "drive.novalocal", 0)
    assert whole["meta"] == {"colour": "blue"} and whole["availability_zone"] == "nova" and whole["devices"] == whole["dedicated_cpus"] == []
    key = (course.work / "id_rsa.pub").read_text()
    assert whole["public_keys"] == {"key": key} and whole["keys"] == [{"name": "key", "type": "ssh", "data": key}]
    assert whole["project_id"] == guest.api("GET", f"/compute/v2.1/servers/{guest.id}")["server"]["tenant_id"]
    assert vendor == {"motd": "from the operator"} and vendor2 == {"static": vendor}
    assert f"{user_data}\n" == USER_DATA and ec2["public-keys"] == {"0": {"openssh-key": key}}


def test_openstacks_tree_says_the_same(guest: Guest) -> None:
    names = ["meta_data.json", "network_data.json", "user_data", "vendor_data.json", "vendor_data2.json"]
    listed, latest, *told = http(guest, "openstack", "openstack/latest", *(f"openstack/latest/{name}" for name in names)).values()
    assert listed.split() == guest.run("ls /mnt/openstack").split() and latest.split() == sorted([*names, "password"])
    assert told == list(texts(guest, "cat /mnt/openstack/latest/", names).values())
    network = json.loads(told[1])
    assert [link["ethernet_mac_address"] for link in network["links"]] == [guest.run("cat /sys/class/net/eth0/address")]
    assert [net["type"] for net in network["networks"]] == ["ipv4_dhcp"] and network["services"] == []


def test_ec2s_tree(course: Course, guest: Guest) -> None:
    top, version, listed, user_data = http(guest, "/", "2009-04-04/", "2009-04-04/meta-data/", "latest/user-data").values()
    assert top.split() == EC2 and version == "meta-data/\nuser-data" and f"{user_data}\n" == USER_DATA
    assert listed.split() == ["ami-id", "ami-launch-index", "ami-manifest-path", "block-device-mapping/", "hostname", "instance-action",
                              "instance-id", "instance-type", "local-hostname", "local-ipv4", "placement/", "public-hostname", "public-ipv4",
                              "public-keys/", "reservation-id", "security-groups"]  # fmt: skip
    expected = {
        "instance-id": "i-" + guest.domain.rpartition("-")[2], "public-ipv4": guest.address, "hostname": "drive.novalocal",
        "local-ipv4": guest.run("ip -4 -o addr show eth0").split()[3].partition("/")[0], "nothing": "",
        "security-groups": "default", "instance-type": "small", "placement/availability-zone": "nova", "public-keys/": "0=key",
        "public-keys/0/openssh-key": (course.work / "id_rsa.pub").read_text().strip(), "block-device-mapping/root": "/dev/vda",
    }  # fmt: skip
    told = http(guest, *(f"2009-04-04/meta-data/{name}" for name in expected))
    assert {name.partition("meta-data/")[2]: text for name, text in told.items()} == expected


def test_names_of_the_networks_ports_resolve(guest: Guest) -> None:
    ports = {port["name"] or port["dns_name"]: port for port in guest.api("GET", "/network/v2.0/ports")["ports"]}
    address = {name: port["fixed_ips"][0]["ip_address"] for name, port in ports.items()}
    assert guest.run("cat /etc/resolv.conf").split()[:3] == ["search", "openstacklocal", "nameserver"]
    names = ["drive.openstacklocal", "printer.openstacklocal", address["drive"], address["named"], "nobody.openstacklocal"]
    mine, printer, reverse, reverse2, nobody = texts(guest, "nslookup 2>&1 ", names).values()
    assert f"Address: {address['drive']}" in mine and f"Address: {address['named']}" in printer
    assert "name = drive.openstacklocal" in reverse and "name = printer.openstacklocal" in reverse2
    assert "Address: 172.16.1." not in nobody and "nobody" in nobody, nobody
    guest.api("DELETE", f"/network/v2.0/ports/{ports['named']['id']}")
    until(lambda: address["named"] not in guest.run("nslookup printer.openstacklocal 2>&1; true"), 20)


@pytest.mark.long
def test_a_reboot_changes_nothing_on_the_drive(guest: Guest) -> None:
    before, boot = guest.run("sudo md5sum /dev/sr0"), guest.boot()
    guest.typed("reboot", "--hard")
    until(lambda: guest.answers() and guest.boot() != boot, 90, every=1)
    assert guest.run("sudo md5sum /dev/sr0") == before


@pytest.mark.long
def test_without_dhcp_a_guest_sets_itself_up_from_its_drive(course: Course, guest: Guest) -> None:
    """Address, route and DNS server of network_data.json; key and name too: there is no metadata service for it."""
    network = guest.api.network("network", name="silent")["id"]
    guest.api.network("subnet", network_id=network, ip_version=4, cidr="172.16.3.0/24", enable_dhcp=False, dns_nameservers=["172.16.3.53"])
    router = guest.api("GET", "/network/v2.0/routers")["routers"][0]["id"]
    subnet = guest.api("GET", "/network/v2.0/subnets?cidr=172.16.3.0/24")["subnets"][0]["id"]
    guest.api("PUT", f"/network/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = guest.api.network("port", network_id=network, fixed_ips=[{"subnet_id": subnet, "ip_address": "172.16.3.7"}])["id"]
    words = ("--flavor", "small", "--image", "nacre-guest", "--port", port, "--key-name", "key", "--config-drive", "True", "--wait", "quiet")
    course.openstack("demo", "server", "create", *words)
    reached = ("ip", "netns", "exec", f"qrouter-{router}", "ssh", "-i", str(course.work / "id_rsa"), *GUEST_SSH, "cirros@172.16.3.7")
    until(lambda: course.exec(*reached, "true", check=False).returncode == 0, 120, every=2)
    assert course.exec(*reached, "hostname; ip route; ls /run/seed").stdout.split()[:4] == ["quiet", "default", "via", "172.16.3.1"]
    told = json.loads(course.exec(*reached, "cat /run/seed/network_data.json").stdout)
    assert told["services"] == [{"type": "dns", "address": "172.16.3.53"}]
    assert (told["networks"][0]["type"], told["networks"][0]["ip_address"], told["networks"][0]["netmask"]) == ("ipv4", "172.16.3.7", "255.255.255.0")
    assert "datasource: config-drive /dev/sr0" in course.openstack("demo", "console", "log", "show", "quiet")


@pytest.mark.long
def test_injected_files_are_on_the_drive(course: Course, guest: Guest) -> None:
    """Files of a create (before microversion 2.57), also of bytes that no text has."""
    files = {"/etc/motd.d/banner": b"injected\n", "/root/bytes": bytes(range(256))}
    api, wanted = guest.api, [{"path": path, "contents": base64.b64encode(content).decode()} for path, content in files.items()]
    image = api("GET", "/image/v2/images?name=nacre-guest")["images"][0]["id"]
    network = api("GET", "/network/v2.0/networks?name=net1")["networks"][0]["id"]
    router = api("GET", "/network/v2.0/routers")["routers"][0]["id"]
    body = {"name": "files", "flavorRef": "1", "imageRef": image, "networks": [{"uuid": network}], "key_name": "key",
            "config_drive": True, "personality": wanted}  # fmt: skip
    server = api("POST", "/compute/v2.1/servers", {"server": body})["server"]["id"]
    address = api("GET", f"/network/v2.0/ports?device_id={server}")["ports"][0]["fixed_ips"][0]["ip_address"]
    inside = ("ip", "netns", "exec", f"qrouter-{router}", "ssh", "-i", str(course.work / "id_rsa"), *GUEST_SSH, f"cirros@{address}")
    until(lambda: course.exec(*inside, "true", check=False).returncode == 0, 180, every=2)
    course.exec(*inside, "sudo mount $(/sbin/blkid -L config-2 -o device) /mnt")
    told = json.loads(course.exec(*inside, "cat /mnt/openstack/latest/meta_data.json").stdout)["files"]
    assert [file["path"] for file in told] == list(files)
    sums = course.exec(*inside, "; ".join(f"sudo md5sum /mnt/openstack{file['content_path']}" for file in told)).stdout.split()[::2]
    assert sums == [hashlib.md5(content).hexdigest() for content in files.values()]
    course.openstack("demo", "server", "delete", "--wait", "files")


def test_the_drive_goes_with_its_server(course: Course, guest: Guest) -> None:
    folder = course.home / "hosts/1/instances" / guest.id
    assert (folder / "disk.config").exists()
    guest.api("DELETE", f"/compute/v2.1/servers/{guest.id}")
    until(lambda: not folder.exists(), 30)
