"""What lies in `instances/`, for `nacre doctor`: folders of servers, bases with who needs them, and what is neither.

A disk names its base in its head, where its guest may have written anything: such a name can keep a base, never have one removed.
Nothing that nobody knows is destroyed here: a folder is set aside, whole, in `_set_aside`.
"""

import os
import re
import struct
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nacre.node.deadline import NodeError
from nacre.node.disks.bases import remove
from nacre.node.disks.image_cache import sync_folder

ASIDE, BASES = "_set_aside", "_base"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BASE = re.compile(r"[0-9a-f]{40}")
_LONGEST = 1023


def files(instances: Path) -> dict[str, Any]:
    """{"folders": [{"id", "disk"}], "bases": [{"name", "users"}], "others": [path]}"""
    found = sorted(instances.iterdir()) if instances.is_dir() else []
    folders = [{"id": path.name, "disk": (path / "disk").exists()} for path in found if path.is_dir() and _UUID.fullmatch(path.name)]
    bases = sorted((instances / BASES).iterdir()) if (instances / BASES).is_dir() else []
    users = _users(instances)
    others = [str(path) for path in found if path.name not in (ASIDE, BASES) and not (path.is_dir() and _UUID.fullmatch(path.name))]
    others += [str(path) for path in bases if not _BASE.fullmatch(path.name) and not path.name.endswith((".part", ".sum"))]
    return {"folders": folders, "others": others,
            "bases": [{"name": path.name, "users": sorted(users.get(path.name, ()))} for path in bases if _BASE.fullmatch(path.name)]}  # fmt: skip


def bases_under_disks(instances: Path) -> set[str]:
    return set(_users(instances))


def _users(instances: Path) -> dict[str, set[str]]:
    """base -> the folders with a disk over it."""
    found: dict[str, set[str]] = {}
    for disk in [*instances.glob("*/disk*"), *instances.glob(f"{ASIDE}/*/disk*")]:
        base = _backing(disk)
        if base:
            found.setdefault(Path(base).name, set()).add(disk.parent.name)
    return found


def _backing(disk: Path) -> str:
    """The name of the file below a qcow2 disk; empty when there is none to be read."""
    try:
        with open(os.open(disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            head = file.read(20)
            if len(head) < 20 or head[:4] != b"QFI\xfb":
                return ""
            offset, size = struct.unpack(">QI", head[8:20])
            if not offset or size > _LONGEST or offset > 1 << 20:
                return ""
            file.seek(offset)
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def set_aside(instances: Path, name: str) -> str:
    """Moves a folder that no server of this host is in out of the way; where it is now. Raises NodeError."""
    if not _UUID.fullmatch(name):
        raise NodeError(f"{name!r} is no server id")
    target = instances / ASIDE / f"{name}.{int(time.time())}"
    if (instances / name).is_dir():
        (instances / ASIDE).mkdir(mode=0o700, exist_ok=True)
        (instances / name).rename(target)
        sync_folder(instances / ASIDE)
        sync_folder(instances)
    return str(target)


def absent_base(instances: Path, name: str, needed: Collection[str]) -> None:
    """Removes a base that no disk here lies over and no domain names. Raises NodeError."""
    if not _BASE.fullmatch(name):
        raise NodeError(f"{name!r} is no base")
    users = _users(instances).get(name)
    if users or any(Path(path).name == name for path in needed):
        raise NodeError(f"base {name} is needed by {', '.join(sorted(users or {'a domain'}))}")
    remove(instances / BASES / name)
    sync_folder(instances / BASES)
