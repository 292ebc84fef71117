"""Who runs: every process of a cloud holds a record lock on `<home>/run/<role>.lock` as long as it lives.

The kernel gives the lock back at any kind of death and tells who holds it, so no pid file can be stale and no other process be taken
for ours. Record locks are not inherited by children; they are lost when the process closes any descriptor of the file, so a lock file
is opened once and never closed. A pid is only ever signalled through a pidfd that was opened while its lock was seen to be held.
"""

import fcntl
import os
import select
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path

_FLOCK = "@hhqqi4x"
_held: dict[Path, int] = {}


def lock_file(run: Path, role: str) -> Path:
    return run / f"{role}.lock"


def hold(run: Path, role: str) -> bool:
    """Become the process of `role` for the rest of this process's life; False if another one is."""
    path = lock_file(run, role)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return False
    _held[path] = descriptor
    return True


def holder(run: Path, role: str) -> int | None:
    """The pid of the running process of `role`, None if there is none. Not for the role that the caller itself holds."""
    try:
        descriptor = os.open(lock_file(run, role), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK or pid <= 0 else pid
    finally:
        os.close(descriptor)


def watch(run: Path, role: str) -> tuple[int, int] | None:
    """Pid and pidfd of the running process of `role`; the caller closes the descriptor."""
    while (pid := holder(run, role)) is not None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if holder(run, role) == pid:
            return pid, descriptor
        os.close(descriptor)
    return None


def ended(descriptor: int, timeout: float) -> bool:
    """Whether the process of a pidfd ends within `timeout` seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0, timeout) * 1000))


def stop(descriptors: list[int], patience: float = 10.0) -> None:
    """End these processes: asked first, killed after `patience` seconds."""
    for descriptor in descriptors:
        _signal(descriptor, signal.SIGTERM)
    deadline = time.monotonic() + patience
    for descriptor in descriptors:
        if not ended(descriptor, deadline - time.monotonic()):
            _signal(descriptor, signal.SIGKILL)
            ended(descriptor, 10)


def _signal(descriptor: int, number: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def pss_mb(pid: int) -> float | None:
    """Memory of a process, shared pages divided among their users, in MB; None when it is gone or not ours to see."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return None


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; with the pid it names one process of this boot."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
