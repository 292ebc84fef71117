import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nacre.node.commands import CommandFailed
from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks import confined
from nacre.node.disks.config_drive import ConfigDrives, Format, format_of
from nacre.node.disks.file import FileDisks
from nacre.node.disks.image_cache import ImageCache
from nacre.node.hypervisor.driver import ImageSpec, ServerSpec

SERVER = "6c1f1b4e-0000-4000-8000-000000000001"
FILES: dict[str, Any] = {
    "openstack/latest/meta_data.json": '{"uuid": "1"}',
    "openstack/latest/user_data": {"base64": "AAEC/w=="},
    "openstack/2012-08-10/meta_data.json": "{}",
    "ec2/2009-04-04/meta-data.json": "\N{SNOWMAN}" * 30000,
}


class Told:
    """What the control plane says, and how often it was asked."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self.files, self.asked = files, 0

    def __call__(self, server_id: str) -> Mapping[str, Any]:
        assert server_id == SERVER
        self.asked += 1
        return self.files


def run(*words: str | Path) -> bytes:
    return subprocess.run([str(word) for word in words], capture_output=True, timeout=30, check=True).stdout


def content(drive: Path, name: str) -> bytes:
    if format_of(drive) == "iso9660":
        return run("isoinfo", "-R", "-i", drive, "-x", f"/{name}")
    return run("env", "MTOOLS_SKIP_CHECK=1", "mcopy", "-i", drive, f"::{name}", "-")


def label(drive: Path) -> str:
    return run("blkid", "-p", "-o", "value", "-s", "LABEL", drive).decode().strip()


def disks(tmp_path: Path, format: Format, told: Told) -> FileDisks:
    """Disks of one image that is a raw file."""
    cache = ImageCache(tmp_path / "instances/_base", lambda image_id: pytest.fail("fetched"))
    made = FileDisks(tmp_path / "instances", cache, ConfigDrives(format, told))
    made.recover()
    cache.path("i1").write_bytes(bytes(4096))
    return made


def server(**other: Any) -> ServerSpec:
    return ServerSpec(SERVER, 1, "n", "p", 1, 64, 1, ImageSpec("i1", "raw"), **{"config_drive": True, **other})


@pytest.mark.parametrize("format", ["iso9660", "vfat"])
def test_a_drive_holds_what_the_control_plane_says(tmp_path: Path, format: Format) -> None:
    made = disks(tmp_path, format, told := Told(FILES))
    made.ensure(server(), Deadline(30))
    drive = made.folder(SERVER) / "disk.config"
    assert format_of(drive) == format and label(drive) == "config-2"
    assert content(drive, "openstack/latest/user_data") == b"\x00\x01\x02\xff"
    assert content(drive, "openstack/2012-08-10/meta_data.json") == b"{}"
    assert content(drive, "ec2/2009-04-04/meta-data.json").decode() == FILES["ec2/2009-04-04/meta-data.json"]
    assert (drive.stat().st_mode & 0o777, drive.stat().st_uid, drive.stat().st_gid) == (0o600, os.geteuid(), os.getegid())
    assert drive.stat().st_blocks * 512 < 1 << 20
    assert sorted(path.name for path in made.folder(SERVER).iterdir()) == ["disk", "disk.config", "run"]
    assert told.asked == 1 and made.files(server())[3] == format and made.files(server(config_drive=False))[3] is None


def test_a_drive_is_made_once_and_again_with_the_disks_of_a_rebuild(tmp_path: Path) -> None:
    told = Told(FILES)
    disks(tmp_path, "iso9660", told).ensure(server(), Deadline(30))
    told.files = {"openstack/latest/meta_data.json": "other"}
    later = disks(tmp_path, "vfat", told)
    later.ensure(server(), Deadline(30))
    drive = later.folder(SERVER) / "disk.config"
    assert told.asked == 1 and later.files(server())[3] == "iso9660", "the option of today says nothing of a drive that is there"
    drive.unlink()
    later.ensure(server(), Deadline(30))
    assert later.files(server())[3] == "vfat" and content(drive, "openstack/latest/meta_data.json") == b"other"
    later.absent(SERVER)
    assert not later.folder(SERVER).exists()


def test_a_guest_without_one_has_none(tmp_path: Path) -> None:
    made = disks(tmp_path, "iso9660", told := Told(FILES))
    made.ensure(server(config_drive=False), Deadline(30))
    assert told.asked == 0 and not (made.folder(SERVER) / "disk.config").exists()


@pytest.mark.parametrize("format", ["iso9660", "vfat"])
@pytest.mark.parametrize(("files", "why"), [
    ({"../escape": "x"}, "cannot be on a config drive"),
    ({"/etc/passwd": "x"}, "cannot be on a config drive"),
    ({"a/../../b": "x"}, "cannot be on a config drive"),
    ({"-dev": "x"}, "cannot be on a config drive"),
    ({"large": "x" * (70 << 20)}, "could not be made"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, format: Format, files: dict[str, str], why: str) -> None:
    made = disks(tmp_path, format, Told(files))
    with pytest.raises(NodeError, match=why):
        made.ensure(server(), Deadline(30))
    left = {path.name for path in made.folder(SERVER).iterdir()}
    assert not {"disk.config", "disk.config.tree"} & left and not (tmp_path / "instances/escape").exists()
    made.recover()
    assert {path.name for path in made.folder(SERVER).iterdir()} == {"disk", "run"}


def test_what_a_killed_agent_left_is_removed(tmp_path: Path) -> None:
    made = disks(tmp_path, "vfat", Told(FILES))
    tree = made.folder(SERVER) / "disk.config.tree/openstack"
    tree.mkdir(parents=True)
    (made.folder(SERVER) / "disk.config.part").write_bytes(b"half")
    made.recover()
    assert list(made.folder(SERVER).iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as a node has")
def test_a_folder_that_is_handed_over_gives_nobody_no_more_rights(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    for name, mode, group in (("secret", 0o640, 0), ("shared", 0o640, confined.NOBODY)):
        (tmp_path / "open" / name).write_text(name)
        (tmp_path / "open" / name).chmod(mode)
        os.chown(tmp_path / "open" / name, 0, group)
    assert tmp_path.stat().st_mode & 0o077 == 0, "nobody cannot walk there"
    with confined.Folder(tmp_path / "open") as folder:
        assert confined.run(["id", "-u"], [folder], Deadline(10)).strip() == str(confined.NOBODY)
        assert confined.run(["cat", f"{confined.path_of(folder)}/shared"], [folder], Deadline(10)) == "shared"
        with pytest.raises(CommandFailed, match="Permission denied"):
            confined.run(["cat", f"{confined.path_of(folder)}/secret"], [folder], Deadline(10))
