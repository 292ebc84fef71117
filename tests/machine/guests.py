"""What every test about servers needs: networks with a way out, flavors, a key, and real guests with floating IPs, asked by ssh.

`prepare` sets up by plain requests what other tests type; what a test is about it types itself.
"""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from machine.course import Course, until
from machine.rest import Rest

FLAVORS = {"small": ("1", 64, 1, 1), "larger": ("2", 96, 2, 2), "huge": ("3", 50000, 1, 1)}


def prepare(course: Course) -> None:
    """Flavors, `ext1`, demo's `net1` (behind a router) and `net2` (with a gateway that leads nowhere), a key, ping and ssh allowed."""
    admin, demo = Rest(course, "admin"), Rest(course, "demo")
    for name, (id_, ram, vcpus, disk) in FLAVORS.items():
        admin("POST", "/compute/v2.1/flavors", {"flavor": {"id": id_, "name": name, "ram": ram, "vcpus": vcpus, "disk": disk}})
    physical = {"provider:network_type": "flat", "provider:physical_network": "external", "router:external": True}
    external = admin.network("network", name="ext1", **physical)["id"]
    admin.network("subnet", network_id=external, ip_version=4, cidr="172.24.4.0/24", enable_dhcp=False)
    router = demo.network("router", name="router", external_gateway_info={"network_id": external})["id"]
    for number in (1, 2):
        network = demo.network("network", name=f"net{number}")["id"]
        subnet = demo.network("subnet", name=f"net{number}", network_id=network, ip_version=4, cidr=f"172.16.{number}.0/24")["id"]
        if number == 1:
            demo("PUT", f"/network/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet})
    groups = demo("GET", f"/network/v2.0/security-groups?name=default&project_id={_project(course)}")["security_groups"]
    for wanted in ({"protocol": "icmp"}, {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}):
        demo.network("security_group_rule", security_group_id=groups[0]["id"], direction="ingress", **wanted)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(course.work / "id_rsa")], check=True)
    demo("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "key", "public_key": (course.work / "id_rsa.pub").read_text()}})


def _project(course: Course) -> str:
    return course.value("admin", "id", "project", "show", "demo")


@dataclass(frozen=True)
class Guest:
    """A server of demo's with a floating IP on its first port."""

    course: Course
    name: str
    id: str
    domain: str
    address: str
    api: Rest

    def run(self, *command: str, timeout: float = 30) -> str:
        """What a shell command in the guest says; it must succeed."""
        done = self.course.ssh(self.address, *command, timeout=timeout)
        assert done.returncode == 0, (self.name, command, done.stdout, done.stderr)
        return done.stdout.strip()

    def answers(self) -> bool:
        return self.course.ssh(self.address, "true", timeout=20).returncode == 0

    def reached(self, seconds: float = 240) -> None:
        until(self.answers, seconds, every=1)

    def uptime(self) -> float:
        return float(self.run("cat", "/proc/uptime").split()[0])

    def boot(self) -> str:
        """Another one after every start of the guest's kernel."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id")

    def pings(self) -> bool:
        return self.course.exec("ping", "-c", "1", "-W", "1", self.address, check=False).returncode == 0

    def typed(self, *words: str) -> str:
        """`openstack server WORDS NAME` by demo."""
        return self.course.openstack("demo", "server", *words, self.name)

    def status(self) -> str:
        return str(self.api("GET", f"/compute/v2.1/servers/{self.id}")["server"]["status"])

    def becomes(self, wanted: str, seconds: float = 180) -> None:
        def there() -> bool:
            now = self.status()
            assert now == wanted or now != "ERROR", self.api("GET", f"/compute/v2.1/servers/{self.id}")["server"].get("fault")
            return now == wanted

        until(there, seconds)

    def power(self) -> str:
        """As libvirt has it: `running`, `paused`, `shut off`."""
        return self.course.exec("virsh", "domstate", self.domain).stdout.strip()

    @contextmanager
    def undisturbed(self, lost: int = 2) -> Iterator[None]:
        """Pinged from outside all the while, the guest answers (all but `lost` times); then it is still the same boot, further on."""
        before, boot, began = self.uptime(), self.boot(), time.monotonic()
        words = [str(self.course.clone / "nacre"), "exec", "--home", str(self.course.home), "--"]
        ping = subprocess.Popen([*words, "ping", "-i", "0.25", self.address], stdout=subprocess.PIPE, text=True)
        try:
            yield
        finally:
            ping.terminate()
            told = ping.communicate(timeout=20)[0]
        assert self.boot() == boot and self.uptime() >= before + 0.9 * (time.monotonic() - began)
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", told)}
        assert len(answered) > 8 and len(answered) >= max(answered) - lost, told


def create(course: Course, name: str, *options: str, image: str = "nacre-guest", flavor: str = "small", network: str = "net1") -> Guest:
    """A server that is ACTIVE, with a floating IP; its guest may still be booting."""
    words = ("--flavor", flavor, "--image", image, "--network", network, "--key-name", "key", *options, name)
    id_ = json.loads(course.openstack("demo", "server", "create", *words, "-f", "json"))["id"]
    demo, admin = Rest(course, "demo"), Rest(course, "admin")
    domain = admin("GET", f"/compute/v2.1/servers/{id_}")["server"]["OS-EXT-SRV-ATTR:instance_name"]
    ports = demo("GET", f"/network/v2.0/ports?device_id={id_}")["ports"]
    inside = next(port["id"] for port in ports if port["fixed_ips"][0]["ip_address"].startswith("172.16.1."))
    external = demo("GET", "/network/v2.0/networks?name=ext1")["networks"][0]["id"]
    made = demo.network("floatingip", floating_network_id=external, port_id=inside)
    guest = Guest(course, name, id_, domain, made["floating_ip_address"], demo)
    guest.becomes("ACTIVE")
    return guest
