"""`up --uplink nat`: a real guest's way out, on a played machine whose only way leads to a namespace that plays the internet."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from machine import guests
from machine.guests import Guest
from machine.outer import Outer, OuterCourse, played

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
        web = f"ip netns exec internet python3 -u -m http.server --bind {SERVER} --directory /etc/openvswitch 80"
        with subprocess.Popen(course.machine.place.command(["sh", "-c", f"exec {web}"]), stderr=subprocess.PIPE, text=True) as server:
            try:
                with course.machine.network():
                    yield course, server
            finally:
                server.kill()


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
        capture.terminate()
        return capture.stdout.read()


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
        assert guest.course.ssh(guest.address, "ping", "-c", "1", "-W", "2", MACHINE, timeout=120).returncode, "the machine itself is not theirs to reach"
        refused = "ip netns exec internet ping -c 1 -W 2 172.24.4.1 -I wan"
        machine.run("ip", "-n", "internet", "route", "add", "172.24.4.0/24", "via", MACHINE)
        assert subprocess.run(machine.place.command(refused.split()), capture_output=True, check=False).returncode, "and nobody comes in by it"
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
