"""The course's walkthrough, as typed, from the first image to the guest's shell, then a look inside the host.

One cloud for the whole file; each test is a page of the course and builds on the page before.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.course import Course, fresh, until

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        yield made


def test_what_up_made(course: Course) -> None:
    assert course.openstack("admin", "project", "list", "-f", "value", "-c", "Name").split() == ["admin", "demo"]
    assert course.openstack("admin", "image", "list", "-f", "value", "-c", "Name", "-c", "Status") == "nacre-guest active"
    for nothing in ("network", "flavor", "server", "router", "floating ip"):
        assert course.openstack("admin", *nothing.split(), "list", "-f", "value") == "", nothing
    assert course.home.parent.stat().st_mode & 0o777 == 0o700
    status = json.loads(course.nacre("status", "--json").stdout)
    assert {"api", "worker", "node", "up"} <= {process["role"] for process in status["processes"]}, status


def test_the_api_is_under_tls_with_our_authority(course: Course) -> None:
    trusted = ssl.create_default_context(cafile=str(course.home / "ca.pem"))
    with urllib.request.urlopen(f"https://127.0.0.1:{course.port}/identity/v3", context=trusted, timeout=10) as answer:
        assert json.load(answer)["version"]["status"] == "stable"


def test_images(course: Course) -> None:
    course.openstack("admin", "image", "save", "--file", "guest.qcow2", "nacre-guest")
    assert json.loads(course.typed("admin", "qemu-img", "info", "--output", "json", "guest.qcow2").stdout)["format"] == "qcow2"
    course.openstack("admin", *"image create cirros --file ./guest.qcow2 --disk-format qcow2 --container-format bare --public".split())
    shown = json.loads(course.openstack("admin", "image", "show", "cirros", "-f", "json"))
    assert (shown["status"], shown["visibility"], shown["disk_format"]) == ("active", "public", "qcow2")
    assert shown["size"] == (course.work / "guest.qcow2").stat().st_size and shown["checksum"] and shown["file"] and shown["schema"]
    course.openstack("admin", "image", "set", "--property", "os_distro=cirros", "cirros")
    listed = course.typed("admin", "glance", "image-list").stdout
    assert "cirros" in listed and "nacre-guest" in listed
    assert "os_distro" in course.typed("admin", "glance", "image-show", shown["id"]).stdout


def test_flavors_and_the_external_network(course: Course) -> None:
    course.openstack("admin", "flavor", "create", "--id", "0", "--vcpus", "1", "--ram", "64", "--disk", "1", "m1.nano")
    course.openstack("admin", "flavor", "create", "--id", "1", "--vcpus", "2", "--ram", "2048", "--disk", "8", "m1.small")
    assert course.openstack("admin", "flavor", "list", "-f", "value", "-c", "Name").split() == ["m1.nano", "m1.small"]
    course.openstack("admin", *"network create --external --provider-network-type flat --provider-physical-network external ext1".split())
    course.openstack("admin", *("subnet create --network ext1 --no-dhcp --subnet-range 172.24.4.0/24 --gateway 172.24.4.1 "
                                "--allocation-pool start=172.24.4.10,end=172.24.4.200 ext1").split())  # fmt: skip


def test_the_members_network_and_router(course: Course) -> None:
    course.openstack("demo", "network", "create", "selfservice")
    course.openstack("demo", *("subnet create --network selfservice --dns-nameserver 8.8.4.4 --gateway 172.16.1.1 "
                               "--subnet-range 172.16.1.0/24 selfservice").split())  # fmt: skip
    course.openstack("demo", "router", "create", "router")
    course.openstack("demo", "router", "add", "subnet", "router", "selfservice")
    course.openstack("demo", "router", "set", "router", "--external-gateway", "ext1")
    assert "172.16.1.1" in course.openstack("demo", "port", "list", "--router", "router")


def test_key_and_security_group(course: Course) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(course.work / "id_rsa")], check=True)
    course.openstack("demo", "keypair", "create", "--public-key", str(course.work / "id_rsa.pub"), "mykey")
    assert course.openstack("demo", "keypair", "list", "-f", "value", "-c", "Name") == "mykey"
    course.openstack("demo", *"security group rule create --proto icmp default".split())
    course.openstack("demo", *"security group rule create --proto tcp --dst-port 22 default".split())


def test_the_guest_boots_and_is_reached_by_its_floating_ip(course: Course) -> None:
    network = course.value("demo", "id", "network", "show", "selfservice")
    course.openstack("demo", "server", "create", "--flavor", "m1.nano", "--image", "cirros", "--nic", f"net-id={network}",
                     "--security-group", "default", "--key-name", "mykey", "selfservice-instance")  # fmt: skip
    until(lambda: course.value("demo", "status", "server", "show", "selfservice-instance") == "ACTIVE", 60)
    listed = course.openstack("demo", "server", "list")
    assert re.search(r"ACTIVE .*selfservice=172\.16\.1\.\d+ .*cirros .*m1\.nano", listed), listed
    address = course.value("demo", "floating_ip_address", "floating", "ip", "create", "ext1")
    course.openstack("demo", "server", "add", "floating", "ip", "selfservice-instance", address)
    until(lambda: course.ssh(address, "true").returncode == 0, 90, every=1)
    assert course.ssh(address, "hostname").stdout.strip() == "selfservice-instance"
    assert address in course.openstack("demo", "server", "list")
    router = course.value("demo", "id", "router", "show", "router")
    through = course.exec("ip", "netns", "exec", f"qrouter-{router}", "ping", "-c", "1", "-W", "3", address)
    assert "1 received" in through.stdout


def test_console_log_and_url(course: Course) -> None:
    until(lambda: "login" in course.openstack("demo", "console", "log", "show", "selfservice-instance"), 60)
    url = course.value("demo", "url", "console", "url", "show", "selfservice-instance")
    assert re.match(rf"https://127\.0\.0\.1:{course.port}/console/vnc_lite\.html\?path=console%2F[\w-]+$", url), url


def test_a_look_inside_the_host(course: Course) -> None:
    server = course.value("demo", "id", "server", "show", "selfservice-instance")
    network = course.value("demo", "id", "network", "show", "selfservice")
    router = course.value("demo", "id", "router", "show", "router")
    fixed = re.findall(r"172\.16\.1\.\d+", course.openstack("demo", "server", "list"))[0]
    assert re.search(r"instance-0000000\w\s+running", course.exec("virsh", "list", "--all").stdout)
    dumped = course.exec("virsh", "dumpxml", "instance-00000001").stdout
    assert server in dumped and "m1.nano" in dumped
    assert "tap" in course.exec("virsh", "domiflist", "instance-00000001").stdout
    inside = course.nacre("exec", "--", "sh", "-c", f"ls {course.home}/hosts/1/instances/_base {course.home}/hosts/1/instances/{server}").stdout
    assert re.search(r"^[0-9a-f]{40}$", inside, re.M) and "disk" in inside, inside
    folder, seen = f"{course.home}/hosts/1/instances", ("_base/*[0-9a-f]", f"{server}/disk")
    base, disk = (course.exec("sh", "-c", f"stat -c '%U %a' {folder}/{path}").stdout for path in seen)
    assert base.split() == ["root", "640"] and disk.split() == ["libvirt-qemu", "600"], "guests may read the shared base, nobody else their disk"
    assert {f"qdhcp-{network}", f"qrouter-{router}"} <= set(re.findall(r"\S+", course.exec("ip", "netns").stdout))
    assert "0% packet loss" in course.exec("ip", "netns", "exec", f"qdhcp-{network}", "ping", "-c", "3", "-i", "0.2", fixed).stdout
    assert "172.16.1.1" in course.exec("ip", "netns", "exec", f"qrouter-{router}", "ip", "addr").stdout
    shown = course.exec("ovs-vsctl", "show").stdout
    assert all(f"Bridge {bridge}" in shown for bridge in ("br-int", "br-tun", "br-ex")), shown


def test_services_hypervisors_agents(course: Course) -> None:
    services = json.loads(course.openstack("admin", "compute", "service", "list", "-f", "json"))
    assert [(row["Status"], row["State"]) for row in services if row["Binary"] == "nova-compute"] == [("enabled", "up")]
    hypervisors = json.loads(course.openstack("admin", "hypervisor", "list", "-f", "json"))
    assert [row["State"] for row in hypervisors] == ["up"]
    agents = json.loads(course.openstack("admin", "network", "agent", "list", "-f", "json"))
    assert {row["Agent Type"] for row in agents} >= {"Open vSwitch agent", "DHCP agent", "L3 agent", "Metadata agent"}
    assert all(row["Alive"] and row["State"] for row in agents), agents


def test_a_second_external_range_answers_too(course: Course) -> None:
    course.openstack("admin", *"subnet create --network ext1 --no-dhcp --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 ext1b".split())
    until(lambda: course.exec("ip", "-4", "addr").stdout.count("203.0.113.1/24") == 1, 20)
    course.openstack("admin", "subnet", "delete", "ext1b")
    until(lambda: "203.0.113.1/24" not in course.exec("ip", "-4", "addr").stdout, 20)


def test_down_leaves_the_guest_and_up_finds_it(course: Course) -> None:
    address = course.value("demo", "Floating IP Address", "floating", "ip", "list")
    before = float(course.ssh(address, "cat", "/proc/uptime").stdout.split()[0])
    course.nacre("down")
    status = json.loads(course.nacre("status", "--json", check=False).stdout)
    assert not {"api", "worker", "node", "up"} & {process["role"] for process in status["processes"]}
    assert float(course.ssh(address, "cat", "/proc/uptime").stdout.split()[0]) >= before
    begun = time.monotonic()
    course.nacre("up")
    took = time.monotonic() - begun
    assert course.value("demo", "status", "server", "show", "selfservice-instance") == "ACTIVE"
    assert float(course.ssh(address, "cat", "/proc/uptime").stdout.split()[0]) >= before
    assert took < 60


def test_a_killed_host_comes_back_with_its_guest(course: Course) -> None:
    """As after a power cut: the guest starts again by itself, with its addresses, and is never told to be off."""
    address = course.value("demo", "Floating IP Address", "floating", "ip", "list")
    status = json.loads(course.nacre("status", "--json").stdout)
    os.kill(next(process["pid"] for process in status["processes"] if process["role"] == "init"), signal.SIGKILL)
    time.sleep(1)
    course.nacre("up")
    until(lambda: course.ssh(address, "true").returncode == 0, 90, every=1)
    assert course.value("demo", "status", "server", "show", "selfservice-instance") == "ACTIVE"


def test_delete_leaves_nothing(course: Course) -> None:
    server = course.value("demo", "id", "server", "show", "selfservice-instance")
    course.openstack("demo", "server", "delete", "--wait", "selfservice-instance")
    assert "instance-" not in course.exec("virsh", "list", "--all").stdout
    assert not Path(f"{course.home}/hosts/1/instances/{server}").exists()
    assert course.openstack("demo", "port", "list", "--device-owner", "compute:nova", "-f", "value") == ""
