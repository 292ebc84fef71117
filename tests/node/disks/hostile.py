"""Images that want more than to be a guest's disk: the host's files, another format's parser, its memory or its time."""

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

SECRET = "the host's own secret\n"
ANY = "not safe|cannot be read|content is|could not be converted|too large"


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def changed(content: bytes, *fields: tuple[int, int, int], order: str = "big") -> bytes:
    """`content` with numbers in it replaced: (offset, bytes, value)."""
    new = bytearray(content)
    for offset, size, value in fields:
        new[offset : offset + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(new)


def hostile(tmp_path: Path) -> Iterator[tuple[str, str, bytes, str]]:
    """(what, declared format, content, the reason for which a host refuses it)"""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    made = tmp_path / "made"
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, made)
    yield "backing file", "qcow2", made.read_bytes(), "backing"
    qemu_img("create", "-f", "qcow2", "-u", "-F", "raw", "-b", 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}', made, "1M")
    yield "json backing file", "qcow2", made.read_bytes(), "backing"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on", made, "1M")
    yield "data file", "qcow2", made.read_bytes(), "data"
    extent = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 1 FLAT "{secret}" 0\n'
    yield "vmdk descriptor", "vmdk", extent.encode(), "not safe"
    qemu_img("create", "-f", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "flat.vmdk", "1M")
    yield "flat vmdk", "vmdk", (tmp_path / "flat.vmdk").read_bytes(), "not safe|content is"
    qemu_img("create", "-f", "vmdk", "-o", "subformat=monolithicSparse", made, "1M")
    content = bytearray(made.read_bytes())
    place = content.index(b'RW 2048 SPARSE "')
    content[place : place + 60] = f'RW 2048 FLAT "{secret}" 0\n'.encode().ljust(60, b"\n")[:60]
    yield "foreign extent", "vmdk", bytes(content), "not safe|cannot be read"
    qemu_img("create", "-f", "qcow2", made, "1M")
    qcow2 = made.read_bytes()
    yield "a qcow2 that says it is raw", "raw", qcow2, "content is qcow2"
    yield "a raw that says it is qcow2", "qcow2", bytes(1 << 20), "content is raw"
    yield "a qcow2 that says it is vmdk", "vmdk", qcow2, "content is qcow2"
    yield "a cut header", "qcow2", qcow2[:40], "content is|cannot be read|not safe"
    yield "nothing", "qcow2", b"", "content is|cannot be read"
    yield "an unknown format", "docker", b"x", "cannot be used"
    yield "an enormous disk", "qcow2", changed(qcow2, (24, 8, 1 << 60)), "too large"
    qemu_img("create", "-f", "qed", made, "1M")
    yield "qed", "qed", made.read_bytes(), "not safe"
    yield "luks", "raw", b"LUKS\xba\xbe\x00\x01".ljust(1 << 20, b"\0"), "content is luks"
    yield from _both(qcow2)
    yield from _broken(qcow2, made)


def _both(qcow2: bytes) -> Iterator[tuple[str, str, bytes, str]]:
    """Two formats at once."""
    iso = bytearray(changed(qcow2.ljust(64 << 10, b"\0")))
    iso[0x8000:0x8007] = b"\x01CD001\x01"
    for declared in ("qcow2", "iso", "raw"):
        yield f"a qcow2 that is an iso too, said to be {declared}", declared, bytes(iso), ANY
    mbr = bytearray(1 << 20)
    mbr[510:512] = b"\x55\xaa"
    mbr[446:462] = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0xEE, b"\xff\xff\xff", 77, 0)
    yield "a partition table that is none", "raw", bytes(mbr), "not safe"


def _broken(qcow2: bytes, made: Path) -> Iterator[tuple[str, str, bytes, str]]:
    """Sizes and places in headers that are beyond all bounds."""
    yield "a header of 4 GiB", "qcow2", changed(qcow2, (100, 4, 0xFFFFFFF0)), ANY
    yield "an unknown feature", "qcow2", changed(qcow2, (72, 8, 1 << 40)), "not safe"
    yield "a first table of 16 GiB", "qcow2", changed(qcow2, (36, 4, 0x7FFFFFFF)), ANY
    yield "a refcount table of 256 TiB", "qcow2", changed(qcow2, (56, 4, 0xFFFFFFFF)), ANY
    yield "clusters of 2 EiB", "qcow2", changed(qcow2, (20, 4, 61)), ANY
    yield "two billion snapshots", "qcow2", changed(qcow2, (60, 4, 0x7FFFFFFF), (64, 8, 1 << 16)), ANY
    yield "a backing file's name of 4 GiB", "qcow2", changed(qcow2, (8, 8, 1 << 40), (16, 4, 0xFFFFFFFF)), "backing"
    yield "the first version", "qcow2", changed(qcow2, (4, 4, 1)), ANY
    qemu_img("create", "-f", "vdi", made, "1M")
    yield "vdi: four billion blocks", "vdi", changed(made.read_bytes(), (384, 4, 0xFFFFFFFF), order="little"), ANY
    yield "vdi: an enormous disk", "vdi", changed(made.read_bytes(), (368, 8, 1 << 62), order="little"), "too large"
    qemu_img("create", "-f", "vpc", made, "1M")
    yield "vhd: a header beyond the end", "vhd", changed(made.read_bytes(), (16, 8, 1 << 62)), ANY
    yield "vhd: an enormous disk", "vhd", changed(made.read_bytes(), (40, 8, 1 << 62), (48, 8, 1 << 62)), ANY
    qemu_img("create", "-f", "vhdx", made, "1M")
    yield "vhdx: four billion regions", "vhdx", changed(made.read_bytes(), (0x30008, 4, 0xFFFFFFFF), order="little"), ANY
    yield "vhdx: regions beyond the end", "vhdx", changed(made.read_bytes(), (0x30020, 8, 1 << 62), (0x30040, 8, 1 << 62), order="little"), ANY
    qemu_img("create", "-f", "vmdk", "-o", "subformat=monolithicSparse", made, "1M")
    yield "vmdk: a descriptor of 8 EiB", "vmdk", changed(made.read_bytes(), (36, 8, 1 << 54), order="little"), ANY
    yield "vmdk: a descriptor beyond the end", "vmdk", changed(made.read_bytes(), (28, 8, 1 << 50), order="little"), ANY
    yield "vmdk: grains of 8 EiB", "vmdk", changed(made.read_bytes(), (20, 8, 1 << 54), order="little"), ANY
