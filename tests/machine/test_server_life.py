"""What may happen to a server, with a real guest: paused in memory and on disk, copied, rebuilt, resized, rescued, ended behind our back.

One cloud and one guest for most of the file; each test begins with the guest ACTIVE and leaves it so.
"""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from machine.course import Course, fresh, until

pytestmark = pytest.mark.machine
NAME = "life"


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        for flavor in ("--id 1 --ram 64 --disk 1 small", "--id 2 --ram 96 --vcpus 2 --disk 2 larger", "--id 3 --ram 50000 --disk 1 huge"):
            made.openstack("admin", "flavor", "create", *flavor.split())
        made.openstack("admin", *"network create --external --provider-network-type flat --provider-physical-network external ext1".split())
        made.openstack("admin", *"subnet create --network ext1 --no-dhcp --subnet-range 172.24.4.0/24 --gateway 172.24.4.1 ext1".split())
        for number, more in ((1, ""), (2, "--gateway none")):
            made.openstack("demo", "network", "create", f"net{number}")
            made.openstack("demo", *f"subnet create --network net{number} --subnet-range 172.16.{number}.0/24 {more} net{number}".split())
        made.openstack("demo", "router", "create", "--external-gateway", "ext1", "router")
        made.openstack("demo", "router", "add", "subnet", "router", "net1")
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(made.work / "id_rsa")], check=True)
        made.openstack("demo", "keypair", "create", "--public-key", str(made.work / "id_rsa.pub"), "key")
        made.openstack("demo", *"security group rule create --proto icmp default".split())
        made.openstack("demo", *"security group rule create --proto tcp --dst-port 22 default".split())
        create(made, NAME)
        made.openstack("demo", "server", "add", "floating", "ip", NAME, made.value("demo", "floating_ip_address", "floating", "ip", "create", "ext1"))
        reached(made)
        yield made


def create(course: Course, name: str, image: str = "nacre-guest", flavor: str = "small") -> None:
    course.openstack("demo", "server", "create", "--flavor", flavor, "--image", image, "--network", "net1", "--key-name", "key", name)
    becomes(course, "ACTIVE", name)


def status(course: Course, name: str = NAME) -> str:
    return course.value("demo", "status", "server", "show", name)


def becomes(course: Course, wanted: str, name: str = NAME) -> None:
    def there() -> bool:
        now = status(course, name)
        assert now == wanted or now != "ERROR", course.openstack("demo", "server", "show", name)
        return now == wanted

    until(there, 90)


def guest(course: Course, *command: str) -> str:
    address = course.value("demo", "Floating IP Address", "floating", "ip", "list")
    done = course.ssh(address, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reached(course: Course) -> str:
    address = course.value("demo", "Floating IP Address", "floating", "ip", "list")
    until(lambda: course.ssh(address, "true", timeout=20).returncode == 0, 90, every=1)
    return address


def test_suspend_and_resume_lose_nothing(course: Course) -> None:
    before = float(guest(course, "cat", "/proc/uptime").split()[0])
    course.openstack("demo", "server", "suspend", NAME)
    becomes(course, "SUSPENDED")
    assert "running" not in course.exec("virsh", "list", "--all").stdout
    course.openstack("demo", "server", "resume", NAME)
    becomes(course, "ACTIVE")
    reached(course)
    assert float(guest(course, "cat", "/proc/uptime").split()[0]) >= before


def test_destroyed_behind_our_back(course: Course) -> None:
    course.exec("virsh", "destroy", "instance-00000001")
    becomes(course, "SHUTOFF")
    course.openstack("demo", "server", "start", NAME)
    becomes(course, "ACTIVE")
    reached(course)


def test_a_snapshot_boots_with_what_was_written(course: Course) -> None:
    guest(course, "echo was-here > keepsake; sync")
    uptime = float(guest(course, "cat", "/proc/uptime").split()[0])
    course.openstack("demo", "server", "image", "create", "--name", "shot", "--wait", NAME)
    assert float(guest(course, "cat", "/proc/uptime").split()[0]) >= uptime
    shown = json.loads(course.openstack("demo", "image", "show", "shot", "-f", "json"))
    assert (shown["status"], shown["disk_format"], shown["visibility"]) == ("active", "qcow2", "private")
    assert shown["properties"]["image_type"] == "snapshot"
    assert shown["properties"]["instance_uuid"] == course.value("demo", "id", "server", "show", NAME)
    becomes(course, "ACTIVE")
    course.openstack("demo", "server", "rebuild", "--image", "shot", "--wait", NAME)
    reached(course)
    assert guest(course, "cat", "keepsake") == "was-here"


def test_a_rebuild_keeps_addresses_and_nothing_else(course: Course) -> None:
    before = course.value("demo", "addresses", "server", "show", NAME)
    course.openstack("demo", "server", "rebuild", "--image", "nacre-guest", NAME)
    becomes(course, "ACTIVE")
    assert course.value("demo", "addresses", "server", "show", NAME) == before
    reached(course)
    assert guest(course, "ls keepsake 2>/dev/null || echo gone") == "gone"


def test_resize_revert_and_confirm(course: Course) -> None:
    guest(course, "echo old > size; sync")
    course.openstack("demo", "server", "resize", "--flavor", "larger", NAME)
    becomes(course, "VERIFY_RESIZE")
    reached(course)
    assert guest(course, "cat size; grep -c ^processor /proc/cpuinfo").split() == ["old", "2"]
    guest(course, "echo new > size; sync")
    course.openstack("demo", "server", "resize", "revert", NAME)
    becomes(course, "ACTIVE")
    reached(course)
    assert guest(course, "cat size; grep -c ^processor /proc/cpuinfo").split() == ["old", "1"]
    course.openstack("demo", "server", "resize", "--flavor", "larger", NAME)
    becomes(course, "VERIFY_RESIZE")
    course.openstack("demo", "server", "resize", "confirm", NAME)
    becomes(course, "ACTIVE")
    assert course.exec("virsh", "dominfo", "instance-00000001").stdout.count("CPU(s):         2") == 1
    reached(course)


def test_rescue(course: Course) -> None:
    course.openstack("demo", "server", "rescue", NAME)
    becomes(course, "RESCUE")
    disks = course.exec("virsh", "domblklist", "instance-00000001").stdout
    assert "disk.rescue" in disks and disks.count("/disk") >= 2
    course.openstack("demo", "server", "unrescue", NAME)
    becomes(course, "ACTIVE")
    reached(course)
    assert guest(course, "cat", "size") == "old"


def test_an_interface_comes_and_goes(course: Course) -> None:
    address = reached(course)
    course.openstack("demo", "server", "add", "network", NAME, "net2")
    until(lambda: "eth1" in course.ssh(address, "ls", "/sys/class/net").stdout.split(), 60)
    assert "net2=" in course.openstack("demo", "server", "list")
    course.openstack("demo", "server", "remove", "network", NAME, "net2")
    until(lambda: "eth1" not in (course.ssh(address, "ls", "/sys/class/net").stdout.split() or ["eth1"]), 60)
    until(lambda: "net2=" not in course.openstack("demo", "server", "list"), 60)


def test_a_second_server_fetches_nothing_again(course: Course) -> None:
    def bases() -> str:
        return course.exec("sh", "-c", f"ls -li {course.home}/hosts/1/instances/_base/*[0-9a-f]").stdout

    before, began = bases(), time.monotonic()
    create(course, "second")
    assert bases() == before, time.monotonic() - began
    course.openstack("demo", "server", "delete", "--wait", "second")


def test_no_host_fits(course: Course) -> None:
    course.openstack("demo", *"server create --flavor huge --image nacre-guest --network net1 toobig".split(), check=False)
    until(lambda: course.value("demo", "status", "server", "show", "toobig") == "ERROR", 30)
    told = course.value("demo", "fault", "server", "show", "toobig")
    assert "No valid host was found" in told and "(ResourcesFilter)" in told, told
    course.openstack("demo", "server", "delete", "--wait", "toobig")


def test_wrong_credentials(course: Course) -> None:
    refused = course.typed("demo", "env", "OS_PASSWORD=wrong", "openstack", "server", "list", check=False)
    assert refused.returncode == 1 and "401" in refused.stderr


def test_actions_and_events(course: Course) -> None:
    listed = json.loads(course.openstack("demo", "server", "event", "list", NAME, "-f", "json"))
    done = [row["Action"] for row in listed]
    assert {"create", "suspend", "resume", "start", "createImage", "rebuild", "resize", "revertResize", "confirmResize", "rescue", "unrescue",
            "attach_interface", "detach_interface"} <= set(done), done  # fmt: skip
    server = course.value("demo", "id", "server", "show", NAME)
    first = next(row["Request ID"] for row in listed if row["Action"] == "create")
    assert "compute__do_build_and_run_instance" in course.openstack("admin", "server", "event", "show", server, first)
