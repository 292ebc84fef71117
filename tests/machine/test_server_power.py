"""A server's everyday, with a real guest: off and on, rebooted, paused, locked, told things, copied into another server, wiped out.

One guest for most of the file, each test begins with it ACTIVE and reached, and leaves it so; a second one, made of a snapshot of the first,
has two networks and is in a server group. What changes the guest itself is in test_server_life.py.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.course import Course, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest

pytestmark = [pytest.mark.machine, pytest.mark.long]


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        prepare(made)
        yield made


@pytest.fixture(scope="module")
def guest(course: Course) -> Guest:
    made = create(course, "day", "--property", "role=web")
    made.reached()
    return made


@pytest.fixture(scope="module")
def copy(course: Course, guest: Guest) -> Guest:
    """Booted from a snapshot that was taken while the guest ran, on both networks, alone in its server group."""
    guest.run("echo was-here > keepsake; sync")  # a snapshot has what is on the disk
    with guest.undisturbed(lost=12):  # it stands still while its disk is read
        course.openstack("demo", "server", "image", "create", "--name", "shot", "--wait", guest.name)
    group = course.value("demo", "id", "server", "group", "create", "--policy", "anti-affinity", "apart")
    made = create(course, "copy", "--network", "net2", "--hint", f"group={group}", image="shot")
    made.reached()
    return made


def refused(course: Course, *words: str) -> str:
    done = course.typed("demo", "openstack", *words, check=False)
    assert done.returncode == 1, done
    return done.stderr


def test_stop_lets_the_guest_end_in_peace_and_start_brings_it_back(guest: Guest) -> None:
    boot = guest.boot()
    guest.run("echo kept > note")  # not on the disk yet
    guest.typed("stop")
    guest.becomes("SHUTOFF")
    assert guest.power() == "shut off" and not guest.pings()
    guest.typed("start")
    guest.becomes("ACTIVE")
    guest.reached()
    assert guest.run("cat", "note") == "kept" and guest.boot() != boot


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_reboot(guest: Guest, kind: str) -> None:
    boot = guest.boot()
    guest.run(f"echo {kind} > note" + ("" if kind == "soft" else "; sync"))
    guest.typed("reboot", f"--{kind}", "--wait")
    guest.reached()
    assert guest.boot() != boot and guest.run("cat", "note") == kind
    guest.becomes("ACTIVE")


def test_a_paused_guest_stands_still_and_goes_on(guest: Guest) -> None:
    boot, before = guest.boot(), guest.uptime()
    guest.typed("pause")
    guest.becomes("PAUSED")
    assert guest.power() == "paused" and not guest.pings()
    time.sleep(5)
    guest.typed("unpause")
    guest.becomes("ACTIVE")
    guest.reached()
    assert guest.boot() == boot and guest.uptime() > before


def test_a_locked_server_is_left_alone(course: Course, guest: Guest) -> None:
    boot = guest.boot()
    guest.typed("lock", "--reason", "exam")
    shown = json.loads(guest.typed("show", "-f", "json"))
    assert shown["locked"] is True and shown["locked_reason"] == "exam"
    for verb in ("stop", "delete"):
        assert "locked" in refused(course, "server", verb, guest.name), verb
    guest.typed("unlock")
    assert guest.boot() == boot and guest.status() == "ACTIVE"


def test_console_output_is_what_the_guest_wrote(course: Course, guest: Guest) -> None:
    guest.run("sudo sh -c 'echo one two three > /dev/console'")
    until(lambda: "one two three" in course.openstack("demo", "console", "log", "show", "--lines", "5", guest.name), 10)
    assert "boot completed" in course.openstack("demo", "console", "log", "show", guest.name)


def test_properties_reach_the_guest_and_tags_find_the_server(course: Course, guest: Guest) -> None:
    def told() -> dict[str, str]:
        return dict(json.loads(guest.run("wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json"))["meta"])

    assert told() == {"role": "web"}
    course.openstack("demo", "server", "set", "--property", "mood=calm", "--tag", "blue", guest.name)
    until(lambda: told() == {"role": "web", "mood": "calm"}, 30)
    course.openstack("demo", "server", "unset", "--property", "role", guest.name)
    until(lambda: told() == {"mood": "calm"}, 30)
    names = ("server", "list", "-f", "value", "-c", "Name")
    assert course.openstack("demo", *names, "--tags", "blue") == guest.name and course.openstack("demo", *names, "--tags", "red") == ""
    course.openstack("demo", "server", "unset", "--tag", "blue", guest.name)
    assert course.openstack("demo", *names, "--tags", "blue") == ""


def test_a_new_server_has_what_the_snapshot_had(guest: Guest, copy: Guest) -> None:
    assert copy.run("cat keepsake; hostname").split() == ["was-here", "copy"]
    assert copy.boot() != guest.boot() and copy.run("cat /run/instance-id") == copy.id
    copy.run("echo other > keepsake; sync")
    assert guest.run("cat", "keepsake") == "was-here"


def test_two_networks_with_a_gateway_each(course: Course, copy: Guest) -> None:
    """The first one's gateway is the way out; the second is reached over its own card."""
    routes, addresses = copy.run("/sbin/ip route"), copy.run("/sbin/ip -4 -o addr")
    assert "default via 172.16.1.1 dev eth0" in routes and "default via 172.16.2.1 dev eth1" in routes
    second = next(word.split("/")[0] for word in addresses.split() if word.startswith("172.16.2.") and "/" in word)
    assert f"net2={second}" in course.openstack("demo", "server", "list")
    network = course.value("demo", "id", "network", "show", "net2")
    assert course.exec("ip", "netns", "exec", f"qdhcp-{network}", "ping", "-c", "1", "-W", "3", second).stdout
    assert copy.run("ping -c 1 -W 3 172.24.4.1 > /dev/null && echo out") == "out"


def test_a_second_of_an_anti_affinity_group_finds_no_host(course: Course, copy: Guest) -> None:
    group = json.loads(course.openstack("demo", "server", "group", "show", "apart", "-f", "json"))
    assert group["members"] == [copy.id]
    words = ("--flavor", "small", "--image", "nacre-guest", "--network", "net1", "--hint", f"group={group['id']}", "tooclose")
    course.openstack("demo", "server", "create", *words, check=False)
    until(lambda: course.value("demo", "status", "server", "show", "tooclose") == "ERROR", 30)
    told = course.value("demo", "fault", "server", "show", "tooclose")
    assert "No valid host was found" in told and "ServerGroupAntiAffinityFilter" in told, told
    course.openstack("demo", "server", "delete", "--wait", "tooclose")
    assert json.loads(course.openstack("demo", "server", "group", "show", "apart", "-f", "json"))["members"] == [copy.id]


def test_force_delete_leaves_nothing(course: Course, guest: Guest, copy: Guest) -> None:
    with guest.undisturbed():
        course.openstack("admin", "server", "delete", "--force", "--wait", copy.id)
        assert not copy.pings() and copy.domain not in course.exec("virsh", "list", "--all").stdout
    assert not Path(f"{course.home}/hosts/1/instances/{copy.id}").exists()
    assert Rest(course, "demo")("GET", f"/network/v2.0/ports?device_id={copy.id}")["ports"] == []
    course.openstack("demo", "image", "delete", "shot")
    assert json.loads(course.openstack("demo", "server", "group", "show", "apart", "-f", "json"))["members"] == []


def test_the_actions_tell_it_all(course: Course, guest: Guest) -> None:
    listed = json.loads(course.openstack("demo", "server", "event", "list", guest.name, "-f", "json"))
    done = {row["Action"] for row in listed}
    assert {"create", "stop", "start", "reboot", "pause", "unpause", "lock", "unlock", "createImage"} <= done, done
    begun = next(row["Request ID"] for row in listed if row["Action"] == "stop")
    shown = course.openstack("admin", "server", "event", "show", guest.id, begun)
    assert "compute_stop_instance" in shown and "Success" in shown, shown
