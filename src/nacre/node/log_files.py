"""Logs that others write on this host kept small: the daemons' own, whose guests can make them say as much as they like.

None of them turns its log by itself, and all append, so a log that is too large is emptied in place after its end was copied to `.1`.
What is said between the copy and that is lost; on a full disk so is the copy, and the room comes back all the same.
"""

import logging
import os
import stat
import threading
import time
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)
LIMIT = 8 << 20
_EVERY = 60.0


def keep_small(places: Iterable[tuple[Path, str]]) -> None:
    """From now on, on a thread of its own: files by (folder, pattern below it)."""
    wanted = tuple(places)

    def forever() -> None:
        while True:
            for folder, pattern in wanted:
                look(folder, pattern)
            time.sleep(_EVERY)

    threading.Thread(target=forever, name="log-files", daemon=True).start()


def look(folder: Path, pattern: str, limit: int = LIMIT) -> None:
    for path in folder.glob(pattern):
        try:
            if path.lstat().st_size > limit:
                _empty(path, limit)
        except OSError as error:
            log.warning("log %s cannot be kept small: %s", path, error)


def _empty(path: Path, limit: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "r+b") as file:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            return
        old = path.with_name(f"{path.name}.1")
        try:
            old.unlink(missing_ok=True)
            file.seek(max(0, seen.st_size - limit))
            with old.open("xb") as copy:
                copy.write(file.read(limit))
        except OSError:
            old.unlink(missing_ok=True)
        file.truncate(0)
