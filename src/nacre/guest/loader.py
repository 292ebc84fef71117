"""Puts what starts the guest into its file system: `python -m nacre.guest.loader IMAGE BOOT POINT`, in a mount namespace of its own.

BOOT's files become /boot, and extlinux is installed there. extlinux only works on a mounted file system, and it cannot read the holes
that `mkfs -d` leaves for zeros. The mount ends with the process, whatever happens to it.
"""

import sys
from pathlib import Path

from nacre.node.commands import run


def main(image: str, boot: str, point: str) -> None:
    run(["mount", "-o", "loop", image, point])
    try:
        for file in Path(boot).iterdir():
            (Path(point) / "boot" / file.name).write_bytes(file.read_bytes())
        run(["extlinux", "--install", f"{point}/boot"])
    finally:
        run(["umount", point])


if __name__ == "__main__":
    main(*sys.argv[1:])
