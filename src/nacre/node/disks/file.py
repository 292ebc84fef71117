"""A guest's disks as files in `instances/<server id>/`: `disk`, a qcow2 over the image's base, and `disk.eph0`, `disk.swap`,
`disk.config`, raw.

A disk is made under another name, synced and renamed, so a disk that has its name is whole; one that exists is never made again, only
grown. The folder belongs to root; qemu gets the disks from libvirt and a subfolder `run/` of its own for its sockets, so that a guest
that took over its qemu can replace nothing that root opens here.
"""

import os
import pwd
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from nacre.node.commands import CommandFailed, run
from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks import config_drive
from nacre.node.disks.config_drive import ConfigDrives
from nacre.node.disks.image_cache import QEMU_USER, ImageCache, sync_folder
from nacre.node.hypervisor.driver import ImageSpec, ServerSpec

COPIES = "copies"  # of all disks, for a backup
_GB = 1 << 30
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class FileDisks:
    """Disks below `instances`, over the bases of `cache`; `drives` makes config drives."""

    def __init__(self, instances: Path, cache: ImageCache, drives: ConfigDrives) -> None:
        self.instances, self.cache, self.drives = instances, cache, drives

    def folder(self, server_id: str) -> Path:
        """Where all of a server's files are. Raises NodeError if the id is none."""
        if not _UUID.fullmatch(server_id):
            raise NodeError(f"{server_id!r} is no server id")
        return self.instances / server_id

    def files(self, spec: ServerSpec) -> tuple[Path, Path, Path | None, config_drive.Format | None]:
        """(the server's folder, the base of its root disk, the base of the disk that it is rescued with, what its config drive is)."""
        folder = self.folder(spec.id)
        rescue = self.cache.path(spec.rescue.image_id) if spec.rescue is not None else None
        drive = config_drive.format_of(folder / config_drive.NAME) if spec.config_drive else None
        return folder, self.cache.path(spec.image.image_id), rescue, drive

    def recover(self) -> None:
        self.instances.mkdir(parents=True, exist_ok=True)
        self.instances.chmod(0o711)
        self.cache.recover()
        for part in self.instances.glob("*/*.part"):
            part.unlink(missing_ok=True)
        for tree in [*self.instances.glob(f"*/{config_drive.TREE}"), *self.instances.glob(f"*/{COPIES}")]:
            shutil.rmtree(tree, ignore_errors=True)

    def has_root(self, server_id: str) -> bool:
        return (self.folder(server_id) / "disk").exists()

    def ensure(self, spec: ServerSpec, deadline: Deadline) -> None:
        """All disks that `spec` asks for are there, at least as large as it says. The guest must be off. Raises NodeError."""
        folder = self.folder(spec.id)
        folder.mkdir(mode=0o711, exist_ok=True)
        folder.chmod(0o711)
        self._ensure_run(folder / "run")
        self._ensure_root(folder / "disk", spec, deadline)
        if spec.rescue is not None:
            self._ensure_rescue(folder / "disk.rescue", spec.rescue, deadline)
        else:
            (folder / "disk.rescue").unlink(missing_ok=True)
        if spec.ephemeral_gb:
            self._ensure_raw(folder / "disk.eph0", spec.ephemeral_gb * _GB, ["mkfs.ext4", "-q", "-F", "-L", "ephemeral0"])
        if spec.swap_mb:
            self._ensure_raw(folder / "disk.swap", spec.swap_mb << 20, ["mkswap", "--quiet"])
        drive = folder / config_drive.NAME
        if spec.config_drive and not drive.exists():
            _make(drive, lambda part: self.drives.make(spec.id, part, deadline))

    def absent(self, server_id: str) -> None:
        folder = self.folder(server_id)
        if folder.exists():
            shutil.rmtree(folder)
            sync_folder(self.instances)

    def _ensure_run(self, path: Path) -> None:
        path.mkdir(mode=0o750, exist_ok=True)
        if os.geteuid() == 0:
            qemu = pwd.getpwnam(QEMU_USER)
            os.chown(path, qemu.pw_uid, qemu.pw_gid, follow_symlinks=False)

    def _ensure_root(self, disk: Path, spec: ServerSpec, deadline: Deadline) -> None:
        wanted = spec.root_gb * _GB
        base = self.cache.path(spec.image.image_id)
        if not disk.exists():
            size = self.cache.ensure(spec.image, deadline)
            if wanted and size > wanted:
                raise NodeError(f"the image needs a disk of {-(-size // _GB)} GB, the flavor has {spec.root_gb} GB")
            _make(disk, lambda part: _qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", str(base), str(part), str(wanted or size)))
        elif not base.exists():
            # The base went while the guest was off, for instance with a cache that was cleaned: the same bytes come back.
            self.cache.ensure(spec.image, deadline)
        if wanted > qcow2_size(disk):
            _qemu_img("resize", "-f", "qcow2", str(disk), str(wanted))

    def _ensure_rescue(self, disk: Path, image: ImageSpec, deadline: Deadline) -> None:
        base = self.cache.path(image.image_id)
        size = self.cache.ensure(image, deadline)
        if not disk.exists():
            _make(disk, lambda part: _qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", str(base), str(part), str(size)))

    def _ensure_raw(self, disk: Path, size: int, formatted: list[str]) -> None:
        def make(part: Path) -> None:
            with part.open("wb") as file:
                file.truncate(size)
            run([*formatted, str(part)], timeout=120)

        if not disk.exists():
            _make(disk, make)


def qcow2_size(disk: Path) -> int:
    """The virtual size in bytes, read from the header alone."""
    with disk.open("rb") as file:
        head = file.read(32)
    if head[:4] != b"QFI\xfb":
        raise NodeError(f"{disk.name} is no qcow2 disk")
    return int(struct.unpack(">Q", head[24:32])[0])


def _make(disk: Path, make: Callable[[Path], None]) -> None:
    part = disk.with_name(disk.name + ".part")
    part.unlink(missing_ok=True)
    try:
        make(part)
        if os.geteuid() == 0:
            os.chown(part, 0, 0)
        part.chmod(0o600)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(disk)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(disk.parent)


def _qemu_img(*arguments: str) -> None:
    try:
        run(["qemu-img", arguments[0], *(["-q"] if arguments[0] == "create" else []), *arguments[1:]], timeout=60)
    except CommandFailed as error:
        raise NodeError("the guest's disk could not be made", str(error)) from error
