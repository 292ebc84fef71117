"""`nacre backup` and `nacre restore` of a cloud of pretended hosts: yesterday's backup over newer guests, another home, and what is refused: in
one sentence, with exit status 1, and nothing has changed."""

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from machine.course import Course, fresh, until
from machine.rest import Rest

pytestmark = [pytest.mark.machine, pytest.mark.long]


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh("--hypervisor", "fake") as made:
        yield made


@pytest.fixture(scope="module")
def file(course: Course) -> Path:
    path = course.work / "backup"
    typed(course, "backup", str(path))
    assert path.stat().st_mode & 0o777 == 0o600 and path.stat().st_uid == 0
    return path


def typed(course: Course, *words: str, home: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return course._run([str(course.clone / "nacre"), *words, "--home", str(home or course.home)], 300, check)


def refused(course: Course, *words: str, home: Path | None = None) -> str:
    done = typed(course, *words, home=home, check=False)
    told = [line for line in done.stderr.splitlines() if not line.endswith("...")]
    assert done.returncode == 1 and not done.stdout and len(told) == 1 and told[0].startswith("nacre: "), done
    return told[0]


def below(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.lstat() for path in folder.rglob("*") if "logs" not in path.parts and "run" not in path.parts}
    return {str(path): (seen.st_ino, seen.st_size) for path, seen in found.items() if not path.name.startswith("nacre.db")}


def create(admin: Rest, name: str) -> str:
    image = admin("GET", "/image/v2/images")["images"][0]["id"]
    if not admin("GET", "/compute/v2.1/flavors")["flavors"]:
        admin("POST", "/compute/v2.1/flavors", {"flavor": {"id": "1", "name": "small", "ram": 64, "vcpus": 1, "disk": 1}})
    made = admin("POST", "/compute/v2.1/servers", {"server": {"name": name, "flavorRef": "1", "imageRef": image}})["server"]["id"]
    becomes(admin, made, "ACTIVE")
    return str(made)


def shown(admin: Rest, server: str) -> Any:
    return admin("GET", f"/compute/v2.1/servers/{server}")["server"]


def becomes(admin: Rest, server: str, wanted: str) -> None:
    until(lambda: shown(admin, server)["status"] == wanted, 60)


def guests(course: Course) -> dict[str, str]:
    """What the pretended hypervisor has, with its power."""
    found = [json.loads(path.read_text()) for path in (course.home / "hosts").glob("*/node/guests/*.json")]
    return {guest["spec"]["id"]: guest["power"] for guest in found}


def test_yesterdays_backup_over_newer_guests_and_another_home(course: Course, tmp_path: Path) -> None:
    admin, file = Rest(course, "admin"), tmp_path / "yesterday"
    older = create(admin, "older")
    typed(course, "backup", str(file))
    newer = create(admin, "newer")
    gone = create(admin, "gone")
    admin("DELETE", f"/compute/v2.1/servers/{gone}")
    until(lambda: gone not in guests(course), 30)
    before = guests(course)
    assert before == {older: "running", newer: "running"}
    course.nacre("down")
    assert "set_aside" in typed(course, "restore", str(file)).stdout
    assert guests(course) == before
    course.nacre("up")
    until(lambda: [server["id"] for server in admin("GET", "/compute/v2.1/servers")["servers"]] == [older], 30)
    becomes(admin, older, "ACTIVE")
    told = course.nacre("doctor", "--json", "--fix", check=False)
    found = {(one["kind"], one["what"]) for one in json.loads(told.stdout)["found"]}
    assert told.returncode == 1 and ("domain-unknown", newer) in found, told.stdout
    assert guests(course) == before, "nobody knows it, and nobody touches it"
    create(admin, "again")
    course.nacre("down")
    other = replace(course, home=course.home.with_name("another"))
    typed(course, "restore", str(file), home=other.home)
    try:
        other.nacre("up")
        server = shown(admin, older)  # by the token from before
        assert server["status"] == "SHUTOFF" and "no disk of this server: rebuild it" in server["fault"]["message"]
        admin("POST", f"/compute/v2.1/servers/{older}/action", {"rebuild": {"imageRef": server["image"]["id"]}})
        until(lambda: "fault" not in shown(admin, older), 60)
        becomes(admin, older, "SHUTOFF")
        admin("POST", f"/compute/v2.1/servers/{older}/action", {"os-start": None})
        becomes(admin, older, "ACTIVE")
        until(lambda: other.nacre("doctor", check=False).returncode == 0, 30)
    finally:
        other.nacre("down", "--wipe")
    course.nacre("up")


@contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def test_backups(course: Course, tmp_path: Path) -> None:
    before = below(course.home)
    assert "There is no cloud in" in refused(course, "backup", str(tmp_path / "x"), home=tmp_path / "absent")
    assert "cannot be written: No such file or directory" in refused(course, "backup", str(tmp_path / "absent" / "x"))
    assert "it is a folder" in refused(course, "backup", str(tmp_path))
    with small(tmp_path / "full", "8k") as full:
        assert "No space left on device" in refused(course, "backup", str(full / "x"))
        assert list(full.iterdir()) == []
    assert list(tmp_path.iterdir()) == [] and below(course.home) == before


def test_an_interrupted_backup(course: Course, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    for number in (signal.SIGINT, signal.SIGTERM):
        started = subprocess.Popen([str(course.clone / "nacre"), "backup", str(tmp_path / "kept"), "--home", str(course.home)],
                                   stderr=subprocess.PIPE, cwd=course.work, start_new_session=True)  # fmt: skip
        until((course.home / "db" / "backup.db").exists, 60, 0.01)
        os.kill(started.pid, number)
        started.communicate(timeout=60)
        until(lambda: not (course.home / "db" / "backup.db").exists(), 20)
        assert [path.name for path in tmp_path.iterdir()] == ["kept"] and (tmp_path / "kept").read_text() == "kept"
    typed(course, "backup", str(tmp_path / "kept"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_without_its_api(course: Course, file: Path, tmp_path: Path) -> None:
    course.nacre("down")
    assert "The cloud does not run, so no host can copy disks" in refused(course, "backup", str(tmp_path / "x"))
    typed(course, "backup", str(tmp_path / "x"), "--no-disks")
    course.nacre("up")


def repacked(path: Path, **changed: object) -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        told = json.dumps({"format": 1, "program": "p", "schema": "0001", "cloud": "c", "made": "then", "disks": False, **changed}).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(told)
        tar.addfile(entry, io.BytesIO(told))
    path.write_bytes(subprocess.run(["zstd", "-q", "-c"], input=content.getvalue(), capture_output=True, check=True).stdout)
    return path


def test_files_that_will_not_do(course: Course, file: Path, tmp_path: Path) -> None:
    whole, home = file.read_bytes(), tmp_path / "home"
    bad = tmp_path / "bad"
    wanted = {b"": "is no backup of Nacre", b"GIF89a": "is no backup of Nacre", whole[: len(whole) // 2]: "damaged", whole[:-3]: "damaged",
              whole[:9000] + b"\0" * 100 + whole[9100:]: "damaged"}  # fmt: skip
    for content, why in wanted.items():
        bad.write_bytes(content)
        assert why in (told := refused(course, "restore", str(bad), home=home)) and told.endswith("Nothing has changed."), content[:10]
    assert "made by a newer program" in refused(course, "restore", str(repacked(bad, format=7)), home=home)
    assert "made by a newer program" in refused(course, "restore", str(repacked(bad, schema="9999")), home=home)
    assert "cannot be read" in refused(course, "restore", str(tmp_path / "absent"), home=home)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]


def test_homes_that_will_not_do(course: Course, file: Path, tmp_path: Path) -> None:
    before = below(course.home)
    assert "runs: type  sudo ./nacre down" in refused(course, "restore", str(file))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    assert "not empty and not a Nacre home" in refused(course, "restore", str(file), home=tmp_path / "mine")
    with small(tmp_path / "full", "200k") as full:
        assert "No space left on device" in refused(course, "restore", str(file), home=full)
        assert list(full.iterdir()) == []
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter"] and below(course.home) == before


def test_another_clouds_home(course: Course, file: Path) -> None:
    with fresh("--hypervisor", "fake") as other:
        other.nacre("down")
        before = below(other.home)
        assert "Another cloud is in" in refused(other, "restore", str(file))
        assert below(other.home) == before


def test_killed_while_it_unpacks_and_done_again(course: Course, file: Path, tmp_path: Path) -> None:
    admin = Rest(course, "admin")
    course.nacre("down")
    before = below(course.home)
    started = subprocess.Popen([str(course.clone / "nacre"), "restore", str(file), "--home", str(course.home)], cwd=course.work,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until(lambda: (course.home / "restore.part").exists() or started.poll() is not None, 60, 0.005)
    started.kill()
    started.wait()
    assert started.returncode == -signal.SIGKILL
    time.sleep(1)
    assert {path: seen for path, seen in below(course.home).items() if "/restore.part" not in path} == before
    said = typed(course, "restore", str(file)).stdout
    assert "set_aside" in said and not (course.home / "restore.part").exists() and not (course.home / "restore.ready").exists()
    course.nacre("up")
    assert [image["name"] for image in admin("GET", "/image/v2/images")["images"]] == ["nacre-guest"], "the token is from before"
