"""Config drives: a small disk with what a guest may know about itself, labelled `config-2`, as iso9660 or vfat.

The control plane says what is on it, once; a drive that exists is never made again, so a reboot changes nothing and a rebuild, which takes
the guest's disks away first, brings a new one. Part of the content is the user's, so the tools that lay it out run as nobody, with limits
(confined.py): they get the tree as an open folder that only root and nobody's group can enter, and the drive as an open file.
"""

import base64
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Literal

from nacre.node.commands import CommandFailed
from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks import confined

NAME, TREE = "disk.config", "disk.config.tree"
Format = Literal["iso9660", "vfat"]
Files = Mapping[str, str | Mapping[str, str]]
Fetch = Callable[[str], Files]
_LABEL = "config-2"
_LARGEST = 64 << 20
_PATH = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


class ConfigDrives:
    """Makes drives of `format`; `fetch(server id)` gives what is on one, path -> text or {"base64": ...}, and may raise NodeError."""

    def __init__(self, format: Format, fetch: Fetch) -> None:
        self.format, self.fetch = format, fetch

    def make(self, server_id: str, target: Path, deadline: Deadline) -> None:
        """Writes the server's drive to `target`, in a folder that is the server's alone. Raises NodeError."""
        tree = target.with_name(TREE)
        shutil.rmtree(tree, ignore_errors=True)
        try:
            _write_tree(tree, self.fetch(server_id))
            with confined.Folder(tree) as folder, target.open("xb") as file:
                confined.writable(file)
                (_iso9660 if self.format == "iso9660" else _vfat)(folder, file, deadline)
        except CommandFailed as error:
            raise NodeError("the config drive could not be made", str(error)) from error
        finally:
            shutil.rmtree(tree, ignore_errors=True)


def format_of(drive: Path) -> Format | None:
    """What an existing drive is, whatever the option says today; None: there is none."""
    try:
        with drive.open("rb") as file:
            file.seek(0x8001)
            return "iso9660" if file.read(5) == b"CD001" else "vfat"
    except FileNotFoundError:
        return None


def _write_tree(tree: Path, files: Files) -> None:
    tree.mkdir(mode=0o700)
    for name, content in files.items():
        if not _PATH.fullmatch(name):
            raise NodeError(f"{name!r} cannot be on a config drive")
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else base64.b64decode(content["base64"]))
    for path in [*tree.rglob("*"), tree]:
        path.chmod(0o750 if path.is_dir() else 0o640)
        if os.geteuid() == 0:
            os.chown(path, 0, confined.NOBODY)


def _iso9660(folder: confined.Folder, target: IO[bytes], deadline: Deadline) -> None:
    shape = ["-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-quiet", "-V", _LABEL, "-publisher", "Nacre"]
    argv = ["genisoimage", *shape, "-o", confined.path_of(target), f"{confined.path_of(folder)}/"]
    confined.run(argv, [folder, target], deadline, largest_file=_LARGEST)


def _vfat(folder: confined.Folder, target: IO[bytes], deadline: Deadline) -> None:
    target.truncate(_LARGEST)
    drive, source = confined.path_of(target), confined.path_of(folder)
    confined.run(["mkfs.vfat", "-n", _LABEL, drive], [target], deadline, largest_file=_LARGEST)
    copied = [f"{source}/{name}" for name in sorted(os.listdir(folder.fileno()))]
    argv = ["env", "MTOOLS_SKIP_CHECK=1", "mcopy", "-s", "-Q", "-i", drive, *copied, "::"]
    confined.run(argv, [folder, target], deadline, largest_file=_LARGEST)
