"""A cloud of three hosts on one machine: a network across them, the death of the host that serves it, its return.

One cloud for the whole file; each test builds on the one before. DHCP server and router are kept off host 1, which holds the cables of
all and so cannot be the one that dies; guests are put on the two other hosts, so that each depends on wires between hosts.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from machine.course import Course, fresh, until

pytestmark = [pytest.mark.machine, pytest.mark.long]
HOSTS = ["nacre-1", "nacre-2", "nacre-3"]


class Cloud:
    """`serving`: the host of DHCP server and router at first; `east`, `west`: the hosts of the guests of these names."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.addresses: dict[str, str] = {}
        self.fixed: dict[str, str] = {}
        self.serving, self.east, self.west = "", "", ""

    def rows(self, *words: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.course.openstack("admin", *words, "-f", "json"))
        return found

    def compute(self) -> dict[str, object]:
        return {str(row["Host"]): row["State"] for row in self.rows("compute", "service", "list", "--service", "nova-compute")}

    def rooms(self, host: str) -> set[str]:
        return {name.split("-")[0] for name in self.on(host, "ip", "netns").split() if name.startswith("q")}

    def on(self, host: str, *words: str) -> str:
        return self.course.nacre("exec", "--node", host.removeprefix("nacre-"), "--", *words).stdout

    def pid(self, role: str, host: str = "") -> int:
        found = json.loads(self.course.nacre("status", "--json").stdout)["processes"]
        return next((int(row["pid"]) for row in found if row["role"] == role and row["host"] == host), 0)

    def reach(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.course.ssh(self.addresses[name], *words)

    def boot(self, name: str, host: str) -> None:
        self.course.openstack("admin", "server", "create", "--flavor", "m1.nano", "--image", "nacre-guest", "--network", "net", "--key-name", "key",
                              "--availability-zone", f"nova:{host}", name)  # fmt: skip


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with fresh("--nodes", "3") as course:
        yield Cloud(course)


def test_three_hosts_are_there(cloud: Cloud) -> None:
    assert cloud.compute() == dict.fromkeys(HOSTS, "up")
    assert sorted(str(row["Hypervisor Hostname"]) for row in cloud.rows("hypervisor", "list")) == HOSTS
    agents = cloud.rows("network", "agent", "list")
    assert len(agents) == 12 and all(row["Alive"] for row in agents)
    said = cloud.course.typed("admin", "nova-manage", "cell_v2", "discover_hosts", "--verbose").stdout
    assert all(f"Creating host mapping for compute host '{host}'" in said for host in HOSTS), said
    assert "Found 0 unmapped computes" in cloud.course.typed("admin", "nova-manage", "cell_v2", "discover_hosts", "--verbose").stdout
    refused = cloud.course.nacre("up", "--nodes", "2", check=False)
    assert refused.returncode == 1 and "--nodes 3" in refused.stderr.splitlines()[-1], refused
    assert cloud.on("nacre-3", "hostname").strip() == "nacre-3"


def test_a_network_across_hosts(cloud: Cloud) -> None:
    course = cloud.course
    if cloud.rows("hypervisor", "list")[0]["Hypervisor Hostname"] == "nacre-1":  # the first that reported gets the first of each
        for line in ("network create n", "subnet create --network n --subnet-range 10.9.0.0/24 n", "router create r", "router add subnet r n"):
            course.openstack("admin", *line.split())
    for line in (
        "flavor create --vcpus 1 --ram 64 --disk 1 m1.nano",
        "network create --external --provider-network-type flat --provider-physical-network external ext",
        "subnet create --network ext --no-dhcp --subnet-range 172.24.4.0/24 --gateway 172.24.4.1 ext",
        "network create net",
        "subnet create --network net --subnet-range 172.16.1.0/24 net",
        "router create router",
        "router add subnet router net",
        "router set router --external-gateway ext",
        "security group rule create --proto icmp default",
        "security group rule create --proto tcp --dst-port 22 default",
    ):
        course.openstack("admin", *line.split())
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(course.work / "id_rsa")], check=True)
    course.openstack("admin", "keypair", "create", "--public-key", str(course.work / "id_rsa.pub"), "key")
    router = course.value("admin", "id", "router", "show", "router")
    cloud.serving = str(cloud.rows("network", "agent", "list", "--router", router)[0]["Host"])
    assert cloud.serving != "nacre-1"
    cloud.east, cloud.west = (host for host in HOSTS if host != cloud.serving)
    cloud.boot("east", cloud.east)
    cloud.boot("west", cloud.west)
    until(lambda: [row["Status"] for row in cloud.rows("server", "list")] == ["ACTIVE"] * 2, 60, every=1)
    for name in ("east", "west"):
        cloud.addresses[name] = course.value("admin", "floating_ip_address", "floating", "ip", "create", "ext")
        course.openstack("admin", "server", "add", "floating", "ip", name, cloud.addresses[name])
    for row in cloud.rows("server", "list"):
        cloud.fixed[str(row["Name"])] = re.findall(r"172\.16\.1\.\d+", json.dumps(row["Networks"]))[0]
    for name in ("east", "west"):
        until(lambda name=name: cloud.reach(name, "true").returncode == 0, 60, every=1)
        assert cloud.reach(name, "hostname").stdout.strip() == name, "its metadata came through the other host"
    assert "3 packets received" in cloud.reach("east", "ping", "-c", "3", cloud.fixed["west"]).stdout
    assert "obtained" in cloud.reach("east", "sudo udhcpc -i eth0 -n -q 2>&1").stdout
    assert cloud.rooms(cloud.serving) == {"qdhcp", "qrouter"}


def test_outside_addresses_are_on_one_host(cloud: Cloud) -> None:
    assert ["172.24.4.1/24" in cloud.on(host, "ip", "-4", "addr") for host in HOSTS] == [True, False, False]


def test_a_stopped_guests_port_is_down(cloud: Cloud) -> None:
    def status() -> list[object]:
        return [row["Status"] for row in cloud.rows("port", "list", "--server", "west")]

    assert status() == ["ACTIVE"]
    cloud.course.openstack("admin", "server", "stop", "west")
    until(lambda: status() == ["DOWN"], 90, every=1)
    cloud.course.openstack("admin", "server", "start", "west")
    until(lambda: status() == ["ACTIVE"], 30, every=1)


def test_a_dead_host(cloud: Cloud) -> None:
    course, supervisor = cloud.course, cloud.pid("up")
    before = float(cloud.reach("east", "cat", "/proc/uptime").stdout.split()[0])
    os.kill(supervisor, signal.SIGSTOP)  # which would start it again at once
    try:
        killed = time.monotonic()
        os.kill(cloud.pid("init", cloud.serving), signal.SIGKILL)
        until(lambda: cloud.compute()[cloud.serving] == "down", 60, every=1)
        assert time.monotonic() - killed < 60
        until(lambda: cloud.reach("east", "true").returncode == 0, 60, every=1)
        assert cloud.rooms(cloud.east) | cloud.rooms(cloud.west) == {"qdhcp", "qrouter"}
        assert "obtained" in cloud.reach("east", "sudo udhcpc -i eth0 -n -q 2>&1").stdout
        assert float(cloud.reach("east", "cat", "/proc/uptime").stdout.split()[0]) > before
        cloud.boot("nowhere", cloud.serving)
        until(lambda: course.value("admin", "status", "server", "show", "nowhere") == "ERROR", 30)
        assert "its compute service is down" in course.value("admin", "fault", "server", "show", "nowhere")
        course.openstack("admin", "server", "delete", "nowhere")
    finally:
        os.kill(supervisor, signal.SIGCONT)


def test_it_returns(cloud: Cloud) -> None:
    until(lambda: cloud.compute() == dict.fromkeys(HOSTS, "up"), 30, every=1)
    assert cloud.rooms(cloud.serving) == set(), "what was moved stays where it is"
    cloud.boot("third", cloud.serving)
    until(lambda: cloud.course.value("admin", "status", "server", "show", "third") == "ACTIVE", 60)
    fixed = re.findall(r"172\.16\.1\.\d+", cloud.course.value("admin", "addresses", "server", "show", "third"))[0]
    until(lambda: "1 packets received" in cloud.reach("east", "ping", "-c", "1", fixed).stdout, 60, every=1)


def test_service_commands(cloud: Cloud) -> None:
    said = cloud.course.typed("admin", "openstack-status").stdout
    assert re.search(r"^openstack-nova-compute: +active$", said, re.M) and "== Nova instances ==" in said, said
    before = cloud.course.typed("admin", "openstack-service", "status", "neutron-server").stdout
    assert re.fullmatch(r"MainPID=\d+ Id=neutron-server.service ActiveState=active\n", before)
    cloud.course.typed("admin", "openstack-service", "restart", "neutron-server")
    after = cloud.course.typed("admin", "openstack-service", "status", "neutron-server").stdout
    assert "ActiveState=active" in after and after != before
    cloud.course.typed("admin", "openstack-service", "stop", "nova-compute")
    assert cloud.pid("node", "nacre-3") == 0
    assert re.search(r"^openstack-nova-compute: +inactive$", cloud.course.typed("admin", "openstack-status").stdout, re.M)
    cloud.course.typed("admin", "openstack-service", "start", "nova-compute")
    assert cloud.pid("node", "nacre-3")
    assert cloud.course.typed("admin", "openstack-service", "stop", "mysqld", check=False).returncode == 1
