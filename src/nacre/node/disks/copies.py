"""Copies of a guest's disks: the flat ones that become an image or are backed up, and the one that a resize keeps until it is confirmed.

A guest that took over its qemu may have written anything into the head of its disk, a foreign backing file too. So what reads it here
runs as qemu's own user, which can read no more than that qemu could, and is told the chain of files instead of reading it.
"""

import errno
import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from nacre.node.commands import CommandFailed
from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks import confined
from nacre.node.disks.file import qcow2_size
from nacre.node.disks.image_cache import QEMU_USER, sync_folder

BACKUP, PAUSED = "disk.resize", "snapshot.paused"


def paused(folder: Path) -> Path:
    """The mark of a guest that is paused only to be read: whoever finds it and does not read lets the guest go on."""
    return folder / PAUSED


@contextmanager
def scratch(folder: Path) -> Iterator[IO[bytes]]:
    """An empty file that goes with the context."""
    path = folder / "snapshot.part"
    path.unlink(missing_ok=True)
    with path.open("x+b") as file:
        path.unlink()
        yield file


def flatten(disk: Path, base: Path, target: IO[bytes], deadline: Deadline, form: Literal["qcow2", "raw"] = "qcow2") -> None:
    """Writes `disk` over `base` into the empty `target` in a form that needs no other file. Nothing may write the disk meanwhile."""
    os.fchmod(target.fileno(), 0o600)
    if os.geteuid() == 0:
        owner = pwd.getpwnam(QEMU_USER)
        os.fchown(target.fileno(), owner.pw_uid, owner.pw_gid)
    largest = qcow2_size(disk) if form == "raw" else 2 * (disk.stat().st_size + base.stat().st_size)
    source = f"driver=qcow2,file.driver=file,file.filename={disk},backing.driver=raw,backing.file.driver=file,backing.file.filename={base}"
    argv = ["qemu-img", "convert", "-U", "--image-opts", source, "-O", form, confined.path_of(target)]
    try:
        with _readable(disk):
            confined.run(argv, [target], deadline, largest_file=largest + (64 << 20), user=QEMU_USER)
    except CommandFailed as error:
        raise NodeError("the guest's disk could not be read", str(error)) from error
    target.seek(0)


@contextmanager
def _readable(disk: Path) -> Iterator[None]:
    """The disk of a guest that is off is root's; qemu's user may read it for a while."""
    before = disk.stat()
    if os.geteuid() or before.st_uid:
        yield
        return
    os.chown(disk, -1, pwd.getpwnam(QEMU_USER).pw_gid)
    disk.chmod(before.st_mode | 0o040)
    try:
        yield
    finally:
        disk.chmod(before.st_mode)
        os.chown(disk, -1, before.st_gid)


def ensure_backup(folder: Path, deadline: Deadline) -> None:
    disk, backup = folder / "disk", folder / BACKUP
    if backup.exists():
        return
    part = backup.with_name(BACKUP + ".part")
    try:
        with disk.open("rb") as source, part.open("wb") as target:
            _copy(source, target, deadline)
            shutil.copystat(disk, part)
            target.flush()
            os.fsync(target.fileno())
        part.rename(backup)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(folder)


def _copy(source: IO[bytes], target: IO[bytes], deadline: Deadline) -> None:
    while chunk := source.read(4 << 20):
        deadline.check()
        target.write(chunk)


def copy_sparse(source: IO[bytes], target: IO[bytes], deadline: Deadline) -> None:
    """The same bytes and holes in the empty `target`; shared where the file system can."""
    size = os.fstat(source.fileno()).st_size
    target.truncate(size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source.fileno(), at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end
                return
            raise
        end = os.lseek(source.fileno(), at, os.SEEK_HOLE)
        while at < end and (done := os.copy_file_range(source.fileno(), target.fileno(), min(end - at, 64 << 20), at, at)):
            deadline.check()
            at += done


def restore_backup(folder: Path) -> None:
    if (folder / BACKUP).exists():
        (folder / BACKUP).rename(folder / "disk")
        sync_folder(folder)


def absent(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
