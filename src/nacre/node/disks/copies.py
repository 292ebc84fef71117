"""Copies of a guest's root disk: the flat one that becomes an image, and the one that a resize keeps until it is confirmed.

A guest that took over its qemu may have written anything into the head of its disk, a foreign backing file too. So what reads it here
runs as qemu's own user, which can read no more than that qemu could, and is told the chain of files instead of reading it.
"""

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nacre.node.commands import CommandFailed
from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks import confined
from nacre.node.disks.image_cache import QEMU_USER, sync_folder

BACKUP, PAUSED = "disk.resize", "snapshot.paused"


def paused(folder: Path) -> Path:
    """The mark of a guest that is paused only to be read: whoever finds it and does not read lets the guest go on."""
    return folder / PAUSED


@contextmanager
def scratch(folder: Path) -> Iterator[IO[bytes]]:
    """An empty file that goes with the context, qemu's to write."""
    path = folder / "snapshot.part"
    path.unlink(missing_ok=True)
    with path.open("x+b") as file:
        path.unlink()
        os.fchmod(file.fileno(), 0o600)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(QEMU_USER)
            os.fchown(file.fileno(), owner.pw_uid, owner.pw_gid)
        yield file


def flatten(disk: Path, base: Path, target: IO[bytes], deadline: Deadline) -> None:
    """Writes `disk` over `base` into `target` as a qcow2 that needs no other file. Nothing may write the disk meanwhile."""
    source = f"driver=qcow2,file.driver=file,file.filename={disk},backing.driver=raw,backing.file.driver=file,backing.file.filename={base}"
    argv = ["qemu-img", "convert", "-U", "--image-opts", source, "-O", "qcow2", confined.path_of(target)]
    try:
        confined.run(argv, [target], deadline, largest_file=2 * (disk.stat().st_size + base.stat().st_size) + (64 << 20), user=QEMU_USER)
    except CommandFailed as error:
        if "No space left" in error.stderr:
            raise NodeError("the host has no room for a snapshot", str(error)) from error
        raise NodeError("the guest's disk could not be read", str(error)) from error
    target.seek(0)


def ensure_backup(folder: Path, deadline: Deadline) -> None:
    disk, backup = folder / "disk", folder / BACKUP
    if backup.exists():
        return
    part = backup.with_name(BACKUP + ".part")
    with disk.open("rb") as source, part.open("wb") as target:
        _copy(source, target, deadline)
        shutil.copystat(disk, part)
        target.flush()
        os.fsync(target.fileno())
    part.rename(backup)
    sync_folder(folder)


def _copy(source: IO[bytes], target: IO[bytes], deadline: Deadline) -> None:
    while chunk := source.read(4 << 20):
        deadline.check()
        target.write(chunk)


def restore_backup(folder: Path) -> None:
    if (folder / BACKUP).exists():
        (folder / BACKUP).rename(folder / "disk")
        sync_folder(folder)


def absent(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
