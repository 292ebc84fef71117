"""What a course makes go wrong on purpose, judged by what guests do: their traffic, and an uptime that never goes back.

Here are Nacre away, libvirtd away, the second server of an image, refused credentials, what is offered of a host. The others: test_server_life.py
(a guest destroyed behind our back, no host that fits), test_security.py (one address in two projects, a closed port that opens).

One cloud with two guests of one image: `steady` is never touched, whatever happens; to `other` things happen.
"""

import json
import os
import time
import urllib.error
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from machine.course import Course, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest
from nacre.cli.layout import with_option

pytestmark = [pytest.mark.machine, pytest.mark.long]
PADDING = 400 << 20


@dataclass
class Situation:
    course: Course
    steady: Guest
    other: Guest
    seconds: dict[str, float] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)


def _padded(course: Course) -> None:
    """An image that takes long to fetch: the guest's, and after it what no compression makes smaller."""
    course.openstack("admin", "image", "save", "--file", "guest.qcow2", "nacre-guest")
    course.typed("admin", "qemu-img", "convert", "-O", "raw", "guest.qcow2", "big.raw")
    with (course.work / "big.raw").open("ab") as file:
        for _ in range(PADDING >> 20):
            file.write(os.urandom(1 << 20))
    course.openstack("admin", *"image create --public --file big.raw --disk-format raw --container-format bare big".split())


def _bases(course: Course) -> str:
    return course.exec("sh", "-c", f"ls -lin --time-style=full-iso {course.home}/hosts/1/instances/_base/*[0-9a-f]").stdout


@pytest.fixture(scope="module")
def cloud() -> Iterator[Situation]:
    with fresh() as course:
        prepare(course)
        _padded(course)
        found, seconds, bases = {}, {}, {}
        for name in ("steady", "other"):
            began = time.monotonic()
            found[name] = create(course, name, image="big")
            seconds[name], bases[name] = time.monotonic() - began, _bases(course)
        for guest in found.values():
            guest.reached()
        yield Situation(course, found["steady"], found["other"], seconds, bases)


@pytest.fixture
def steady(cloud: Situation) -> Guest:
    return cloud.steady


@pytest.fixture
def other(cloud: Situation) -> Guest:
    return cloud.other


def configure(course: Course, section: str, name: str, value: str) -> None:
    toml = course.home / "nacre.toml"
    toml.write_text(with_option(toml.read_text(), section, name, value))
    course.nacre("up")


# 3: the second server of an image


def test_the_second_server_starts_faster_and_shares_the_base(cloud: Situation) -> None:
    assert cloud.seconds["other"] < cloud.seconds["steady"] - 1, cloud.seconds
    assert cloud.bases["steady"] == cloud.bases["other"], "nothing was fetched again"
    chains = []
    for guest in (cloud.steady, cloud.other):
        disk = f"{cloud.course.home}/hosts/1/instances/{guest.id}/disk"
        told = cloud.course.exec("qemu-img", "info", "-U", "--backing-chain", "--output", "json", disk).stdout
        chains.append([Path(layer["filename"]).parts[-2:] for layer in json.loads(told)])
        assert json.loads(told)[0]["actual-size"] < PADDING / 2, "only what it wrote is its own"
    (own, base), (own2, base2) = chains
    assert base == base2 and base[0] == "_base" and own != own2, chains
    cloud.steady.run("echo mine > whose; sync")
    assert cloud.other.run("ls") == ""


# 2: Nacre away, libvirtd away


def test_a_guest_that_ends_while_nacre_is_away(cloud: Situation, steady: Guest, other: Guest) -> None:
    with steady.undisturbed():
        cloud.course.nacre("down")
        assert cloud.course.typed("demo", "openstack", "server", "list", check=False).returncode == 1
        cloud.course.ssh(other.address, "sudo", "poweroff")
        until(lambda: other.power() == "shut off", 40)
        assert steady.answers()
        cloud.course.nacre("up")
        other.becomes("SHUTOFF")
        assert steady.status() == "ACTIVE"
    other.typed("start")
    other.becomes("ACTIVE")
    other.reached()


def test_guests_destroyed_and_started_by_hand_while_nacre_is_away(cloud: Situation, steady: Guest, other: Guest) -> None:
    with steady.undisturbed():
        cloud.course.nacre("down")
        cloud.course.exec("virsh", "destroy", other.domain)
        cloud.course.nacre("up")
        other.becomes("SHUTOFF")
        cloud.course.nacre("down")
        cloud.course.exec("virsh", "start", other.domain)
        cloud.course.nacre("up")
        other.becomes("ACTIVE")
        other.reached()
        assert steady.status() == "ACTIVE"


def _libvirtd(course: Course) -> int:
    """Its pid within the host, 0 while there is none."""
    return int(json.loads((course.home / "hosts/1/daemons.json").read_text())["libvirtd"]["pid"])


def _kill_libvirtd(course: Course) -> None:
    if pid := _libvirtd(course):
        course.exec("kill", "-9", str(pid), check=False)


def test_libvirtd_killed(cloud: Situation, steady: Guest, other: Guest) -> None:
    boot, before = other.boot(), _libvirtd(cloud.course)
    with steady.undisturbed():
        _kill_libvirtd(cloud.course)
        until(lambda: _libvirtd(cloud.course) not in (0, before), 10)
        until(lambda: cloud.course.exec("virsh", "list", check=False).stdout.count("running") == 2, 20)
        assert (steady.status(), other.status()) == ("ACTIVE", "ACTIVE")
        other.typed("reboot", "--hard", "--wait")
        other.reached()
    assert other.boot() != boot


def test_libvirtd_away_while_a_guest_ends(cloud: Situation, steady: Guest, other: Guest) -> None:
    """It is killed whenever it comes back, for a while."""
    with steady.undisturbed():
        end, asked = time.monotonic() + 25, False
        while time.monotonic() < end:
            _kill_libvirtd(cloud.course)
            if not asked:
                cloud.course.ssh(other.address, "sudo", "poweroff")
                asked = True
            assert steady.status() == "ACTIVE"
        assert steady.answers()
        other.becomes("SHUTOFF")
        assert steady.status() == "ACTIVE" and steady.power() == "running"
    other.typed("start")
    other.becomes("ACTIVE")
    other.reached()


# 5: refused


def refused(course: Course, *words: str) -> str:
    done = course.typed("demo", *words, check=False)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr.strip()


def test_a_wrong_password_and_an_expired_token(cloud: Situation) -> None:
    ordinary = "The request you have made requires authentication. (HTTP 401) (Request-ID: req-"
    assert refused(cloud.course, "env", "OS_PASSWORD=wrong", "openstack", "server", "list").startswith(ordinary)
    assert refused(cloud.course, "env", "OS_USERNAME=nobody", "openstack", "server", "list").startswith(ordinary)
    configure(cloud.course, "token", "expiration", "1")
    token = Rest(cloud.course, "demo").token
    configure(cloud.course, "token", "expiration", "3600")
    bare = ("env", "-u", "OS_USERNAME", "-u", "OS_PASSWORD", "-u", "OS_USER_DOMAIN_NAME", "-u", "OS_USER_DOMAIN_ID")
    assert refused(cloud.course, *bare, "OS_AUTH_TYPE=token", f"OS_TOKEN={token}", "openstack", "server", "list").startswith(ordinary)
    late = Rest(cloud.course, "demo")
    late.token = token
    for path in ("/compute/v2.1/servers", "/network/v2.0/networks", "/image/v2/images", "/placement/resource_providers"):
        with pytest.raises(urllib.error.HTTPError) as told:
            late("GET", path)
        assert told.value.code == 401 and "/identity" in told.value.headers["www-authenticate"], path
    assert cloud.course.openstack("demo", "server", "list", "-f", "value", "-c", "Name").split() == ["other", "steady"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("compute service list", "Policy doesn't allow os_compute_api:os-services:list to be performed."),
        ("server list --all-projects", "Policy doesn't allow os_compute_api:servers:detail:get_all_tenants to be performed."),
        ("flavor create --ram 64 mine", "Policy doesn't allow os_compute_api:os-flavor-manage:create to be performed."),
    ],
)
def test_what_only_administrators_may(cloud: Situation, command: str, reason: str) -> None:
    told = refused(cloud.course, "openstack", *command.split())
    assert "403" in told and told.endswith(reason), told
    for kind in ("network", "image", "flavor"):
        assert "mine" not in cloud.course.openstack("admin", kind, "list", "-f", "value", "-c", "Name").split()


# 9: more is offered of the processors than there are, and never all of the memory


class Offer:
    """What placement and the hypervisor's row say of the one host."""

    def __init__(self, course: Course) -> None:
        self.admin = Rest(course, "admin")
        provider = self.admin("GET", "/placement/resource_providers")["resource_providers"][0]["uuid"]
        self.provider, self.path = provider, f"/placement/resource_providers/{provider}"

    def inventory(self, name: str) -> dict[str, float]:
        return dict(self.admin("GET", f"{self.path}/inventories")["inventories"][name])

    def capacity(self, name: str) -> int:
        found = self.inventory(name)
        return int((found["total"] - found["reserved"]) * found["allocation_ratio"])

    def used(self, name: str) -> int:
        return int(self.admin("GET", f"{self.path}/usages")["usages"][name])

    def take(self, consumer: str, processors: int) -> None:
        wanted = {"resource_provider": {"uuid": self.provider}, "resources": {"VCPU": processors}}
        self.admin("PUT", f"/placement/allocations/{consumer}", {"allocations": [wanted]})

    def hypervisor(self) -> dict[str, int]:
        return dict(self.admin("GET", "/compute/v2.1/os-hypervisors/detail")["hypervisors"][0])


def _does_not_fit(cloud: Situation, name: str, why: str) -> None:
    """The last that one thing is missing for."""
    words = ("--image", "big", "--flavor", "small", "--network", "net1", name)
    cloud.course.openstack("demo", "server", "create", *words)
    until(lambda: cloud.course.value("demo", "status", "server", "show", name) == "ERROR", 60)
    assert "No valid host was found" in cloud.course.value("demo", "fault", "server", "show", name)
    fault = cloud.course.value("admin", "fault", "server", "show", cloud.course.value("demo", "id", "server", "show", name))
    assert why in fault, fault
    cloud.course.openstack("demo", "server", "delete", "--wait", name)


def test_reserved_memory_is_never_handed_out(cloud: Situation, steady: Guest, other: Guest) -> None:
    """Two guests have 64 MiB each; what is left is for one more, and one MiB short of a second."""
    offer, reserved = Offer(cloud.course), 512
    total, used = int(offer.inventory("MEMORY_MB")["total"]), offer.used("MEMORY_MB")
    assert used == 128 and offer.capacity("MEMORY_MB") == total - reserved
    shown = offer.hypervisor()
    assert (shown["memory_mb"], shown["memory_mb_used"], shown["free_ram_mb"]) == (total, used + reserved, total - used - reserved)
    with steady.undisturbed():
        configure(cloud.course, "DEFAULT", "reserved_host_memory_mb", str(total - used - 64 - 63))
        until(lambda: offer.capacity("MEMORY_MB") == used + 64 + 63, 60)
        third = create(cloud.course, "third", image="big")
        _does_not_fit(cloud, "fourth", f"MEMORY_MB: 64 requested, 63 of {used + 64 + 63} free")
        third.reached()
        third.typed("delete", "--wait")
        configure(cloud.course, "DEFAULT", "reserved_host_memory_mb", str(reserved))
        until(lambda: offer.capacity("MEMORY_MB") == total - reserved, 60)


def test_each_processor_is_handed_out_sixteen_times(cloud: Situation, steady: Guest, other: Guest) -> None:
    """32 of 2. All but two are taken by consumers of placement's that are no servers: guests would be too many for a machine of 2."""
    offer, processors = Offer(cloud.course), os.cpu_count() or 1
    assert offer.inventory("VCPU")["total"] == offer.hypervisor()["vcpus"] == processors and offer.capacity("VCPU") == 4 * processors
    with steady.undisturbed():
        configure(cloud.course, "DEFAULT", "cpu_allocation_ratio", "16.0")
        until(lambda: offer.capacity("VCPU") == 16 * processors, 60)
        consumers = []
        while left := 16 * processors - offer.used("VCPU") - 1:
            offer.take(consumer := str(uuid.uuid4()), min(left, processors))
            consumers.append(consumer)
        last = create(cloud.course, "last", image="big")
        assert offer.used("VCPU") == 16 * processors and offer.hypervisor()["vcpus"] == processors
        _does_not_fit(cloud, "too-many", f"VCPU: 1 requested, 0 of {16 * processors} free")
        last.reached()
        last.typed("delete", "--wait")
        for consumer in consumers:
            offer.admin("DELETE", f"/placement/allocations/{consumer}")
        assert offer.used("VCPU") == 2
        configure(cloud.course, "DEFAULT", "cpu_allocation_ratio", "4.0")
