"""Images of every kind, uploaded by the unmodified client: those that hold what they say boot, the others are refused with the reason.

One cloud whose config drives are vfat and forced, so every guest here finds one and a few tests look at it.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.course import Course, fresh, until
from machine.guests import Guest, create, prepare
from machine.rest import Rest
from node.disks.hostile import ANY, SECRET, hostile

pytestmark = [pytest.mark.machine, pytest.mark.long]
KINDS = {
    "qcow2": ("qcow2", "qcow2", ["-c"]),
    "qcow2-old": ("qcow2", "qcow2", ["-o", "compat=0.10"]),
    "raw": ("raw", "raw", []),
    "vmdk": ("vmdk", "vmdk", ["-o", "subformat=monolithicSparse"]),
    "vmdk-stream": ("vmdk", "vmdk", ["-o", "subformat=streamOptimized"]),
    "vdi": ("vdi", "vdi", []),
    "vhd": ("vhd", "vpc", ["-o", "subformat=dynamic"]),
    "vhdx": ("vhdx", "vhdx", ["-o", "subformat=dynamic"]),
}
UPLOAD_LOOKS_INTO = "bare"
UPLOAD_DOES_NOT = "ovf"


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    with fresh() as made:
        toml = made.home / "nacre.toml"
        toml.write_text(toml.read_text().replace("[DEFAULT]\n", '[DEFAULT]\nconfig_drive_format = "vfat"\nforce_config_drive = true\n', 1))
        made.nacre("up")
        prepare(made)
        made.openstack("admin", "image", "save", "--file", "source.qcow2", "nacre-guest")
        yield made


def upload(course: Course, name: str, file: Path, declared: str, container: str = UPLOAD_LOOKS_INTO) -> subprocess.CompletedProcess[str]:
    words = ("--disk-format", declared, "--container-format", container, "--file", str(file))
    if declared == "qed":  # `openstack` has a list of formats without it, `glance` asks the API
        return course.typed("demo", "glance", "image-create", *words, "--name", name, check=False)
    return course.typed("demo", "openstack", "image", "create", *words, name, check=False)


def bases(course: Course) -> set[str]:
    return {path.name for path in (course.home / "hosts/1/instances/_base").iterdir()}


def boot(demo: Rest, name: str) -> str:
    """The id of a new server of the image `name`, which is called as that."""
    image = demo("GET", f"/image/v2/images?name={name}")["images"][0]["id"]
    network = demo("GET", "/network/v2.0/networks?name=net1")["networks"][0]["id"]
    wanted = {"name": name, "imageRef": image, "flavorRef": "1", "networks": [{"uuid": network}]}
    return str(demo("POST", "/compute/v2.1/servers", {"server": wanted})["server"]["id"])


def becomes(demo: Rest, server: str, wanted: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        found: dict[str, Any] = demo("GET", f"/compute/v2.1/servers/{server}")["server"]
        assert found["status"] in ("BUILD", wanted), found
        return found if found["status"] == wanted else None

    found: Any = until(there, 120)
    return dict(found)


def gone(course: Course, demo: Rest, server: str) -> None:
    demo("DELETE", f"/compute/v2.1/servers/{server}")
    until(lambda: not (course.home / "hosts/1/instances" / server).exists(), 120)


@pytest.mark.parametrize("kind", KINDS)
def test_it_boots(course: Course, kind: str) -> None:
    """To the prompt, with the name and address that it was given: what a guest says of itself on its console."""
    declared, made_as, options = KINDS[kind]
    file = course.work / f"image.{kind}"
    subprocess.run(["qemu-img", "convert", "-O", made_as, *options, str(course.work / "source.qcow2"), str(file)], check=True, timeout=120)
    done = upload(course, kind, file, declared)
    assert done.returncode == 0, done.stderr
    demo = Rest(course, "demo")
    server = boot(demo, kind)
    address = becomes(demo, server, "ACTIVE")["addresses"]["net1"][0]["addr"]

    def said() -> str:
        return str(demo("POST", f"/compute/v2.1/servers/{server}/action", {"os-getConsoleOutput": {}})["output"])

    until(lambda: "### boot completed" in said(), 300, every=2)
    assert "datasource: config-drive /dev/vdb" in said() and f"inet {address}/24" in said()
    assert f"instance-id: {server}  hostname: {kind}" in said() and "cirros login:" in said()
    assert {(course.home / "hosts/1/instances/_base" / name).open("rb").read(4) for name in bases(course)} & {b"QFI\xfb", b"KDMV", b"vhdx"} == set()
    gone(course, demo, server)


def test_hostile_images_are_refused_at_upload(course: Course, tmp_path: Path) -> None:
    """What lies is refused with its reason, and no image comes of it."""
    before = set(course.openstack("demo", "image", "list", "-f", "value", "-c", "Name", "--status", "active").split())
    for number, (what, declared, content, reason) in enumerate(hostile(tmp_path)):
        if declared in ("raw", "docker") or reason in (ANY, "too large") or not content:
            continue  # "raw" promises nothing to the upload, and sizes are for who converts it
        (file := course.work / "hostile").write_bytes(content)
        refused = upload(course, f"hostile-{number}", file, declared)
        assert refused.returncode != 0, what
        assert "safety checks" in refused.stderr or "does not match" in refused.stderr, (what, refused.stderr)
        assert SECRET not in refused.stderr
    assert set(course.openstack("demo", "image", "list", "-f", "value", "-c", "Name", "--status", "active").split()) == before


@pytest.mark.parametrize("what", ["backing file", "data file", "foreign extent", "luks", "a first table of 16 GiB"])
def test_what_the_upload_does_not_look_into_the_host_refuses(course: Course, tmp_path: Path, what: str) -> None:
    """Images in a container pass the upload; the host inspects them before anything opens them, and the fault says why."""
    declared, content, reason = next((declared, content, reason) for name, declared, content, reason in hostile(tmp_path) if name == what)
    (file := course.work / "hostile").write_bytes(content)
    name = what.replace(" ", "-")
    done = upload(course, name, file, declared, UPLOAD_DOES_NOT)
    assert done.returncode == 0, done.stderr
    before = bases(course)
    demo = Rest(course, "demo")
    server = boot(demo, name)
    refused = becomes(demo, server, "ERROR")
    assert any(words in refused["fault"]["message"] for words in reason.split("|")), refused
    assert SECRET.strip() not in json.dumps(refused) and bases(course) == before
    demo("DELETE", f"/compute/v2.1/servers/{server}")


def drive(guest: Guest) -> dict[str, object]:
    told = guest.run("sudo mount /dev/vdb /mnt && cat /mnt/openstack/latest/meta_data.json; sudo umount /mnt")
    found: dict[str, object] = json.loads(told)
    return found


def test_a_vfat_drive_is_a_disk_and_a_rebuild_brings_a_new_one(course: Course) -> None:
    guest = create(course, "before")
    guest.reached()
    assert guest.api("GET", f"/compute/v2.1/servers/{guest.id}")["server"]["config_drive"] == "True"
    listed = course.exec("virsh", "domblklist", "--details", guest.domain).stdout
    assert [line.split()[:3] for line in listed.splitlines() if "disk.config" in line] == [["file", "disk", "vdb"]]
    assert drive(guest)["name"] == "before"
    assert "datasource: config-drive /dev/vdb" in course.openstack("demo", "console", "log", "show", "before")
    boot = guest.boot()
    course.openstack("demo", "server", "rebuild", "--image", "nacre-guest", "--name", "after", "--wait", "before")
    until(lambda: guest.answers() and guest.boot() != boot, 90, every=1)
    assert drive(guest)["name"] == "after" and drive(guest)["uuid"] == guest.id
    gone(course, guest.api, guest.id)
