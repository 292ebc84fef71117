"""What a base was when it was made, whether it still is, and which bases may go.

`<base>.sum` is JSON: a digest of the content, the file's size, time and inode, when the digest was last compared, when the base was last asked
for. While size, time and inode are the same the digest is believed for a day; anything else is read again from begin to end. The digest is of
whatever is not zero, block by block, so holes cost nothing and do not count.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.node.deadline import Deadline

log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)
_BELIEVED = 86400.0
_RECENT = 900.0
_NAME = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Keep:
    """A base that nobody needs stays for `seconds` after it was last asked for; at once it goes when less than `free` bytes are free."""

    seconds: float
    free: int


def sum_of(base: Path) -> Path:
    return base.with_suffix(".sum")


def sound(base: Path, deadline: Deadline) -> bool:
    """Whether the base is there and is what it was when it was made. One from before there were sums is taken as it is."""
    if not base.exists():
        return False
    known, now = _read(base), _shape(base)
    if known is None:
        remember(base, deadline)
        return True
    if all(known.get(name) == value for name, value in now.items()) and time.time() - known["checked"] < _BELIEVED:
        return True
    if known["digest"] != _digest(base, deadline):
        log.error("base %s is not what it was: it is fetched again", base.name)
        return False
    _write(base, known | now | {"checked": time.time()})
    return True


def remember(base: Path, deadline: Deadline) -> None:
    """A base that has just been made."""
    _write(base, {**_shape(base), "digest": _digest(base, deadline), "checked": time.time(), "used": time.time()})


def used(base: Path) -> None:
    known = _read(base)
    if known is not None:
        _write(base, known | {"used": time.time()})


def recover(folder: Path) -> None:
    """Sums of bases that are gone go."""
    for path in folder.glob("*.sum"):
        if not path.with_suffix("").exists():
            path.unlink(missing_ok=True)


def remove(base: Path) -> None:
    base.unlink(missing_ok=True)
    sum_of(base).unlink(missing_ok=True)


def prune(folder: Path, needed: Collection[str], keep: Keep) -> list[str]:
    """Removes bases that are not `needed`, the longest unused first; their names. One that was asked for lately stays in any case: its
    server may be just about to be made."""
    gone = []
    for _, base in sorted((_last(base), base) for base in folder.iterdir() if _NAME.fullmatch(base.name) and base.name not in needed):
        unused = time.time() - _last(base)
        if unused > keep.seconds or (unused > _RECENT and shutil.disk_usage(folder).free < keep.free):
            remove(base)
            gone.append(base.name)
    return gone


def _last(base: Path) -> float:
    """When it was last asked for."""
    known = _read(base)
    return float(known["used"]) if known is not None else base.stat().st_mtime


def _shape(base: Path) -> dict[str, int]:
    found = base.stat()
    return {"size": found.st_size, "mtime": found.st_mtime_ns, "inode": found.st_ino}


def _digest(base: Path, deadline: Deadline) -> str:
    digest = hashlib.blake2b(digest_size=32)
    with base.open("rb", buffering=0) as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        digest.update(str(size).encode())
        while at < size:
            try:
                at = max(at, os.lseek(file.fileno(), at, os.SEEK_DATA) // _BLOCK * _BLOCK)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole is left
                    break
            deadline.check()
            file.seek(at)
            block = file.read(_BLOCK)
            if block != _ZEROS[: len(block)]:
                digest.update(at.to_bytes(8, "big") + block)
            at += _BLOCK
    return digest.hexdigest()


def _read(base: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(sum_of(base).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"digest", "checked", "used"} <= found.keys() else None


def _write(base: Path, known: dict[str, Any]) -> None:
    part = sum_of(base).with_suffix(f".{os.getpid()}.{time.monotonic_ns()}.part")
    part.write_text(json.dumps(known))
    part.rename(sum_of(base))
