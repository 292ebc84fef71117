"""Makes Debian's kernel start in 64 MiB.

A bzImage is a small loader around a compressed ELF file. The loader unpacks the whole file at 16 MiB, and Debian's holds 50 MiB, a
third of it zeros and gaps that the running kernel does not need: more than a 64 MiB machine has. So the file is written anew without
section headers, gaps, relocations, and everything from `.bss` on, which the kernel clears itself; it is compressed in the same format
and put back, with the three lengths the loader goes by: input, output (both in its data, found by their old values) and `init_size`
(in its header), the room it takes. Without relocations the kernel must be started with `nokaslr`.
"""

import struct
from pathlib import Path

import msgspec

from nacre.node.commands import run

LOAD_ADDRESS = 0x1000000
PAGE = 4096
SETUP_SECTORS, PAYLOAD, INIT_SIZE = 0x1F1, 0x248, 0x260
PT_LOAD = 1
# First bytes → how to unpack, how to pack, what names the output. Debian 12 has LZ4, Debian 13 Zstandard; the plain length follows the stream.
COMPRESSIONS = {
    b"\x02\x21\x4c\x18": (["lz4", "-q", "-d", "-f"], ["lz4", "-q", "-l", "-9", "-f"], []),
    b"\x28\xb5\x2f\xfd": (["zstd", "-q", "-d", "-f"], ["zstd", "-q", "-18", "-f"], ["-o"]),
}


class UnknownKernel(Exception):
    """The kernel image is not built as expected; the message says in what."""


class Segment(msgspec.Struct, frozen=True):
    """A loadable part: `flags` and addresses as in the ELF file, `data` without the part the kernel clears."""

    flags: int
    virtual: int
    physical: int
    alignment: int
    data: bytes


def _sections(elf: bytes) -> dict[str, tuple[int, int]]:
    """Name → virtual address and size."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names_index = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + size * index) for index in range(count)]
    names = headers[names_index][4]
    return {elf[names + head[0] : elf.index(b"\0", names + head[0])].decode(): (head[3], head[5]) for head in headers}


def _segments(elf: bytes, clear_from: int) -> list[Segment]:
    (table,) = struct.unpack_from("<Q", elf, 32)
    (count,) = struct.unpack_from("<H", elf, 56)
    found = []
    for index in range(count):
        kind, flags, offset, virtual, physical, size, _, alignment = struct.unpack_from("<IIQQQQQQ", elf, table + 56 * index)
        if kind == PT_LOAD:
            if virtual <= clear_from < virtual + size:
                size = clear_from - virtual
            found.append(Segment(flags, virtual, physical, alignment, elf[offset : offset + size]))
    return found


def compact(elf: bytes) -> tuple[bytes, int]:
    """The same kernel laid out in the file as in memory, and the bytes it takes in memory from its first. Raises UnknownKernel."""
    sections = _sections(elf)
    if ".bss" not in sections or ".brk" not in sections:
        raise UnknownKernel("no .bss or .brk section")
    segments = _segments(elf, sections[".bss"][0])
    if not segments or segments[0].physical != LOAD_ADDRESS:
        raise UnknownKernel(f"does not load at {LOAD_ADDRESS:#x}")
    head = bytearray(elf[:64])
    struct.pack_into("<QQ", head, 32, 64, 0)
    struct.pack_into("<HHHH", head, 56, len(segments), 0, 0, 0)
    body = bytearray()
    for part in segments:
        start = part.physical - LOAD_ADDRESS
        if start < len(body):
            raise UnknownKernel("segments overlap")
        body += bytes(start - len(body)) + part.data
        size = len(part.data)
        place = (PAGE + start, part.virtual, part.physical)
        head += struct.pack("<IIQQQQQQ", PT_LOAD, part.flags, *place, size, size, part.alignment)
    end = sections[".brk"][0] + sections[".brk"][1]
    return bytes(head.ljust(PAGE, b"\0") + body), end - segments[0].virtual


def _only_place(loader: bytes, number: int) -> int:
    word = struct.pack("<I", number)
    at = loader.find(word)
    if at < 0 or loader.find(word, at + 1) >= 0:
        raise UnknownKernel(f"the length {number} is not in the loader exactly once")
    return at


def slim(image: bytes, work: Path) -> bytes:
    """A bzImage that starts in 64 MiB, made from Debian's. `work` is a scratch folder. Raises UnknownKernel, CommandFailed."""
    start = (image[SETUP_SECTORS] + 1) * 512 + struct.unpack_from("<I", image, PAYLOAD)[0]
    (length,) = struct.unpack_from("<I", image, PAYLOAD + 4)
    payload = image[start : start + length]
    if payload[:4] not in COMPRESSIONS:
        raise UnknownKernel("compressed neither with LZ4 nor with Zstandard")
    unpack, pack, into = COMPRESSIONS[payload[:4]]
    packed, plain = work / "kernel.packed", work / "kernel.elf"
    packed.write_bytes(payload[:-4])
    run([*unpack, str(packed), *into, str(plain)], timeout=60)
    elf = plain.read_bytes()
    small, in_memory = compact(elf)
    plain.write_bytes(small)
    run([*pack, str(plain), *into, str(packed)], timeout=300)
    new = packed.read_bytes() + struct.pack("<I", len(small))
    if len(new) > length:
        raise UnknownKernel("the compacted kernel is larger than the original")
    result = bytearray(image)
    result[start : start + length] = new.ljust(length, b"\0")
    loader = bytes(result[start + length :])
    struct.pack_into("<I", result, start + length + _only_place(loader, length), len(new))
    struct.pack_into("<I", result, start + length + _only_place(loader, len(elf)), len(small))
    (room,) = struct.unpack_from("<I", image, INIT_SIZE)
    loader_room = room - len(elf)
    struct.pack_into("<I", result, INIT_SIZE, max(len(small) + loader_room, in_memory))
    return bytes(result)
