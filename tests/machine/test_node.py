"""A node for real, with a file of wanted documents and calls for a control plane: a guest is made, reached by ssh through a floating IP
with the key it got as metadata, survives its agent, and is gone without a trace when it is told to go."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nacre.core.config import Home
from nacre.guest import build
from nacre.node.commands import CommandFailed, run
from nacre.sandbox.cables import underlay_address
from nacre.sandbox.host import SandboxHost

pytestmark = pytest.mark.machine

SOURCE = Path(build.__file__).parents[2]
HOST = "nacre-1"
NET, OUT = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
ROUTER, GROUP = "33333333-0000-4000-8000-000000000001", "44444444-0000-4000-8000-000000000001"
PORT, SERVER = "a0000000-0000-4000-8000-000000000001", "6c1f1b4e-0000-4000-8000-000000000001"
TAP, DOMAIN = f"tap{PORT[:11]}", "instance-00000001"
FIXED, FLOATING = "10.20.0.10", "172.24.4.50"


def documents() -> dict[tuple[str, str], dict[str, Any]]:
    """A tenant's network with a router to the outside, one port with a floating IP, ssh and ping let in."""
    subnet = {"id": "s1", "cidr": "10.20.0.0/24", "ip_version": 4, "gateway_ip": "10.20.0.1", "enable_dhcp": True, "dns_nameservers": [],
              "host_routes": [], "ipv6_ra_mode": None, "ipv6_address_mode": None}  # fmt: skip
    outer = {**subnet, "id": "s2", "cidr": "172.24.4.0/24", "gateway_ip": "172.24.4.1", "enable_dhcp": False}
    network = {"network_type": "vxlan", "physical_network": None, "segmentation_id": 1001, "mtu": 1450, "admin_state_up": True}
    rule = {"direction": "ingress", "ethertype": "IPv4", "port_range_min": None, "port_range_max": None, "remote_ip_prefix": None,
            "remote_group_id": None}  # fmt: skip
    rules = [
        {**rule, "id": "r1", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22},
        {**rule, "id": "r2", "protocol": "icmp"},
        {**rule, "id": "r3", "protocol": None, "direction": "egress"},
    ]
    fixed = [{"ip_address": FIXED, "subnet_id": "s1"}]
    return {
        ("host", HOST): {"tunnel_ip": underlay_address(1), "bridge_mappings": {"external": "br-ex"}, "peers": []},
        ("outside", "external"): {"addresses": ["172.24.4.1/24"]},
        ("network", NET): {**network, "subnets": [subnet]},
        ("network", OUT): {**network, "network_type": "flat", "physical_network": "external", "segmentation_id": None, "mtu": 1500,
                           "subnets": [outer]},
        ("dhcp", NET): {
            "network_id": NET,
            "port": {"id": "d0000000-0000-4000-8000-000000000001", "mac_address": "fa:16:3e:00:00:02",
                     "fixed_ips": [{"ip_address": "10.20.0.2", "prefixlen": 24, "subnet_id": "s1"}]},
            "dns_domain": "openstacklocal",
            "hosts": [{"port_id": PORT, "mac_address": "fa:16:3e:00:00:0a", "hostname": "host-10-20-0-10", "fixed_ips": fixed}],
        },
        ("router", ROUTER): {
            "admin_state_up": True,
            "interfaces": [{"port_id": "e0000000-0000-4000-8000-000000000001", "network_id": NET, "mac_address": "fa:16:3e:00:00:01",
                            "fixed_ips": [{"ip_address": "10.20.0.1", "prefixlen": 24, "subnet_id": "s1"}]}],
            "gateway": {"port_id": "f0000000-0000-4000-8000-000000000001", "network_id": OUT, "mac_address": "fa:16:3e:00:00:03",
                        "enable_snat": True, "fixed_ips": [{"ip_address": "172.24.4.10", "prefixlen": 24, "subnet_id": "s2"}],
                        "gateway_ips": ["172.24.4.1"]},
            "floating_ips": [{"id": "f1", "floating_ip_address": FLOATING, "fixed_ip_address": FIXED}],
            "routes": [],
        },
        ("security_group", GROUP): {"stateful": True, "rules": rules},
        ("port", PORT): {"network_id": NET, "mac_address": "fa:16:3e:00:00:0a", "tap": TAP, "admin_state_up": True, "port_security": True,
                         "fixed_ips": fixed, "allowed_address_pairs": [], "security_groups": [GROUP], "device_id": SERVER,
                         "device_owner": "compute:nova"},
    }  # fmt: skip


class Node:
    """A sandbox host, its agent, and the file that the agent takes for its control plane."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self.sandbox = SandboxHost(Home(folder / "home"), 1)
        self.wanted: dict[str, Any] = {"epoch": 1, "documents": [], "calls": [], "images": {"i1": ""}, "metadata": {}}
        content = image.read_bytes()
        self.image = {"image_id": "i1", "disk_format": "qcow2", "size": len(content), "hash_algo": "sha512",
                      "hash_value": hashlib.sha512(content).hexdigest()}  # fmt: skip
        self.sandbox.ensure()
        self.file = self.sandbox.folder / "wanted.json"
        (self.sandbox.folder / "guest.qcow2").write_bytes(content)
        self.wanted["images"] = {"i1": str(self.sandbox.home.reach / "hosts/1/guest.qcow2")}
        self.agent: subprocess.Popen[bytes] | None = None
        self.log = (folder / "agent.log").open("ab")

    def write(self) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.wanted))
        part.replace(self.file)

    def want(self, found: dict[tuple[str, str], dict[str, Any]]) -> None:
        self.wanted["documents"] = [{"kind": kind, "id": key, "version": 1, "body": body} for (kind, key), body in found.items()]
        self.write()

    def call(self, verb: str, args: dict[str, Any], attempt: int = 1, limit: float = 60, killed_after: float | None = None) -> Any:
        name = f"call-{len(self.wanted['calls'])}"
        self.wanted["calls"].append({"id": name, "verb": verb, "args": args, "fence": [1, attempt], "deadline": limit})
        self.write()
        if killed_after is not None:
            time.sleep(killed_after)
            self.end(signal.SIGKILL)
            self.start()
        self.until(lambda: name in self.report()["results"], limit + 5)
        result = self.report()["results"][name]
        assert result["ok"], (result, self.tail())
        return result.get("value")

    def report(self) -> dict[str, Any]:
        path = self.file.with_suffix(".report.json")
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"results": {}, "applied": {}, "seen": {}}
        return found

    def power(self) -> str | None:
        power: str | None = self.report()["seen"].get("servers", {}).get(SERVER, {}).get("power")
        return power

    def applied(self, kind: str, key: str) -> bool:
        return key in self.report()["applied"].get(kind, {})

    def start(self) -> None:
        argv = [sys.executable, "-m", "nacre.node.run", "--home", str(self.sandbox.home.path), "--wanted"]
        argv.append(str(self.sandbox.home.reach / "hosts/1/wanted.json"))
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        self.agent = self.sandbox.spawn(argv, env=environment, output=self.log.fileno())

    def end(self, how: signal.Signals) -> None:
        if self.agent:
            self.agent.send_signal(how)
            self.agent.wait(15)
            self.agent = None

    def inside(self, *argv: str, timeout: float = 30) -> str:
        return run(self.sandbox.command(argv), timeout=timeout)

    def tail(self) -> str:
        return (self.folder / "agent.log").read_text()[-6000:]

    def until(self, true: Callable[[], object], limit: float) -> float:
        begin = time.monotonic()
        while not true():
            assert time.monotonic() - begin < limit, self.tail()
            assert self.agent is None or self.agent.poll() is None, self.tail()
            time.sleep(0.05)
        return time.monotonic() - begin

    def ssh(self, *command: str) -> str:
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", "-o", "BatchMode=yes"]
        key = str(self.sandbox.home.reach / "hosts/1/key")
        return self.inside("ssh", "-q", *options, "-i", key, f"cirros@{FLOATING}", *command)

    def answers(self) -> bool:
        try:
            return self.ssh("hostname").strip() == "web"
        except CommandFailed:
            return False


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    image = folder / "guest.qcow2"
    build.build(image, print)
    made = Node(folder, image)
    try:
        yield made
    finally:
        made.end(signal.SIGKILL)
        made.sandbox.stop()
        made.log.close()


def spec(node: Node) -> dict[str, Any]:
    port = {"id": PORT, "mac_address": "fa:16:3e:00:00:0a", "tap": TAP, "mtu": 1450}
    return {"id": SERVER, "number": 1, "name": "web", "project_id": "p", "vcpus": 1, "memory_mb": 96, "root_gb": 1, "image": node.image,
            "ports": [port], "metadata": {"flavor": {"name": "m1.nano"}, "owner": {"user_id": "u", "user_name": "demo"}}}  # fmt: skip


def guest_pid(node: Node) -> int:
    return next((process.pid for process in node.sandbox.processes() if process.role == "guest"), 0)


def test_a_guest_is_made_and_reached_by_ssh_through_a_floating_ip(node: Node) -> None:
    key = node.sandbox.folder / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    about = {"uuid": SERVER, "hostname": "web.novalocal", "name": "web", "public_keys": {"k": key.with_suffix(".pub").read_text()}}
    files = {"openstack/latest/meta_data.json": json.dumps(about)}
    node.wanted["metadata"] = {FIXED: {"server_id": SERVER, "project_id": "p", "files": files}}
    node.want(documents())
    begin = time.monotonic()
    node.start()
    assert node.call("ensure_image", node.image)["virtual_size"] == 56 << 20
    made = node.call("ensure_server", {"spec": spec(node), "power": "paused"})
    assert made == {"power": "paused", "domain": DOMAIN}
    node.until(lambda: node.applied("port", PORT) and node.applied("dhcp", NET) and node.applied("router", ROUTER), 30)
    wired = time.monotonic() - begin
    assert node.call("ensure_power", {"server_id": SERVER, "power": "running"}) == {"power": "running"}
    node.until(node.answers, 90)
    print(f"paused guest wired after {wired:.1f} s, ssh after {time.monotonic() - begin:.1f} s")
    assert "m1.nano" in node.inside("virsh", "dumpxml", DOMAIN)
    assert "booted" in node.call("console_log", {"server_id": SERVER, "lines": None})["output"] or node.ssh("uptime")


def test_the_guest_survives_its_agent_and_a_second_one_adopts_it(node: Node) -> None:
    before = guest_pid(node)
    assert before
    node.end(signal.SIGKILL)
    assert node.answers()
    node.start()
    assert node.call("ensure_server", {"spec": spec(node), "power": "paused"})["power"] == "running", "one that is on is left as it is"
    assert guest_pid(node) == before and node.answers()
    node.end(signal.SIGTERM)
    assert node.answers() and guest_pid(node) == before
    node.start()
    node.until(lambda: node.power() == "running", 20)


def test_what_virsh_does_behind_our_back_is_seen_within_a_second(node: Node) -> None:
    node.call("console_log", {"server_id": SERVER, "lines": 1})
    node.inside("virsh", "suspend", DOMAIN)
    assert node.until(lambda: node.power() == "paused", 5) < 1
    node.inside("virsh", "destroy", DOMAIN)
    assert node.until(lambda: node.power() == "shutdown", 5) < 1
    node.call("ensure_power", {"server_id": SERVER, "power": "running"})
    node.until(node.answers, 90)


def test_a_libvirtd_that_died_is_found_again(node: Node) -> None:
    before = guest_pid(node)
    libvirtd = next(process.pid for process in node.sandbox.processes() if process.role == "libvirtd")
    os.kill(libvirtd, signal.SIGKILL)
    node.until(lambda: "answers again" in node.tail(), 10)
    node.inside("virsh", "suspend", DOMAIN)
    assert node.until(lambda: node.power() == "paused", 5) < 1
    assert node.call("ensure_power", {"server_id": SERVER, "power": "running"})["power"] == "running"
    assert guest_pid(node) == before and node.answers()


def test_a_libvirtd_that_hangs_fails_calls_and_holds_up_no_others(node: Node) -> None:
    libvirtd = next(process.pid for process in node.sandbox.processes() if process.role == "libvirtd")
    os.kill(libvirtd, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        assert node.call("console_log", {"server_id": SERVER, "lines": 1}, limit=10) is not None
        with pytest.raises(AssertionError, match=r"took longer than 3 s|deadline exceeded"):
            node.call("ensure_power", {"server_id": SERVER, "power": "paused"}, limit=3)
        print(f"answered after {time.monotonic() - begin:.1f} s")
    finally:
        os.kill(libvirtd, signal.SIGCONT)
    node.until(lambda: node.report()["seen"].get("servers"), 30)
    node.call("ensure_power", {"server_id": SERVER, "power": "running"})


def test_a_reboot_is_done_once_a_fence(node: Node) -> None:
    first = guest_pid(node)
    node.call("reboot_server", {"server_id": SERVER, "hard": False, "timeout": 20}, attempt=2)
    second = guest_pid(node)
    node.call("reboot_server", {"server_id": SERVER, "hard": True}, attempt=2)
    assert first != second == guest_pid(node)
    node.until(node.answers, 90)


def test_after_a_boot_of_the_host_the_guest_starts_again(node: Node) -> None:
    node.end(signal.SIGTERM)
    node.sandbox.stop()
    node.sandbox.ensure()
    assert guest_pid(node) == 0
    node.want({**documents(), ("server", SERVER): {"host": "elsewhere", "power": "running", "spec": spec(node)}})
    node.start()
    node.call("console_log", {"server_id": SERVER, "lines": 1})
    node.until(lambda: node.power() == "shutdown", 20)
    assert node.inside("virsh", "list", "--name").strip() == "", "it is wanted on another host"
    node.end(signal.SIGTERM)
    (node.sandbox.folder / "node/boot").write_text("an earlier boot")
    node.want({**documents(), ("server", SERVER): {"host": HOST, "power": "running", "spec": spec(node)}})
    node.wanted["documents"][-1]["version"] = 2
    node.write()
    node.start()
    node.until(node.answers, 90)
    assert node.power() == "running"


def test_a_kill_at_any_moment_is_made_good(node: Node) -> None:
    """The kills fall from before the image is fetched until after the guest was started, and likewise into its removal."""
    base = dict(node.wanted["images"])
    for turn in range(8):
        server_id, image_id = f"{SERVER[:-2]}1{turn}", f"again-{turn}"
        node.wanted["images"] = {**base, image_id: base["i1"]}
        image = {**node.image, "image_id": image_id}
        made = {**spec(node), "id": server_id, "number": 16 + turn, "image": image, "ports": []}
        power = node.call("ensure_server", {"spec": made, "power": "paused"}, killed_after=0.12 + 0.06 * turn)["power"]
        assert power == "paused"
        folder = node.sandbox.folder / "instances" / server_id
        assert sorted(path.name for path in folder.iterdir()) == ["console.log", "disk", "run"]
        node.call("absent_server", {"server_id": server_id}, killed_after=0.1 + 0.03 * turn)
        assert not folder.exists() and server_id not in node.inside("virsh", "list", "--all", "--uuid")
    assert not list((node.sandbox.folder / "instances/_base").glob("*.part"))


def test_absent_leaves_no_domain_no_file_and_no_tap(node: Node) -> None:
    node.call("absent_server", {"server_id": SERVER}, attempt=3)
    node.call("absent_server", {"server_id": SERVER}, attempt=3)
    assert node.inside("virsh", "list", "--all", "--name").strip() == ""
    assert [path.name for path in (node.sandbox.folder / "instances").iterdir()] == ["_base"]
    assert TAP not in node.inside("ip", "-br", "link") and TAP not in node.inside("ovs-vsctl", "list-ports", "br-int")
    assert guest_pid(node) == 0
    node.want({("host", HOST): documents()["host", HOST]})
    node.until(lambda: "qrouter-" not in node.inside("ip", "netns"), 20)
