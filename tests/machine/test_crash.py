"""SIGKILL on a real cloud: each of its processes once in the middle of each operation, the host with all that is on it, and all at once.

Where exactly a process dies is enumerated on pretended hosts (tests/crash); here guests, libvirt, the switch and dnsmasq are real. A guest
that has nothing to do with it answers all the while, and the doctor finds nothing afterwards.
"""

import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from machine.course import ROOT, Course, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest
from nacre.cli import alive

pytestmark = [pytest.mark.machine, pytest.mark.long]
VICTIMS = ("api", "worker", "node-1", "up")
LOST = (urllib.error.URLError, ConnectionError, TimeoutError)


class Site:
    """The cloud, a guest that nothing may disturb, and what a client does that has lost an answer."""

    def __init__(self, course: Course) -> None:
        prepare(course)
        self.course, self.demo, self.admin = course, Rest(course, "demo"), Rest(course, "admin")
        self.image = self.demo("GET", "/image/v2/images")["images"][0]["id"]
        self.net = self.demo("GET", "/network/v2.0/networks?name=net1")["networks"][0]["id"]
        self.outside = self.demo("GET", "/network/v2.0/networks?name=ext1")["networks"][0]["id"]
        self.steady = create(course, "steady")
        self.steady.reached()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.course.home}/db/nacre.db?mode=ro", uri=True, timeout=10)) as base:
            return list(base.execute(query))

    def steps(self, kind: str, step: str) -> int:
        found = f"SELECT count(*) FROM task_steps s JOIN tasks t ON t.id = s.task_id WHERE t.kind = '{kind}' AND s.name = '{step}'"
        return int(self.rows(found)[0][0])

    def get(self, path: str) -> Any:
        return until(lambda: self._got(path), 60)

    def _got(self, path: str) -> Any:
        with suppress(*LOST):
            return self.demo("GET", path)
        return None

    def do(self, method: str, path: str, body: Any, done: Callable[[], Any]) -> None:
        """Asked until it is done or somebody says so."""
        while True:
            try:
                self.demo(method, path, body)
                return
            except urllib.error.HTTPError:
                raise
            except LOST:
                if done():
                    return
                time.sleep(0.2)

    def server(self, name: str) -> Any:
        return next(iter(self.get(f"/compute/v2.1/servers/detail?name=^{name}$")["servers"]), None)

    def becomes(self, name: str, wanted: str, seconds: float = 120) -> Any:
        def there() -> Any:
            shown = self.server(name)
            assert shown["status"] == wanted or shown["status"] != "ERROR", shown["fault"]
            return shown if shown["status"] == wanted and shown["OS-EXT-STS:task_state"] is None else None

        return until(there, seconds)

    def kill(self, role: str) -> None:
        found = alive.watch(self.course.home / "run", role)
        assert found, f"{role} does not run"
        signal.pidfd_send_signal(found[1], signal.SIGKILL)
        os.close(found[1])

    @contextmanager
    def killing(self, role: str, kind: str, step: str) -> Iterator[None]:
        """`role` dies as soon as the step of that kind of task has begun."""
        before, struck = self.steps(kind, step), threading.Event()

        def strike() -> None:
            until(lambda: self.steps(kind, step) > before, 120, every=0.005)
            self.kill(role)
            struck.set()

        thread = threading.Thread(target=strike)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            if role == "up":
                self.course.nacre("up")
        assert struck.is_set()
        self.rests()

    def rests(self) -> None:
        until(lambda: not self.rows("SELECT 1 FROM tasks WHERE finished_at IS NULL"), 120)
        until(lambda: all(alive.holder(self.course.home / "run", role) for role in VICTIMS), 60)
        self._healthy()

    def _healthy(self) -> None:
        told = self.course.nacre("doctor", check=False)
        assert told.returncode == 0 and told.stdout.splitlines()[-1] == "differences: 0", told.stdout + told.stderr

    def there(self) -> dict[str, Any]:
        """Everything that a server or a router could leave behind."""
        shell = self.course.exec("sh", "-c", f"virsh list --all --name; ls {self.course.home}/hosts/1/instances; ip netns; "
                                 "ovs-vsctl list-ports br-int; ls /sys/class/net; cat /run/nacre/dhcp/*/hosts")  # fmt: skip
        provider = self.admin("GET", "/placement/resource_providers")["resource_providers"][0]["uuid"]
        return {"host": sorted(shell.stdout.split()), "ports": len(self.demo("GET", "/network/v2.0/ports")["ports"]),
                "usages": self.admin("GET", f"/placement/resource_providers/{provider}/usages")["usages"],
                "limits": self.demo("GET", "/compute/v2.1/limits")["limits"]["absolute"]}  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with fresh() as course:
        yield Site(course)


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_process_dies_in_each_operation(site: Site, victim: str) -> None:
    before, name = site.there(), f"by-{victim}"
    with site.steady.undisturbed():
        order = {"name": name, "imageRef": site.image, "flavorRef": "1", "networks": [{"uuid": site.net}], "key_name": "key"}
        with site.killing(victim, "compute.create_server", "ensure_server"):
            site.do("POST", "/compute/v2.1/servers", {"server": order}, lambda: site.server(name))
            server = site.becomes(name, "ACTIVE")["id"]
        port = site.get(f"/network/v2.0/ports?device_id={server}")["ports"][0]["id"]
        guest = Guest(site.course, name, server, "", _floating_ip(site, victim, port), site.demo)
        guest.reached()
        assert guest.run("hostname") == name

        def act(kind: str, step: str, action: Any, after: str) -> None:
            with site.killing(victim, f"compute.{kind}", step):
                site.demo("POST", f"/compute/v2.1/servers/{server}/action", action)
                site.becomes(name, after)

        act("snapshot_server", "upload_image", {"createImage": {"name": name}}, "ACTIVE")
        images = site.get(f"/image/v2/images?name={name}")["images"]
        assert [image["status"] for image in images] == ["active"]
        site.demo("DELETE", f"/image/v2/images/{images[0]['id']}")
        act("resize_server", "ensure_backup", {"resize": {"flavorRef": "2"}}, "VERIFY_RESIZE")
        act("revert_resize", "restore_backup", {"revertResize": None}, "ACTIVE")
        guest.reached()
        act("resize_server", "ensure_server", {"resize": {"flavorRef": "2"}}, "VERIFY_RESIZE")
        act("confirm_resize", "absent_backup", {"confirmResize": None}, "ACTIVE")
        guest.reached()
        assert guest.run("nproc") == "2"
        with site.killing(victim, "compute.delete_server", "absent_server"):
            site.demo("DELETE", f"/compute/v2.1/servers/{server}")
            until(lambda: site.server(name) is None, 120)
        _router(site, victim)
    assert site.there() == before


def _floating_ip(site: Site, victim: str, port: str) -> str:
    """Dies between the request and the wires."""
    made = site.demo.network("floatingip", floating_network_id=site.outside, port_id=port)["floating_ip_address"]
    _dies(site, victim)
    return str(made)


def _router(site: Site, victim: str) -> None:
    network = site.demo.network("network", name="new")["id"]
    subnet = site.demo.network("subnet", network_id=network, ip_version=4, cidr="172.16.9.0/24")["id"]
    router = site.demo.network("router", name="new", external_gateway_info={"network_id": site.outside})["id"]
    site.demo("PUT", f"/network/v2.0/routers/{router}/add_router_interface", {"subnet_id": subnet})
    _dies(site, victim)
    room = f"qrouter-{router}"
    addresses = site.course.exec("ip", "netns", "exec", room, "ip", "-o", "-4", "addr").stdout
    assert "172.16.9.1/24" in addresses and "172.24.4." in addresses, addresses
    assert "1 received" in site.course.exec("ip", "netns", "exec", room, "ping", "-c", "1", "-W", "3", "172.24.4.1").stdout
    site.demo("PUT", f"/network/v2.0/routers/{router}/remove_router_interface", {"subnet_id": subnet})
    site.demo("DELETE", f"/network/v2.0/routers/{router}")
    _dies(site, victim)
    site.demo("DELETE", f"/network/v2.0/networks/{network}")
    floating = [one["id"] for one in site.demo("GET", "/network/v2.0/floatingips")["floatingips"] if one["port_id"] is None]
    for one in floating:
        site.demo("DELETE", f"/network/v2.0/floatingips/{one}")
    site.rests()


def _dies(site: Site, victim: str) -> None:
    site.kill(victim)
    if victim == "up":
        site.course.nacre("up")
    until(lambda: site._got("/network/v2.0/networks"), 60)
    site.rests()


def test_a_guest_that_was_being_read_goes_on_when_the_node_comes_back(site: Site) -> None:
    """As a node that dies while it makes a snapshot leaves it; nobody has to ask for the snapshot again."""
    mark = site.course.home / "hosts/1/instances" / site.steady.id / "snapshot.paused"
    mark.touch()
    site.course.exec("virsh", "suspend", site.steady.domain)
    site.kill("node-1")
    until(lambda: site.steady.power() == "running", 30)
    until(lambda: not mark.exists(), 10)
    assert site.steady.answers() and site.steady.status() == "ACTIVE"
    site.rests()


def _init(site: Site) -> int:
    status = json.loads(site.course.nacre("status", "--json").stdout)
    return int(next(process["pid"] for process in status["processes"] if process["role"] == "init"))


def test_the_host_reboots(site: Site) -> None:
    """Its process 1 is killed, and with it libvirt, the switch, dnsmasq and all guests; then one command."""
    stopped = create(site.course, "stopped")
    stopped.typed("stop")
    stopped.becomes("SHUTOFF")
    boots = site.steady.boot()
    os.kill(_init(site), signal.SIGKILL)
    time.sleep(1)
    site.course.nacre("up")
    site.steady.reached(120)
    assert site.steady.boot() != boots and site.steady.run("ping -c 1 -W 3 172.24.4.1 >/dev/null && hostname") == "steady"
    assert site.steady.status() == "ACTIVE" and site.steady.power() == "running"
    assert (stopped.status(), stopped.power()) == ("SHUTOFF", "shut off")
    site.rests()
    stopped.typed("start")
    stopped.becomes("ACTIVE")
    stopped.reached()
    stopped.typed("delete", "--wait")
    site.rests()


@pytest.mark.parametrize("step", ["schedule", "ensure_server", "wired", "ensure_power"])
def test_everything_dies_at_once_during_a_create(site: Site, step: str) -> None:
    """As in a power cut: our processes and the host with its guests."""
    before, init = site.steps("compute.create_server", step), _init(site)
    name = f"cut-{step.replace('_', '-')}"
    order = {"name": name, "imageRef": site.image, "flavorRef": "1", "networks": [{"uuid": site.net}]}
    site.demo("POST", "/compute/v2.1/servers", {"server": order})
    until(lambda: site.steps("compute.create_server", step) > before, 60, every=0.002)
    for role in ("up", "worker", "api", "node-1"):
        site.kill(role)
    os.kill(init, signal.SIGKILL)
    time.sleep(1)
    site.course.nacre("up")
    ended = until(lambda: (shown := site.server(name))["status"] != "BUILD" and shown["OS-EXT-STS:task_state"] is None and shown, 180)
    assert ended["status"] == "ACTIVE" or ended["fault"]["message"], ended
    site.steady.reached(120)
    site.rests()
    site.demo("DELETE", f"/compute/v2.1/servers/{ended['id']}")
    until(lambda: site.server(name) is None, 120)
    site.rests()


def test_the_bench_that_kills_at_random_finds_nothing(tmp_path: Path) -> None:
    words = [str(ROOT / "nacre"), "bench", "crash", "--kills", "15", "--keep", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert {"broken: 0", "stuck: 0", "acknowledged and lost: 0", "disturbed: 0", "differences: 0"} < set(lines), lines
    assert any(line.startswith("kills 15: ") for line in lines), lines
