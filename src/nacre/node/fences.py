"""What a node must not forget between two lives of its agent: fences and results.

A fence is (cloud epoch, attempt). The highest one seen for a resource stays on disk, synced before anything is done under it, so a
call of an older attempt that arrives late, or of a cloud before it was restored, is refused even after a power cut. Beside it lies
what one attempt noted once (`note`), by which an act that is no `ensure` can tell whether it was already done.

Results stay on disk until the control plane has answered for them. They are not synced: after a power cut the same call comes again
and every verb may be repeated. So a disk that does not take one is no harm.

A full disk must not keep a host from taking away what fills it, and no call goes without its fence: a file beside the fences holds room
for some hundred of them and is given up when there is no other.
"""

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

Fence = tuple[int, int]
_KEPT = 7 * 86400
_RESERVE = 1 << 20
log = logging.getLogger(__name__)


class Result(msgspec.Struct, omit_defaults=True):
    """`error` is one sentence, `detail` what an operator needs, `timing` what it did and how long that took (trace.py)."""

    id: str
    ok: bool
    value: dict[str, Any] | None = None
    error: str | None = None
    detail: str | None = None
    timing: dict[str, Any] | None = None


class _Kept(msgspec.Struct):
    fence: Fence
    notes: dict[str, str | None] = {}


def file_name(name: str) -> str:
    """`name` as one component of a path, whatever it holds."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"


def write_file(path: Path, content: bytes, *, sync: bool) -> None:
    """`path` holds `content` or what it held before, never a part; `sync`: also after a power cut."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if sync:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class _Reserve:
    """Room on the disk that is taken beforehand, as the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self) -> None:
        """As far as the disk has it; harmless when it is taken."""
        if self.path.exists():
            return
        try:
            with self.path.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE)
        except OSError:
            self.give_up()

    def give_up(self) -> bool:
        """Whether there was any."""
        there = self.path.exists()
        self.path.unlink(missing_ok=True)
        return there


class Fences:
    """The highest fence of each resource, kept in `folder`. Raises OSError when the disk cannot keep one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._reserve = _Reserve(folder.with_name(f"{folder.name}.reserve"))
        self._reserve.take()

    def admit(self, resource: str, fence: Fence) -> bool:
        """False if an attempt newer than `fence` was seen; otherwise `fence` is the highest from now on."""
        with self._lock:
            kept = self._load(resource)
            if kept is not None and kept.fence >= fence:
                return kept.fence == fence
            self._store(resource, _Kept(fence))
            return True

    def current(self, resource: str) -> Fence | None:
        with self._lock:
            kept = self._load(resource)
            return kept.fence if kept else None

    def note(self, resource: str, fence: Fence, name: str, value: str | None) -> str | None:
        """What was noted first under `name` within this attempt; it is `value` if nothing was."""
        with self._lock:
            kept = self._load(resource)
            if kept is None or kept.fence != fence:
                kept = _Kept(fence)
            if name not in kept.notes:
                self._store(resource, _Kept(fence, {**kept.notes, name: value}))
                return value
            return kept.notes[name]

    def prune(self, alive: Collection[str]) -> None:
        """Forgets resources that are not `alive` and were not spoken of for a week."""
        names = {file_name(resource) for resource in alive}
        for path in self.folder.iterdir():
            if path.name not in names and path.stat().st_mtime < time.time() - _KEPT:
                path.unlink(missing_ok=True)

    def _load(self, resource: str) -> _Kept | None:
        if resource not in self._kept:
            path = self.folder / file_name(resource)
            if not path.exists():
                return None
            self._kept[resource] = msgspec.json.decode(path.read_bytes(), type=_Kept)
        return self._kept[resource]

    def _store(self, resource: str, kept: _Kept) -> None:
        path, content = self.folder / file_name(resource), msgspec.json.encode(kept)
        try:
            write_file(path, content, sync=True)
        except OSError as error:
            if not (error.errno in (errno.ENOSPC, errno.EDQUOT) and self._reserve.give_up()):
                raise
            write_file(path, content, sync=True)
        self._kept[resource] = kept
        self._reserve.take()


class Results:
    """Results that the control plane has not answered for, kept in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.part"):
            part.unlink()
        self._kept: dict[str, Result] = {}
        for path in sorted(folder.iterdir()):
            try:
                result = msgspec.json.decode(path.read_bytes(), type=Result)
            except msgspec.MsgspecError:
                path.unlink()  # cut off by a power cut
            else:
                self._kept[result.id] = result

    def put(self, result: Result) -> None:
        with self._lock:
            self._kept[result.id] = result
            try:
                write_file(self.folder / file_name(result.id), msgspec.json.encode(result), sync=False)
            except OSError as error:
                log.warning("the result of call %s is kept in memory only: %s", result.id, error)

    def holds(self, call_id: str) -> bool:
        with self._lock:
            return call_id in self._kept

    def all(self) -> list[Result]:
        with self._lock:
            return list(self._kept.values())

    def drop(self, ids: Collection[str]) -> None:
        with self._lock:
            for result_id in ids:
                if self._kept.pop(result_id, None) is not None:
                    (self.folder / file_name(result_id)).unlink(missing_ok=True)
