"""The kernel's calls for namespaces and mounts, which Python 3.11 lacks.

`setns` and `unshare` change the calling thread only (network, uts, ipc, and the pid namespace of the children to come); a thread of
a threaded process cannot change its mount namespace, so that is done in freshly forked processes alone.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread into the namespace(s) of an open namespace file or pidfd. Raises OSError."""
    _check(_libc.setns(descriptor, flags), "setns")


def mount(source: str, target: Path, kind: str | None = None, flags: int = 0) -> None:
    """Raises OSError naming the target."""
    _check(_libc.mount(source.encode(), os.fsencode(target), kind and kind.encode(), flags, None), f"mount on {target}")


def bind(source: Path, target: Path) -> None:
    """Show the folder or file `source` also at `target`, without what is mounted below it. Raises OSError."""
    mount(str(source), target, flags=MS_BIND)


def detach(target: Path) -> None:
    """Take away the uppermost mount at `target` and all below it. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


@contextmanager
def visiting(descriptor: int, kind: int, own: str) -> Iterator[None]:
    """The calling thread in another namespace of one kind (not mount) for a while; `own` is its name below /proc/thread-self/ns."""
    back = os.open(f"/proc/thread-self/ns/{own}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(descriptor, kind)
        try:
            yield
        finally:
            setns(back, kind)
    finally:
        os.close(back)
