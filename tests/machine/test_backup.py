"""Backup and restore with real guests: one that writes all the while, in another home with its disk, address, floating IP and its owner's
token; without disks; and yesterday's backup over a cloud that has newer guests."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from machine.course import Course, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest

pytestmark = [pytest.mark.machine, pytest.mark.long]
WRITES = "i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i > count.new; sync; mv count.new count; sync; done"


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        prepare(made)
        yield made


def typed(course: Course, *words: str, home: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`./nacre WORDS --home ...`"""
    return course._run([str(course.clone / "nacre"), *words, "--home", str(home or course.home)], 600, check)


def doctor(course: Course) -> Any:
    return json.loads(course.nacre("doctor", "--json", check=False).stdout)


def pid(course: Course, guest: Guest) -> str:
    return course.exec("pgrep", "-f", f"guest={guest.domain}").stdout.strip()


@pytest.fixture(scope="module")
def guest(course: Course) -> Guest:
    made = create(course, "writer", "--config-drive", "true")
    made.reached()
    made.run("echo precious > keepsake; head -c 3000000 /dev/urandom > noise; sha256sum noise > noise.sum; sync")
    return made


@pytest.fixture(scope="module")
def off(course: Course, guest: Guest) -> Guest:
    """SHUTOFF in the backup."""
    made = create(course, "off")
    made.reached()
    made.run("echo asleep > keepsake; sync")
    made.typed("stop")
    made.becomes("SHUTOFF")
    return made


@pytest.fixture(scope="module")
def files(course: Course, guest: Guest, off: Guest) -> dict[str, Path]:
    """Two backups, made while the guest writes and does not notice."""
    made = {name: course.work / f"{name}.backup" for name in ("whole", "small")}
    writer = threading.Thread(target=lambda: course.ssh(guest.address, WRITES, timeout=600))
    writer.start()
    try:
        with guest.undisturbed():
            said = typed(course, "backup", str(made["whole"])).stdout
            typed(course, "backup", str(made["small"]), "--no-disks")
    finally:
        course.ssh(guest.address, "touch", "stop")
        writer.join(60)
    assert "2 servers with 3 disks" in said and made["whole"].stat().st_mode & 0o777 == 0o600
    assert not list((course.home / "hosts/1/instances").glob("*/copies")), "nothing is left of the copies"
    assert not (course.home / "db/backup.db").exists() and not list(course.work.glob("*.part"))
    assert doctor(course)["differences"] == 0
    return made


def test_into_another_home(course: Course, guest: Guest, off: Guest, files: dict[str, Path]) -> None:
    """As on another machine: the first cloud is gone by then."""
    token = Rest(course, "demo").token
    counted = int(guest.run("cat", "count"))
    before = {kind: course.openstack("demo", *kind.split(), "list", "-f", "json") for kind in ("server", "port", "network", "floating ip", "keypair")}
    course.nacre("down", "--wipe")
    other = replace(course, home=course.home.with_name("another"))
    said = typed(course, "restore", str(files["whole"]), home=other.home).stdout
    assert "the disks of 2 servers" in said and "nacre up --home" in said
    try:
        other.nacre("up", timeout=600)
        moved, slept = replace(guest, course=other), replace(off, course=other)
        demo = Rest(other, "demo")
        demo.token = token  # from before the backup
        moved, slept = replace(moved, api=demo), replace(slept, api=demo)
        moved.becomes("ACTIVE")
        moved.reached()
        assert moved.run("cat keepsake; sha256sum -c noise.sum").splitlines() == ["precious", "noise: OK"]
        assert 0 < int(moved.run("cat", "count")) <= counted
        assert "disk.config" in other.exec("virsh", "domblklist", moved.domain).stdout
        assert slept.status() == "SHUTOFF"
        slept.typed("start")
        slept.becomes("ACTIVE")
        slept.reached()
        assert slept.run("cat", "keepsake") == "asleep"
        slept.typed("stop")
        slept.becomes("SHUTOFF")
        for kind, listed in before.items():  # same ids, addresses, floating IPs
            until(lambda kind=kind, listed=listed: other.openstack("demo", *kind.split(), "list", "-f", "json") == listed, 60, 2)  # type: ignore[misc]
        until(lambda: doctor(other)["differences"] == 0, 60, 2)
        create(other, "newer").becomes("ACTIVE")
    finally:
        other.nacre("down", "--wipe")
    typed(course, "restore", str(files["whole"]))
    course.nacre("up", timeout=600)
    guest.becomes("ACTIVE")
    guest.reached()


def test_yesterdays_backup_over_newer_guests(course: Course, guest: Guest, files: dict[str, Path]) -> None:
    newer = create(course, "newer")
    newer.reached()
    newer.run("echo mine > keepsake; sync")
    processes = pid(course, guest), pid(course, newer)
    boots = guest.boot(), newer.boot()
    guest.run("echo since > later; sync")
    refused = typed(course, "restore", str(files["whole"]), check=False)
    assert refused.returncode == 1 and "nacre down" in refused.stderr.splitlines()[-1]
    course.nacre("down")
    said = typed(course, "restore", str(files["whole"])).stdout
    assert "The disks of 2 servers are here and were left as they are." in said and "set_aside" in said
    course.nacre("up")
    assert (pid(course, guest), pid(course, newer)) == processes, "both guests go on"
    until(lambda: guest.status() == "ACTIVE", 60)
    guest.reached()
    assert guest.boot() == boots[0] and guest.run("cat", "later") == "since"
    until(lambda: ("domain-unknown", newer.id) in {(one["kind"], one["what"]) for one in doctor(course)["found"]}, 60, 2)
    course.nacre("doctor", "--fix", check=False)
    assert pid(course, newer) == processes[1], "and what nobody knows stays"
    assert (course.home / "hosts/1/instances" / newer.id / "disk").exists()
    again = create(course, "again")
    again.reached()


def test_without_disks(course: Course, guest: Guest, files: dict[str, Path]) -> None:
    course.nacre("down", "--wipe")
    typed(course, "restore", str(files["small"]))
    course.nacre("up", timeout=600)
    shown = guest.api("GET", f"/compute/v2.1/servers/{guest.id}")["server"]
    assert shown["status"] == "SHUTOFF" and "no disk of this server: rebuild it" in shown["fault"]["message"]
    time.sleep(12)  # a report of the host, and the loop that believes it
    assert guest.status() == "SHUTOFF"
    guest.typed("rebuild", "--image", "nacre-guest")
    until(lambda: guest.status() == "SHUTOFF", 90)
    assert "fault" not in guest.api("GET", f"/compute/v2.1/servers/{guest.id}")["server"]
    guest.typed("start")
    guest.becomes("ACTIVE")
    guest.reached()
