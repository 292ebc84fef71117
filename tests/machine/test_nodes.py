"""A cloud that grows to three hosts on one machine: a network across them, the death of host 1, which holds the cables of all, the death of
the host that serves the network, each one's return.

One cloud for the whole file; each test builds on the one before. Host 1 has the DHCP server and router of the network made before there were
more hosts, so those of `net` are on another; its guests are put on the two others, so that each depends on wires between hosts.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from websockets.sync.client import connect

from machine.course import Course, fresh, until
from machine.rest import Rest
from nacre.core import tls

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
        return next(iter(self.pids(role, host)), 0)

    def pids(self, role: str, host: str = "") -> list[int]:
        found = json.loads(self.course.nacre("status", "--json").stdout)["processes"]
        return [int(row["pid"]) for row in found if row["role"] == role and (row["host"] or "") == host]

    def api_answers_in(self, host: str) -> bool:
        script = f"import socket; socket.create_connection(('127.0.0.1', {self.course.port}), 5)"
        return self.course.nacre("exec", "--node", host.removeprefix("nacre-"), "--", "python3", "-c", script, check=False).returncode == 0

    def uptime(self, name: str) -> float:
        return float(self.reach(name, "cat", "/proc/uptime").stdout.split()[0])

    def identity(self, host: str) -> Path:
        return self.course.home / "hosts" / host.removeprefix("nacre-") / "node" / "tls" / "identity.pem"

    def reach(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.course.ssh(self.addresses[name], *words)

    def boot(self, name: str, host: str) -> None:
        self.course.openstack("admin", "server", "create", "--flavor", "m1.nano", "--image", "nacre-guest", "--network", "net", "--key-name", "key",
                              "--availability-zone", f"nova:{host}", name)  # fmt: skip


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with fresh() as course:
        yield Cloud(course)


def test_it_grows(cloud: Cloud) -> None:
    course = cloud.course
    for line in (
        "flavor create --vcpus 1 --ram 64 --disk 1 m1.nano",
        "network create n",
        "subnet create --network n --subnet-range 10.9.0.0/24 n",
        "router create r",
        "router add subnet r n",
        "server create --flavor m1.nano --image nacre-guest --network n first",
    ):
        course.openstack("admin", *line.split())
    until(lambda: course.value("admin", "status", "server", "show", "first") == "ACTIVE", 60)
    before = cloud.pids("guest", "nacre-1")
    assert len(before) == 1
    course.nacre("up", "--nodes", "3")
    assert cloud.pids("guest", "nacre-1") == before and course.value("admin", "status", "server", "show", "first") == "ACTIVE"
    course.openstack("admin", "server", "delete", "--wait", "first")


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
    for line in (
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


def test_consoles_of_guests_on_other_hosts(cloud: Cloud) -> None:
    trusted = ssl.create_default_context(cafile=str(cloud.course.home / "ca.pem"))
    address = cloud.course.value("admin", "url", "console", "url", "show", "--novnc", "west")
    address = re.sub(r"^https://(.*)/console/\w+\.html\?path=console%2F", r"wss://\1/console/", address)
    with connect(address, ssl=trusted, proxy=None, legacy=True) as screen:
        assert screen.recv(10) == b"RFB 003.008\n"


def test_certificates_are_renewed(cloud: Cloud) -> None:
    assert [path.name for path in (cloud.course.home / "run" / "node").iterdir()] == ["nacre-1.sock"], "the others have no other way in"
    path, keys = cloud.identity("nacre-3"), cloud.course.home / "keys"
    held = x509.load_pem_x509_certificate(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert held.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == "nacre-3"
    admission = str(held.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)[0].value)
    key, csr = tls.request("nacre-3")
    signer = tls.Pair(keys / "node-ca.key", keys / "node-ca.crt")
    old = tls.sign_node(signer, x509.load_pem_x509_csr(csr).public_key(), "nacre-3", admission, timedelta(minutes=25))
    part = path.with_suffix(".old")
    part.write_bytes(key + old)  # valid for an hour already: less than a third of its life is left
    part.chmod(0o600)
    part.rename(path)
    os.kill(cloud.pid("node", "nacre-3"), signal.SIGKILL)

    def renewed() -> bool:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        return found.not_valid_after_utc - datetime.now(UTC) > timedelta(days=700)

    until(renewed, 30)
    os.kill(cloud.pid("node", "nacre-3"), signal.SIGKILL)
    until(lambda: cloud.pid("node", "nacre-3") and cloud.compute() == dict.fromkeys(HOSTS, "up"), 30, every=1)


def test_host_1_dies_and_returns(cloud: Cloud) -> None:
    staying = "west" if cloud.east == "nacre-1" else "east"
    going = "east" if staying == "west" else "west"
    before, api = cloud.uptime(staying), cloud.pid("api")
    first = cloud.pid("init", "nacre-1")
    os.kill(first, signal.SIGKILL)
    until(lambda: cloud.pid("init", "nacre-1") not in (0, first), 30)
    until(lambda: cloud.reach(staying, "true").returncode == 0, 60, every=1)
    assert cloud.uptime(staying) > before, "it runs on another host and has noticed nothing but the wires"
    until(lambda: cloud.reach(going, "true").returncode == 0, 60, every=1)
    assert "3 packets received" in cloud.reach(going, "ping", "-c", "3", cloud.fixed[staying]).stdout
    assert "obtained" in cloud.reach(going, "sudo udhcpc -i eth0 -n -q 2>&1").stdout
    until(lambda: cloud.compute() == dict.fromkeys(HOSTS, "up"), 30, every=1)
    assert all(cloud.api_answers_in(host) for host in HOSTS) and cloud.pid("api") == api, "told, not started again"


def test_a_dead_host(cloud: Cloud) -> None:
    course, supervisor, rest = cloud.course, cloud.pid("up"), Rest(cloud.course, "admin")
    before = cloud.uptime("east")
    others, init = [host for host in HOSTS if host != cloud.serving], cloud.pid("init", cloud.serving)
    os.kill(supervisor, signal.SIGSTOP)  # which would start it again at once
    try:
        fleeting = begun_on(cloud, rest, others)
        os.kill(init, signal.SIGKILL)
        killed = time.monotonic()
        assert rest("GET", f"/compute/v2.1/servers/{fleeting}")["server"]["status"] == "BUILD"
        for host in others:
            course.openstack("admin", "compute", "service", "set", "--enable", host, "nova-compute")
        until(lambda: cloud.compute()[cloud.serving] == "down", 60, every=1)
        assert time.monotonic() - killed < 60
        until(lambda: cloud.reach("east", "true").returncode == 0, 60, every=1)
        assert cloud.rooms(cloud.east) | cloud.rooms(cloud.west) == {"qdhcp", "qrouter"}
        assert "obtained" in cloud.reach("east", "sudo udhcpc -i eth0 -n -q 2>&1").stdout
        assert cloud.uptime("east") > before
        cloud.boot("nowhere", cloud.serving)
        until(lambda: course.value("admin", "status", "server", "show", "nowhere") == "ERROR", 30)
        assert "its compute service is down" in course.value("admin", "fault", "server", "show", "nowhere")
        course.openstack("admin", "server", "delete", "nowhere")
        until(lambda: course.value("admin", "status", "server", "show", "fleeting") != "BUILD", 90, every=1)
        assert course.value("admin", "status", "server", "show", "fleeting") == "ACTIVE", course.value("admin", "fault", "server", "show", "fleeting")
        assert course.value("admin", "OS-EXT-SRV-ATTR:host", "server", "show", "fleeting") in others
    finally:
        os.kill(supervisor, signal.SIGCONT)


def begun_on(cloud: Cloud, rest: Rest, others: list[str]) -> str:
    """A server that the scheduler has put on the only host that is enabled, and that is not there yet."""
    for host in others:
        cloud.course.openstack("admin", "compute", "service", "set", "--disable", host, "nova-compute")
    flavor, image, network = (
        next(row["id"] for row in rest("GET", path)[kind] if row["name"] == name)
        for path, kind, name in (("/compute/v2.1/flavors", "flavors", "m1.nano"), ("/image/v2/images", "images", "nacre-guest"),
                                 ("/network/v2.0/networks", "networks", "net"))
    )  # fmt: skip
    wanted = {"name": "fleeting", "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}]}
    made: str = rest("POST", "/compute/v2.1/servers", {"server": wanted})["server"]["id"]

    def host() -> Any:
        return rest("GET", f"/compute/v2.1/servers/{made}")["server"]["OS-EXT-SRV-ATTR:host"]

    assert until(host, 20, every=0.05) == cloud.serving
    return made


def test_it_returns(cloud: Cloud) -> None:
    api = cloud.pid("api")
    until(lambda: cloud.compute() == dict.fromkeys(HOSTS, "up"), 30, every=1)
    assert cloud.api_answers_in(cloud.serving) and cloud.pid("api") == api, "told, not started again"
    until(lambda: cloud.on(cloud.serving, "virsh", "list", "--all", "--name").strip() == "", 30, every=1)
    cloud.course.openstack("admin", "server", "delete", "--wait", "fleeting")
    assert cloud.rooms(cloud.serving) == set(), "what was moved stays where it is"
    cloud.boot("third", cloud.serving)
    until(lambda: cloud.course.value("admin", "status", "server", "show", "third") == "ACTIVE", 60)
    fixed = re.findall(r"172\.16\.1\.\d+", cloud.course.value("admin", "addresses", "server", "show", "third"))[0]
    until(lambda: "1 packets received" in cloud.reach("east", "ping", "-c", "1", fixed).stdout, 60, every=1)


def test_service_commands(cloud: Cloud) -> None:
    said = cloud.course.typed("admin", "openstack-status").stdout
    assert re.findall(r"^== (.*) ==$", said, re.M) == [
        "Nova services", "Placement service", "Glance services", "Keystone service", "neutron services", "Support services", "Keystone users",
        "Glance images", "Nova managed services", "Nova networks", "Nova instance flavors", "Nova instances",
    ]  # fmt: skip
    assert f"{'openstack-nova-compute:':<40}active\n" in said and f"{'libvirtd:':<40}active\n" in said and "nacre-guest" in said, said
    bare = cloud.course.typed("admin", "env", "-u", "OS_AUTH_URL", "openstack-status")
    assert bare.stdout.endswith("== Keystone users ==\n") and "Warning keystonerc not sourced" in bare.stderr
    listed = cloud.course.typed("admin", "openstack-service", "list", "neutron", "nova-compute").stdout.split()
    agents = [f"neutron-{name}-agent" for name in ("dhcp", "l3", "metadata", "openvswitch")]
    assert listed == [*agents, "neutron-server", "openstack-nova-compute"]
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
