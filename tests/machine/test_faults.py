"""The daemons of a host hang and are killed: they are named, what needs them waits or says so, the rest goes on, a killed one is back in
a moment, and when it is over everything is as it should be without a word from anybody. A guest that is never touched notices nothing.

Here the switch forwards in user space, so while vswitchd hangs nothing is forwarded; the guest itself runs on.
"""

import contextlib
import json
import time
from collections.abc import Iterator

import pytest

from machine.course import Course, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest

pytestmark = [pytest.mark.machine, pytest.mark.long]
HOSTS = ("ovs-vswitchd", "ovsdb-server", "virtlogd", "libvirtd")


class Cloud:
    def __init__(self, course: Course, steady: Guest) -> None:
        self.course, self.steady = course, steady
        self.admin, self.demo = Rest(course, "admin"), Rest(course, "demo")

    def pid(self, daemon: str) -> int:
        """Of a daemon of the host, inside; 0 while there is none."""
        if daemon == "dnsmasq":
            return int(self.course.exec("pidof", "-s", "dnsmasq", check=False).stdout or 0)
        return int(json.loads((self.course.home / "hosts/1/daemons.json").read_text())[daemon]["pid"])

    def signal(self, name: str, pid: int) -> None:
        self.course.exec("kill", f"-{name}", str(pid))

    def service(self) -> dict[str, str]:
        found: dict[str, str] = self.admin("GET", "/compute/v2.1/os-services?binary=nova-compute")["services"][0]
        return found

    def agent(self, binary: str) -> bool:
        return bool(self.admin("GET", f"/network/v2.0/agents?binary=neutron-{binary}-agent")["agents"][0]["alive"])

    def differences(self) -> list[tuple[str, str]]:
        told = json.loads(self.course.nacre("doctor", "--json", check=False).stdout)
        return [(one["kind"], one["what"]) for one in told["found"]]

    def named(self, daemon: str) -> bool:
        return any(kind == "daemon" and what.startswith(daemon) for kind, what in self.differences())

    def healthy(self) -> None:
        until(lambda: self.service()["status"] == "enabled" and all(map(self.agent, ("openvswitch", "dhcp", "l3", "metadata"))), 60)
        until(lambda: self.differences() == [], 60)

    @contextlib.contextmanager
    def hanging(self, daemon: str) -> Iterator[None]:
        pid = self.pid(daemon)
        self.signal("STOP", pid)
        try:
            yield
        finally:
            self.signal("CONT", pid)

    def quick(self) -> None:
        """What needs no daemon of the host answers at once."""
        begun = time.monotonic()
        network = self.demo.network("network", name="meanwhile")["id"]
        self.demo("GET", "/image/v2/images")
        self.demo("POST", f"/compute/v2.1/servers/{self.steady.id}/action", {"os-getConsoleOutput": {"length": 5}})
        self.demo("DELETE", f"/network/v2.0/networks/{network}")
        assert time.monotonic() - begun < 6


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with fresh() as course:
        prepare(course)
        steady = create(course, "steady")
        steady.reached()
        yield Cloud(course, steady)


def test_libvirtd_hangs(cloud: Cloud) -> None:
    doomed = create(cloud.course, "doomed")
    with cloud.steady.undisturbed():
        with cloud.hanging("libvirtd"):
            until(lambda: cloud.service()["status"] == "disabled", 40)
            assert cloud.service()["disabled_reason"].startswith("AUTO: Connection to libvirt lost")
            assert cloud.service()["state"] == "up" and cloud.agent("openvswitch")
            assert cloud.named("libvirtd")
            assert "Stopped: libvirtd of nacre-1" in cloud.course.nacre("status").stdout
            cloud.quick()
            cloud.demo("DELETE", f"/compute/v2.1/servers/{doomed.id}")
            until(lambda: doomed.name not in cloud.course.openstack("demo", "server", "list"), 90)
        cloud.healthy()
        assert doomed.domain not in cloud.course.exec("virsh", "list", "--all").stdout
    create(cloud.course, "after").reached()
    cloud.course.openstack("demo", "server", "delete", "--wait", "after")


@pytest.mark.parametrize("daemon", ["virtlogd", "ovsdb-server", "dnsmasq"])
def test_a_daemon_hangs(cloud: Cloud, daemon: str) -> None:
    """A server that is asked for meanwhile waits, and comes when the daemon is back."""
    with cloud.steady.undisturbed():
        with cloud.hanging(daemon):
            until(lambda: cloud.named(daemon), 40)
            assert f"Stopped: {daemon} of nacre-1" in cloud.course.nacre("status").stdout
            assert cloud.service()["state"] == "up"
            assert cloud.agent("openvswitch") == (daemon != "ovsdb-server") and cloud.agent("dhcp") == (daemon != "dnsmasq")
            cloud.quick()
            words = ("--flavor", "small", "--image", "nacre-guest", "--network", "net1", "--key-name", "key", "meanwhile")
            made = json.loads(cloud.course.openstack("demo", "server", "create", *words, "-f", "json"))["id"]
            time.sleep(8)
            assert cloud.demo("GET", f"/compute/v2.1/servers/{made}")["server"]["status"] in ("BUILD", "ACTIVE")
        until(lambda: cloud.demo("GET", f"/compute/v2.1/servers/{made}")["server"]["status"] == "ACTIVE", 90)
        cloud.healthy()
    cloud.course.openstack("demo", "server", "delete", "--wait", "meanwhile")


def test_vswitchd_hangs(cloud: Cloud) -> None:
    before, boot = cloud.steady.uptime(), cloud.steady.boot()
    with cloud.hanging("ovs-vswitchd"):
        until(lambda: not cloud.agent("openvswitch"), 40)
        assert cloud.named("ovs-vswitchd")
        cloud.quick()
        assert cloud.steady.power() == "running"
    cloud.steady.reached()
    assert cloud.steady.uptime() > before and cloud.steady.boot() == boot
    cloud.healthy()


@pytest.mark.parametrize("daemon", [*HOSTS, "dnsmasq"])
def test_a_daemon_is_killed(cloud: Cloud, daemon: str) -> None:
    with cloud.steady.undisturbed(lost=40 if daemon == "ovs-vswitchd" else 2):
        before = cloud.pid(daemon)
        cloud.signal("KILL", before)
        begun = time.monotonic()
        until(lambda: cloud.pid(daemon) not in (0, before), 10, every=0.05)
        assert time.monotonic() - begun < 3
        cloud.healthy()


def test_the_agent_hangs(cloud: Cloud) -> None:
    """The host is shown down; servers and everything on it go on; then all comes back by itself."""
    pid = next(row["pid"] for row in json.loads(cloud.course.nacre("status", "--json").stdout)["processes"] if row["role"] == "node")
    with cloud.steady.undisturbed():
        cloud.course.typed("admin", "kill", "-STOP", str(pid))
        try:
            until(lambda: cloud.service()["state"] == "down" and not cloud.agent("openvswitch"), 80)
            assert ("host-down", "nacre-1") in cloud.differences()
            assert "Stopped: node of nacre-1" in cloud.course.nacre("status").stdout
            assert cloud.steady.status() == "ACTIVE"
        finally:
            cloud.course.typed("admin", "kill", "-CONT", str(pid))
        until(lambda: cloud.service()["state"] == "up", 30)
        cloud.healthy()
