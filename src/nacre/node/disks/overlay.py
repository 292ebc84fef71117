"""A guest's root disk made of what is in it: a qcow2 over a raw base, written in one pass.

The head is ours, whatever the guest had written into that of its own disk. Layout (qcow2, version 3): head, first-level table, then data
and second-level tables as the data comes, at the end the counts of references, which are 1 everywhere. Nothing else may have the file open.
"""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from nacre.node.disks.ranges import CLUSTER, Run

_ENTRIES = CLUSTER // 8
_COUNTS = CLUSTER // 2
_COPIED = 1 << 63
_BACKING_FORMAT = 0xE2792ACA
_HEAD = ">4sIQIIQIIQQIIQQQQII"


def write(target: IO[bytes], size: int, base: Path, runs: Iterable[Run]) -> None:
    """Writes into the empty `target` a disk of `size` bytes that is `base` but for `runs`, in rising order."""
    tables = -(-size // (_ENTRIES * CLUSTER))
    first = [0] * tables
    free = 1 + -(-tables * 8 // CLUSTER)  # the next cluster
    number, second = -1, [0] * _ENTRIES

    def keep() -> None:
        nonlocal free
        if number >= 0:
            _put(target, free, struct.pack(f">{_ENTRIES}Q", *second))
            first[number] = free * CLUSTER | _COPIED
            free += 1

    for offset, data in runs:
        for at in range(0, len(data), CLUSTER):
            table, entry = divmod((offset + at) // CLUSTER, _ENTRIES)
            if table != number:
                keep()
                number, second = table, [0] * _ENTRIES
            _put(target, free, data[at : at + CLUSTER])
            second[entry] = free * CLUSTER | _COPIED
            free += 1
    keep()
    _put(target, 1, struct.pack(f">{tables}Q", *first))
    counts, length = _count(target, free)
    _put(target, 0, _head(size, base, tables, (counts, length)))


def _count(target: IO[bytes], used: int) -> tuple[int, int]:
    """Writes the references of `used` clusters and of those that hold them: (where their table begins, its clusters)."""
    blocks, length = 1, 1
    while True:
        whole = used + blocks + length
        wanted = -(-whole // _COUNTS), -(-blocks * 8 // CLUSTER)
        if wanted == (blocks, length):
            break
        blocks, length = wanted
    _put(target, used, struct.pack(f">{blocks}Q", *((used + length + block) * CLUSTER for block in range(blocks))))
    for block in range(blocks):
        held = min(_COUNTS, whole - block * _COUNTS)
        _put(target, used + length + block, struct.pack(f">{held}H", *[1] * held))
    return used * CLUSTER, length


def _head(size: int, base: Path, tables: int, counts: tuple[int, int]) -> bytes:
    extensions = struct.pack(">II8sII", _BACKING_FORMAT, 3, b"raw", 0, 0)
    name = str(base).encode()
    length = struct.calcsize(_HEAD)
    return struct.pack(_HEAD, b"QFI\xfb", 3, length + len(extensions), len(name), 16, size, 0, tables, CLUSTER, *counts, 0, 0,
                       0, 0, 0, 4, length) + extensions + name  # fmt: skip


def _put(target: IO[bytes], cluster: int, data: bytes) -> None:
    """A cluster that `data` does not fill goes on with zeros."""
    target.seek(cluster * CLUSTER)
    target.write(data + bytes(-len(data) % CLUSTER))
