"""What differs from a base, and the disk that is made of it, as qemu-img sees them."""

import random
import subprocess
from pathlib import Path

import pytest

from nacre.node.deadline import Deadline
from nacre.node.disks import copies, overlay, ranges


def sparse(path: Path, size: int, writes: list[tuple[int, bytes]]) -> Path:
    with path.open("wb") as file:
        for offset, data in writes:
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


@pytest.mark.parametrize("size", [512, 3 * ranges.CLUSTER + 512, 600 << 20, 40 << 30])
def test_a_disk_goes_through(tmp_path: Path, size: int) -> None:
    chance = random.Random(size)

    def writes(count: int, limit: int) -> list[tuple[int, bytes]]:
        found = []
        for number in range(count):
            offset = chance.randrange(limit)
            length = min(chance.randrange(1, 200000), limit - offset)
            found.append((offset, chance.randbytes(length) if number % 3 else bytes(length)))
        return found

    limit = min(size, 1 << 24)
    base = sparse(tmp_path / "base", limit, [(offset, b"x" * len(data)) for offset, data in writes(12, limit)])
    disk = tmp_path / "disk"
    subprocess.run(["cp", "--sparse=always", str(base), str(disk)], check=True)
    with disk.open("r+b") as file:
        file.truncate(size)
        for offset, data in [*writes(12, limit), *writes(12, size)]:
            file.seek(offset)
            file.write(data)
    made = tmp_path / "made"
    with disk.open("rb") as changed, base.open("rb") as below, made.open("xb") as target:
        found = list(ranges.differing(changed, below, size))
        overlay.write(target, size, base, found)
    assert all(offset % ranges.CLUSTER == 0 for offset, _ in found) and sorted(found) == found
    checked = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(made)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    same = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(disk), str(made)], capture_output=True, text=True, check=False)
    assert same.returncode == 0, same.stdout + same.stderr
    assert made.stat().st_blocks * 512 < disk.stat().st_blocks * 512 + (2 << 20), "what the base has is not in it"


def test_a_raw_disk_is_copied_with_its_holes(tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 1 << 33, [(0, b"head"), (1 << 30, b"x" * (5 << 20)), ((1 << 33) - 4, b"tail")])
    with disk.open("rb") as source, (tmp_path / "copy").open("xb") as target:
        copies.copy_sparse(source, target, Deadline(60))
    made = tmp_path / "copy"
    assert made.stat().st_size == 1 << 33 and made.stat().st_blocks <= disk.stat().st_blocks + 64
    with disk.open("rb") as one, made.open("rb") as other:
        assert list(ranges.differing(one, None, 1 << 33)) == list(ranges.differing(other, None, 1 << 33))


def test_holes_are_not_read(tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 1 << 42, [(5 << 40 >> 1, b"here")])
    with disk.open("rb") as file:
        (offset, data), = ranges.differing(file, None, 1 << 42)
    assert offset == 5 << 40 >> 1 and data[:4] == b"here" and len(data) <= 1 << 20
