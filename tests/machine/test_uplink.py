"""`up --uplink nat`: the way out, on a played machine whose only way leads to a namespace that plays the internet. Once with a namespace
that stands where a router's leg is, and, as it takes longer, with a real guest behind a real router."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from machine import guests
from machine.course import until
from machine.guests import Guest
from machine.outer import SOURCE, Outer, OuterCourse, played

pytestmark = [pytest.mark.machine, pytest.mark.long]
MACHINE, SERVER = "203.0.113.2", "198.51.100.7"
INTERNET = f"""
ip netns add internet
ip link add wan type veth peer name wan netns internet
ip address add {MACHINE}/24 dev wan
ip link set wan up
ip route add default via 203.0.113.1
ip -n internet address add 203.0.113.1/24 dev wan
ip -n internet link set lo up
ip -n internet address add {SERVER}/32 dev lo
ip -n internet link set wan up
"""


@contextmanager
def online(forwarding: str) -> Iterator[tuple[OuterCourse, subprocess.Popen[str]]]:
    """A machine with a way to the internet, and the log of the server there."""
    with played() as course:
        course.machine.run("sh", "-ec", INTERNET)
        course.machine.run("sysctl", "-q", "-w", f"net.ipv4.ip_forward={forwarding}")
        web = f"ip netns exec internet /usr/bin/python3 -u -m http.server --bind {SERVER} --directory /etc/openvswitch 80"
        with subprocess.Popen(course.machine.place.command(["sh", "-c", f"exec {web}"]), stderr=subprocess.PIPE, text=True) as server:
            try:
                until(lambda: SERVER in course.machine.run("ip", "netns", "exec", "internet", "ss", "-ltn"), 60)
                with course.machine.network():
                    yield course, server
            finally:
                server.kill()


ENSURE = """
import sys
from pathlib import Path
from nacre.core.config import Home
from nacre.sandbox.host import SandboxHost
SandboxHost(Home(Path(sys.argv[1])), 1).ensure(uplink=sys.argv[2] == "nat")
"""
STOP = ENSURE.rpartition(".ensure")[0] + ".stop()"
LEG = """
ip netns add leg
nsenter --net=/run/nacre/fabric ip link add leg type veth peer name leg netns /run/netns/leg
nsenter --net=/run/nacre/fabric ip link set leg master br-ext up
ip -n leg address add 172.24.4.9/24 dev leg
ip -n leg link set leg up
ip -n leg route add default via 172.24.4.1
ip address add 172.24.4.1/24 dev ext-out
"""


class Cloud:
    """Only the host of a cloud; the leg of a router, in a namespace of its own, is on the external network by a cable of its own."""

    def __init__(self, course: OuterCourse) -> None:
        self.course = course

    def _python(self, *words: str) -> None:
        self.course.machine.run("env", f"PYTHONPATH={SOURCE}", sys.executable, "-c", *words)

    def uplink(self, kind: str) -> None:
        self._python(ENSURE, str(self.course.home), kind)

    def stop(self) -> None:
        self._python(STOP, str(self.course.home))

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        pid = str(json.loads((self.course.home / "hosts/1/process1.json").read_text())["pid"])
        entered = self.course.machine.place.command(["nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--", *words])
        return subprocess.run(entered, capture_output=True, text=True, check=False)

    def leg_reaches(self, address: str) -> bool:
        page = f"exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
        return "200 OK" in self.inside("ip", "netns", "exec", "leg", "timeout", "5", "bash", "-c", page).stdout


def test_the_door_of_a_sandbox() -> None:
    with online("0") as (course, server):
        machine, before, cloud = course.machine, course.machine.looks(), Cloud(course)
        cloud.uplink("none")
        assert cloud.inside("sh", "-ec", LEG).returncode == 0
        assert not cloud.leg_reaches(SERVER)
        assert machine.looks()["forwarding"] == "0\n" and machine.looks()["links"] == before["links"], "nothing is on the machine"
        cloud.uplink("nat")
        assert cloud.leg_reaches(SERVER)
        assert server.stderr and server.stderr.readline().startswith(f"{MACHINE} - - "), "under the machine's own address"
        assert machine.looks()["forwarding"] == "1\n"
        with machine.place.spawn(["/usr/bin/python3", "-m", "http.server", "80"]) as own:
            machine.run("timeout", "60", "bash", "-c", f"until : 3<>/dev/tcp/{MACHINE}/80; do sleep 0.1; done")
            assert not cloud.leg_reaches(MACHINE), "the machine itself is not theirs to reach"
            own.kill()
        cloud.uplink("nat")
        assert cloud.leg_reaches(SERVER), "again changes nothing"
        cloud.uplink("none")
        assert not cloud.leg_reaches(SERVER)
        assert machine.looks()["forwarding"] == "0\n" and machine.looks()["links"] == before["links"]
        cloud.uplink("nat")
        assert cloud.leg_reaches(SERVER)
        cloud.stop()
        assert machine.looks() == before


def gets_out(guest: Guest) -> bool:
    """By ping and by a page; one without the other is a defect."""
    pinged = guest.course.ssh(guest.address, "ping", "-c", "1", "-W", "5", SERVER, timeout=120).returncode == 0
    read = "Directory listing" in guest.course.ssh(guest.address, f"timeout 10 wget -q -O - http://{SERVER}/", timeout=120).stdout
    assert pinged == read
    return pinged


def leaks(machine: Outer, guest: Guest) -> str:
    """What the internet hears while the guest tries to get out."""
    words = machine.place.command(["ip", "netns", "exec", "internet", "tcpdump", "-n", "-l", "-i", "wan", "ip"])
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as capture:
        assert capture.stderr and capture.stdout
        while "listening" not in capture.stderr.readline():
            pass
        assert not gets_out(guest)
        time.sleep(0.5)
        machine.run("pkill", "-x", "tcpdump")  # what was started only entered the namespaces for it
        return capture.stdout.read().strip()


@pytest.mark.parametrize(("place", "forwarding"), [("--nodes=1", "0"), ("--on-host", "1")], ids=["sandbox", "on-host"])
def test_a_guests_way_out(place: str, forwarding: str) -> None:
    with online(forwarding) as (course, server):
        machine, before = course.machine, course.machine.looks()
        course.nacre("up", place, "--port", str(course.port))
        guests.prepare(course)
        guest = guests.create(course, "vm1")
        guest.reached()
        assert leaks(machine, guest) == ""
        boot = guest.boot()

        course.nacre("up", "--uplink", "nat")
        assert gets_out(guest)
        assert server.stderr and server.stderr.readline().startswith(f"{MACHINE} - - "), "under the machine's own address"
        assert machine.run("sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
        assert guest.course.ssh(guest.address, "ping", "-c", "1", "-W", "2", MACHINE, timeout=120).returncode, "the machine itself is closed"
        machine.run("ip", "-n", "internet", "route", "add", "172.24.4.0/24", "via", MACHINE)
        came = machine.place.command(["ip", "netns", "exec", "internet", "ping", "-c", "1", "-W", "2", guest.address])
        assert subprocess.run(came, capture_output=True, check=False).returncode, "and nobody comes in by it"
        machine.run("ip", "-n", "internet", "route", "delete", "172.24.4.0/24")
        course.nacre("down")
        course.nacre("up")
        assert gets_out(guest), "it stays until it is taken away"

        course.nacre("up", "--uplink", "none")
        assert leaks(machine, guest) == "" and guest.boot() == boot
        assert machine.run("sysctl", "-n", "net.ipv4.ip_forward").strip() == forwarding

        course.nacre("up", "--uplink", "nat")
        assert gets_out(guest)
        course.nacre("down", "--wipe")
        assert machine.looks() == before
