"""The file of a backup: what was put in comes out, and what is damaged, foreign or newer is told before anybody uses it."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from nacre.core import archive
from nacre.core.archive import Manifest, Reader, Unusable, Writer

MANIFEST = Manifest(program="program-1", schema="0007", cloud="abc", made="2026-01-01 00:00:00 UTC", disks=True)
RUNS = [(0, b"a" * 70000), (1 << 20, b"b" * (9 << 20)), (20 << 20, b"c" * (9 << 20)), (1 << 40, b"end")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    with Writer(path, MANIFEST) as out:
        out.add("nacre.toml", b"[nacre]")
        assert out.add_holed("servers/x/disk", iter(RUNS)) == sum(len(data) for _, data in RUNS)
        out.add_holed("servers/x/empty", iter(()))
        assert not path.exists() and (tmp_path / "backup.part").stat().st_mode & 0o777 == 0o600
        assert out.finish() == path.stat().st_size
    assert [entry.name for entry in tmp_path.iterdir()] == ["backup"] and path.stat().st_mode & 0o777 == 0o600
    return path


def content(path: Path, head: str = "0007") -> dict[str, bytes]:
    with Reader(path, head) as source:
        return {name: member.read() for name, member in source.members()}


def test_what_is_in_comes_out(file: Path) -> None:
    with Reader(file, "0008") as source:
        assert source.manifest == MANIFEST
    found = content(file)
    assert found["nacre.toml"] == b"[nacre]"
    parts = [name for name in found if name.startswith("servers/x/disk/")]
    assert len(parts) == 2, "large files come in parts that fit into memory"
    assert [run for name in parts for run in archive.unpacked(found[name])] == RUNS
    assert list(archive.unpacked(found["servers/x/empty/00000000"])) == []


def test_what_is_not_read_is_hashed_all_the_same(file: Path) -> None:
    with Reader(file, "0007") as source:
        assert len(list(source.members())) == 4


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """A tar like ours, of these members."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    path.write_bytes(subprocess.run(["zstd", "-q", "-c"], input=content.getvalue(), capture_output=True, check=True).stdout)
    return path


def complaint(path: Path, head: str = "0007") -> str:
    with pytest.raises(Unusable) as refused:
        content(path, head)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_cut_off_anywhere(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    cut = tmp_path / "cut"
    for size in (0, 3, 40, len(whole) // 3, len(whole) // 2, len(whole) - 200, len(whole) - 1):
        cut.write_bytes(whole[:size])
        assert "is damaged" in complaint(cut) or "is no backup" in complaint(cut), size


def test_a_file_with_a_changed_byte(file: Path, tmp_path: Path) -> None:
    whole, changed, wanted = file.read_bytes(), tmp_path / "changed", content(file)
    told = 0
    for at in range(50, len(whole), len(whole) // 20):
        changed.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert content(changed) == wanted, "some bytes of a packed file mean nothing"
        except Unusable as error:
            told += "is damaged" in str(error) or "is no backup" in str(error)
    assert told > 15


def test_something_behind_its_end(file: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    longer.write_bytes(file.read_bytes() + b"more")
    assert "is damaged" in complaint(longer)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x1f\x8b\x08 gzip", b"\x28\xb5\x2f\xfd nonsense"])
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign").write_bytes(content)
    assert "is no backup of Nacre" in complaint(tmp_path / "foreign")


def test_foreign_archives(tmp_path: Path) -> None:
    assert "is no backup of Nacre" in complaint(packed(tmp_path / "tar", {"etc/passwd": b"root"}))
    assert "is no backup of Nacre" in complaint(packed(tmp_path / "list", {"manifest.json": b"[1]"}))
    assert "cannot be read" in complaint(tmp_path / "absent") and "cannot be read" in complaint(tmp_path)


def test_newer_files(tmp_path: Path, file: Path) -> None:
    newer = packed(tmp_path / "format", {"manifest.json": json.dumps({"format": 2, "new": "things"}).encode()})
    assert "format 2, made by a newer program" in complaint(newer)
    assert "at step 0007, and this program is at 0006" in complaint(file, "0006")


def test_members_that_do_not_belong(tmp_path: Path) -> None:
    first = {"manifest.json": json.dumps({"format": 1, "program": "p", "schema": "0001", "cloud": "", "made": "", "disks": False}).encode()}
    for name in ("../../etc/passwd", "/etc/passwd", "keys/../x"):
        assert "does not belong" in complaint(packed(tmp_path / "odd", {**first, name: b"x"}))
    assert "is damaged" in complaint(packed(tmp_path / "sums", {**first, "sums.json": b"{}"}))


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cannot be written: No such file"):
        Writer(tmp_path / "absent" / "x", MANIFEST)
    with pytest.raises(RuntimeError), Writer(tmp_path / "x", MANIFEST) as out:
        out.add("a", b"a")
        raise RuntimeError
    with Writer(tmp_path / "x", MANIFEST), pytest.raises(Unusable, match="being written by another"):
        Writer(tmp_path / "x", MANIFEST)
    assert list(tmp_path.iterdir()) == []
    before = tmp_path / "before"
    before.write_bytes(b"kept")
    with pytest.raises(RuntimeError), Writer(before, MANIFEST):
        raise RuntimeError
    assert before.read_bytes() == b"kept", "the file of that name is replaced by a whole one only"


def test_a_full_disk(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        for size in (4 << 20, 70000):  # noticed on the way, and at the end
            with pytest.raises(Unusable, match="No space left"), open("/dev/urandom", "rb") as noise, Writer(tmp_path / "x", MANIFEST) as out:
                out.add_file("noise", noise, size)
                out.finish()
            assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
