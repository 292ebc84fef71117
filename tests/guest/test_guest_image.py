import json
import struct

import pytest

from nacre.guest import build, kernel
from nacre.node.commands import run


def elf(segments: list[tuple[int, int, bytes]], sections: dict[str, tuple[int, int]]) -> bytes:
    """An ELF file with segments (virtual, physical, data) at 2 MiB offsets, sections by name, and a string table."""
    names = b"\0" + b"\0".join(name.encode() for name in [*sections, ".shstrtab"]) + b"\0"
    body = bytearray(64 + 56 * len(segments))
    for index, (virtual, physical, data) in enumerate(segments):
        body += bytes(-len(body) % 0x200000)
        struct.pack_into("<IIQQQQQQ", body, 64 + 56 * index, 1, 7, len(body), virtual, physical, len(data), len(data), 0x200000)
        body += data
    names_at = len(body)
    body += names
    table = len(body)
    rows = [*sections.items(), (".shstrtab", (0, len(names)))]
    for name, (address, size) in rows:
        at = names_at if name == ".shstrtab" else 0
        body += struct.pack("<IIQQQQIIQQ", names.index(b"\0" + name.encode() + b"\0") + 1, 1, 0, address, at, size, 0, 0, 0, 0)
    body[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<QQ", body, 32, 64, table)
    struct.pack_into("<HHHHHH", body, 52, 64, 56, len(segments), 64, len(rows), len(rows) - 1)
    return bytes(body)


VIRTUAL = 0xFFFFFFFF81000000


def test_compact_keeps_what_runs_and_drops_what_is_cleared() -> None:
    text, data = b"T" * 5000, b"D" * 3000 + bytes(9000)
    original = elf(
        [(VIRTUAL, 0x1000000, text), (VIRTUAL + 0x2000, 0x1002000, data)],
        {".bss": (VIRTUAL + 0x2000 + 3000, 4000), ".brk": (VIRTUAL + 0x4000, 0x1000)},
    )
    small, in_memory = kernel.compact(original)
    assert in_memory == 0x5000
    assert small[4096:9096] == text
    assert small[4096 + 0x2000 :] == b"D" * 3000
    offset, virtual, physical, size = struct.unpack_from("<QQQQ", small, 64 + 56 + 8)
    assert (offset, virtual, physical, size) == (4096 + 0x2000, VIRTUAL + 0x2000, 0x1002000, 3000)


@pytest.mark.parametrize("sections", [{}, {".bss": (VIRTUAL, 1)}])
def test_an_unexpected_kernel_is_refused(sections: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(kernel.UnknownKernel):
        kernel.compact(elf([(VIRTUAL, 0x1000000, b"T")], sections))


def test_partition_table() -> None:
    table = build.partition_table(114688)
    assert len(table) == 66
    assert struct.unpack_from("<II", table, 8) == (2048, 112640)
    assert table[0] == 0x80 and table[4] == 0x83 and table[-2:] == b"\x55\xaa"


def flattened(value: object, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in flattened(item, f"{path}/{key}".lstrip("/"))]
    if isinstance(value, list):
        return [line for index, item in enumerate(value) for line in flattened(item, f"{path}/{index}".lstrip("/"))]
    text = value if isinstance(value, str) else json.dumps(value)
    return [f"{path}={text}"]


@pytest.mark.parametrize(
    "document",
    [
        {"uuid": "u", "public_keys": {"mykey": "ssh-rsa AAA= me"}, "hostname": "web1", "launch_index": 0},
        {"keys": [{"name": "k", "data": "x"}, {"name": "l", "data": "y"}], "after": "z", "meta": {}, "empty": []},
        {"networks": [{"link": "l0", "routes": [{"gateway": "10.0.0.1"}, {"gateway": "10.0.0.2"}], "type": "ipv4"}, {"type": "ipv6"}]},
        {"random": [1, -2.5, True, None], "quote": 'a "b" {c} [d], e: f', "nested": {"deep": {"deeper": "v"}, "next": "w"}},
    ],
)
def test_the_guest_reads_json_as_python_does(document: object) -> None:
    program = build.FILES / "root/usr/lib/guest/flatten.awk"
    assert run(["busybox", "awk", "-f", str(program)], stdin=json.dumps(document, indent=1)).splitlines() == flattened(document)
