"""Disk images made by hand: the smallest honest ones, and the ones that attack."""

import struct


def qcow2(virtual_size: int = 1 << 20, *, backing: str = "", incompatible: int = 0, length: int = 1 << 16) -> bytes:
    """A version 3 header in a file of `length` bytes; `backing` names a file to be read through it, `incompatible` sets feature bits
    (4: the guest's data are in another file)."""
    name = backing.encode()
    header = struct.pack(">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 104 if name else 0, len(name), 16, virtual_size, 0, 1, 1 << 16, 1 << 17, 1, 0, 0,
                         incompatible, 0, 0, 4, 104)  # fmt: skip
    return (header + name).ljust(length, b"\0")


def vmdk(extent: str) -> bytes:
    """A monolithic sparse VMDK whose descriptor names `extent`."""
    descriptor = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 20480 FLAT "{extent}" 0\n'
    header = struct.pack("<4sIIQQQQIQQQ", b"KDMV", 1, 3, 20480, 128, 1, 20, 512, 21, 26, 128)
    return header.ljust(512, b"\0") + descriptor.encode().ljust(20 * 512, b"\0") + bytes(1 << 16)


def qed() -> bytes:
    return b"QED\0".ljust(1 << 16, b"\0")
