"""Where a disk holds anything: the parts of a raw file that are not those of its base, or not zero, in whole clusters and rising order.

Holes of both files are skipped unread; the rest is compared a block at a time, so a disk costs what is in it, not its size.
"""

import errno
import os
from collections.abc import Iterator
from typing import IO

CLUSTER = 1 << 16
_BLOCK = 1 << 20
Run = tuple[int, bytes]


def differing(disk: IO[bytes], base: IO[bytes] | None, size: int) -> Iterator[Run]:
    """(offset, bytes) of every run of clusters in which the first `size` bytes of `disk` are not those of `base`. A run is at most a
    block; only the last may end within a cluster."""
    files = [file.fileno() for file in (disk, base) if file is not None]
    at = 0
    while (at := min((_data(file, at, size) for file in files), default=size)) < size:
        at -= at % _BLOCK
        wanted = min(_BLOCK, size - at)
        now, before = _read(files[0], at, wanted), _read(files[1], at, wanted) if base is not None else bytes(wanted)
        if now != before:
            yield from _runs(at, now, before)
        at += wanted


def _data(file: int, at: int, size: int) -> int:
    """Where the next data begins."""
    try:
        return min(size, os.lseek(file, at, os.SEEK_DATA))
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole, or the end
            return size
        raise


def _read(file: int, at: int, wanted: int) -> bytes:
    """A file that is shorter goes on with zeros."""
    parts, got = [], 0
    while got < wanted and (part := os.pread(file, wanted - got, at + got)):
        parts.append(part)
        got += len(part)
    return b"".join(parts) + bytes(wanted - got)


def _runs(at: int, now: bytes, before: bytes) -> Iterator[Run]:
    begin = None
    for offset in range(0, len(now), CLUSTER):
        same = now[offset : offset + CLUSTER] == before[offset : offset + CLUSTER]
        if same and begin is not None:
            yield at + begin, now[begin:offset]
            begin = None
        elif not same and begin is None:
            begin = offset
    if begin is not None:
        yield at + begin, now[begin:]
