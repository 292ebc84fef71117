import hashlib
import io
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks.bases import Keep
from nacre.node.disks.config_drive import ConfigDrives
from nacre.node.disks.file import FileDisks, qcow2_size
from nacre.node.disks.image_cache import ImageCache
from nacre.node.hypervisor.driver import ImageSpec, ServerSpec
from node.disks.hostile import SECRET, hostile, qemu_img

SERVER = "6c1f1b4e-0000-4000-8000-000000000001"
NO_DRIVES = ConfigDrives("iso9660", lambda server_id: {})


class Store:
    """Images by id; counts how often each was fetched."""

    def __init__(self) -> None:
        self.images: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.slow = 0.0

    @contextmanager
    def fetch(self, image_id: str) -> Iterator[io.BytesIO]:
        self.fetched.append(image_id)
        time.sleep(self.slow)
        yield io.BytesIO(self.images[image_id])


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def cache(tmp_path: Path, store: Store) -> ImageCache:
    made = ImageCache(tmp_path / "instances/_base", store.fetch)
    made.recover()
    return made


def image(store: Store, content: bytes, declared: str, image_id: str = "i1", **other: object) -> ImageSpec:
    store.images[image_id] = content
    found = {"size": len(content), "hash_algo": "sha512", "hash_value": hashlib.sha512(content).hexdigest(), **other}
    return ImageSpec(image_id, declared, **found)  # type: ignore[arg-type]


def raw_disk(tmp_path: Path) -> Path:
    path = tmp_path / "source.raw"
    path.write_bytes(os.urandom(100_000) + bytes(3 << 20) + b"end")
    os.truncate(path, 4 << 20)
    return path


@pytest.mark.parametrize(
    ("declared", "name", "options"),
    [
        ("qcow2", "qcow2", []),
        ("vmdk", "vmdk", ["-o", "subformat=monolithicSparse"]),
        ("vmdk", "vmdk", ["-o", "subformat=streamOptimized"]),
        ("vdi", "vdi", []),
        ("vhd", "vpc", ["-o", "force_size=on"]),
        ("vhdx", "vhdx", []),
        ("raw", "raw", []),
    ],
)
def test_an_honest_image_becomes_the_same_raw_disk(
    tmp_path: Path, store: Store, cache: ImageCache, declared: str, name: str, options: list[str]
) -> None:
    source, sent = raw_disk(tmp_path), tmp_path / "sent"
    qemu_img("convert", "-f", "raw", "-O", name, *options, source, sent)
    spec = image(store, sent.read_bytes(), declared)
    assert cache.ensure(spec, Deadline(30)) == 4 << 20
    base = cache.path("i1")
    assert base.read_bytes() == source.read_bytes()
    assert (base.stat().st_mode & 0o777, base.stat().st_uid) == (0o640, os.geteuid())
    assert base.stat().st_blocks * 512 <= 2 << 20, "holes stay holes"
    assert bases_of(cache) == [base.name]
    cache.ensure(spec, Deadline(30))
    assert store.fetched == ["i1"]


def test_hostile_images_are_refused_with_a_reason_and_leave_nothing(tmp_path: Path, store: Store, cache: ImageCache) -> None:
    for what, declared, content, reason in hostile(tmp_path):
        began = time.monotonic()
        with pytest.raises(NodeError) as refused:
            cache.ensure(image(store, content, declared, image_id=what), Deadline(30))
        assert time.monotonic() - began < 20, what
        assert re.search(reason, str(refused.value)), (what, str(refused.value), refused.value.detail)
        assert SECRET not in str(refused.value) + refused.value.detail
        assert list(cache.folder.iterdir()) == [], what


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hash_value": "0" * 128}, "its sha512 differs"),
        ({"hash_value": None}, "no hash"),
        ({"hash_algo": "crc32"}, "no hash"),
        ({"size": 3}, "damaged"),
        ({"size": 1 << 30}, "damaged"),
    ],
)
def test_what_came_differs_from_what_was_promised(store: Store, cache: ImageCache, change: dict[str, object], reason: str) -> None:
    with pytest.raises(NodeError, match=reason):
        cache.ensure(image(store, b"x" * 5000, "raw", **change), Deadline(30))
    assert list(cache.folder.iterdir()) == []


def test_an_image_is_fetched_once_whoever_asks(store: Store, cache: ImageCache) -> None:
    store.slow = 0.2
    spec = image(store, b"x" * 5000, "raw")
    again = ImageCache(cache.folder, store.fetch)
    sizes: list[int] = []
    threads = [threading.Thread(target=lambda one=one: sizes.append(one.ensure(spec, Deadline(30)))) for one in (cache, again, cache)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    again.recover()
    for thread in threads:
        thread.join()
    assert (sizes, store.fetched) == ([5120] * 3, ["i1"])


def test_a_fetch_that_is_not_wanted_any_more_ends(store: Store, cache: ImageCache) -> None:
    spec, deadline = image(store, b"x" * 5000, "raw"), Deadline(30)
    deadline.cancel("fenced")
    with pytest.raises(NodeError, match="fenced"):
        cache.ensure(spec, deadline)
    assert list(cache.folder.iterdir()) == []


def test_orphans_are_removed_and_bases_stay(store: Store, cache: ImageCache) -> None:
    cache.ensure(image(store, b"x" * 5000, "raw"), Deadline(30))
    (cache.folder / "1234.part").write_bytes(b"half")
    (cache.folder / "1234.raw.part").write_bytes(b"half")
    cache.recover()
    assert bases_of(cache) == [cache.path("i1").name]


def server(spec: ImageSpec, **other: int) -> ServerSpec:
    found = {"root_gb": 1, **other}
    return ServerSpec(SERVER, 1, "n", "p", 1, 64, image=spec, **found)  # type: ignore[arg-type]


def test_disks_are_made_once_and_only_grow(tmp_path: Path, store: Store, cache: ImageCache) -> None:
    disks = FileDisks(tmp_path / "instances", cache, NO_DRIVES)
    disks.recover()
    spec = image(store, b"x" * 5000, "raw")
    disks.ensure(server(spec, root_gb=0, swap_mb=8), Deadline(30))
    disk = disks.folder(SERVER) / "disk"
    assert qcow2_size(disk) == 5120
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512", str(disk)], check=True, capture_output=True, timeout=30)
    disks.ensure(server(spec, root_gb=2, ephemeral_gb=1, swap_mb=8), Deadline(30))
    disks.ensure(server(spec, root_gb=1, ephemeral_gb=1, swap_mb=8), Deadline(30))
    assert qcow2_size(disk) == 2 << 30
    check = ["qemu-io", "-f", "qcow2", "-c", "read -P 7 0 512", "-c", "read -P 0x78 512 512", str(disk)]
    assert "verification failed" not in subprocess.run(check, capture_output=True, text=True, timeout=30, check=True).stdout
    assert sorted(path.name for path in disks.folder(SERVER).iterdir()) == ["disk", "disk.eph0", "disk.swap", "run"]
    disks.absent(SERVER)
    disks.absent(SERVER)
    assert [path.name for path in disks.instances.iterdir()] == ["_base"]


def test_an_image_larger_than_the_flavor_is_refused(tmp_path: Path, store: Store, cache: ImageCache) -> None:
    made = tmp_path / "large"
    qemu_img("create", "-f", "qcow2", made, "3G")
    disks = FileDisks(tmp_path / "instances", cache, NO_DRIVES)
    disks.recover()
    with pytest.raises(NodeError, match="needs a disk of 3 GB, the flavor has 2 GB"):
        disks.ensure(server(image(store, made.read_bytes(), "qcow2"), root_gb=2), Deadline(30))


@pytest.mark.parametrize("name", ["../../etc", "", "6C1F1B4E-0000-4000-8000-000000000001", "x" * 36])
def test_a_name_that_is_no_id_is_no_folder(tmp_path: Path, cache: ImageCache, name: str) -> None:
    with pytest.raises(NodeError, match="no server id"):
        FileDisks(tmp_path, cache, NO_DRIVES).folder(name)


def bases_of(cache: ImageCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if path.suffix != ".sum")


def test_a_base_that_changed_is_noticed_and_fetched_again(store: Store, cache: ImageCache) -> None:
    spec = image(store, os.urandom(5000) + bytes(2 << 20) + b"end", "raw")
    cache.ensure(spec, Deadline(30))
    base = cache.path("i1")
    whole = base.read_bytes()
    os.utime(base)
    cache.ensure(spec, Deadline(30))
    assert store.fetched == ["i1"], "touched, and still what it was"
    with base.open("r+b") as file:
        file.seek(4000)
        file.write(b"\0\0\0\0")
    cache.ensure(spec, Deadline(30))
    assert (store.fetched, base.read_bytes()) == (["i1", "i1"], whole)
    base.write_bytes(whole[:-512])
    cache.ensure(spec, Deadline(30))
    assert (store.fetched, base.read_bytes()) == (["i1"] * 3, whole)
    base.with_suffix(".sum").unlink()
    cache.ensure(spec, Deadline(30))
    assert store.fetched == ["i1"] * 3, "a base from before there were sums is taken as it is"


def test_rot_is_noticed_within_a_day(store: Store, cache: ImageCache) -> None:
    """The content changed and nothing else did."""
    spec = image(store, b"x" * 5000, "raw")
    cache.ensure(spec, Deadline(30))
    base, before = cache.path("i1"), cache.path("i1").stat()
    with base.open("r+b") as file:
        file.write(b"rot")
    os.utime(base, ns=(before.st_atime_ns, before.st_mtime_ns))
    known = json.loads(base.with_suffix(".sum").read_text())
    base.with_suffix(".sum").write_text(json.dumps(known | {"checked": time.time() - 90000}))
    cache.ensure(spec, Deadline(30))
    assert (store.fetched, base.read_bytes()[:5]) == (["i1", "i1"], b"xxxxx")


def test_bases_go_by_age_and_by_space(store: Store, cache: ImageCache) -> None:
    for number, hours in ((1, 1), (2, 2), (3, 3), (4, 30), (5, 0)):
        cache.ensure(image(store, b"x" * 5000, "raw", image_id=f"i{number}"), Deadline(30))
        known = cache.path(f"i{number}").with_suffix(".sum")
        known.write_text(json.dumps(json.loads(known.read_text()) | {"used": time.time() - hours * 3600}))
    needed = {cache.path("i3").name}
    assert cache.prune(needed) == [cache.path("i4").name], "a day is over"
    cache.keep = Keep(86400.0, 1 << 60)
    assert cache.prune(needed) == [cache.path("i2").name, cache.path("i1").name], "the disk is short; the longest unused first"
    assert bases_of(cache) == sorted([cache.path("i3").name, cache.path("i5").name]), "needed, and asked for just now"
    assert cache.prune(()) == [cache.path("i3").name]


@pytest.mark.parametrize(("declared", "wanted", "found"), [("qcow2", "raw", "raw"), ("raw", "qcow2", "qcow2"), ("vmdk", "qcow2", "qcow2")])
def test_an_image_that_is_imported_is_converted(tmp_path: Path, store: Store, cache: ImageCache, declared: str, wanted: str, found: str) -> None:
    source, sent, got = raw_disk(tmp_path), tmp_path / "sent", tmp_path / "got"
    qemu_img("convert", "-f", "raw", "-O", declared, source, sent)
    spec = image(store, sent.read_bytes(), declared, hash_value=None)
    with cache.converted(spec, wanted, Deadline(30)) as file:
        file.seek(0)
        got.write_bytes(file.read())
    qemu_img("convert", "-f", found, "-O", "raw", got, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == source.read_bytes()
    assert bases_of(cache) == []


def test_a_hostile_image_is_not_converted(tmp_path: Path, store: Store, cache: ImageCache) -> None:
    for what, declared, content, reason in hostile(tmp_path):
        with pytest.raises(NodeError) as refused, cache.converted(image(store, content, declared, image_id=what), "raw", Deadline(30)):
            pass
        assert re.search(reason, str(refused.value)), what
        assert SECRET not in str(refused.value) + refused.value.detail
