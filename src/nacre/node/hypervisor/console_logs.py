"""Guests' console logs after virtlogd was killed.

QEMU writes what a guest says into a pipe that virtlogd reads into `console.log`. A virtlogd that starts again knows nothing of the pipes
of the one before: nobody reads them, and what the guest says is lost until its next start. The pipe is still there, though, and gets
another reader by QEMU's own descriptor in /proc. A thread looks for guests whose pipe nobody reads and goes on with their logs, as
virtlogd would: appended, turned when they are large.

What may race: nobody takes such a pipe but us, and one agent serves a host at a time. A guest that ends closes its pipe. When this
process ends, the pipes are without a reader again, which holds no guest up, and the next one takes them.
"""

import contextlib
import logging
import os
import select
import stat
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

log = logging.getLogger(__name__)
_EVERY = 5.0
_CHUNK = 64 * 1024
_LARGE, _KEPT = 2 << 20, 3  # virtlogd's own


class ConsoleLogs:
    """`instances`: where guests' folders are; `running`: libvirt's pid and status files, two a guest."""

    def __init__(self, instances: Path, running: Path = Path("/run/libvirt/qemu")) -> None:
        self.instances, self.running = instances, running
        self._ended, self._end = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._ended, select.POLLIN)
        self._held: dict[int, Path] = {}
        self._thread = threading.Thread(target=self._keep, name="console-logs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.ident is None:
            return self._let_go()
        os.write(self._end, b"\0")
        self._thread.join(5)

    def _keep(self) -> None:
        due = 0.0
        while True:
            if time.monotonic() >= due:
                self._look()
                due = time.monotonic() + _EVERY
            for descriptor, _ in self._poll.poll(max(0.0, due - time.monotonic()) * 1000):
                if descriptor == self._ended:
                    return self._let_go()
                self._copy(descriptor)

    def _look(self) -> None:
        for file in self.running.glob("instance-*.pid"):
            with contextlib.suppress(OSError, ValueError, ET.ParseError):  # it ended, or is just starting
                process = Path("/proc") / str(int(file.read_text()))
                pipe = _unread(process)
                if pipe is not None:
                    self._take(pipe, self.instances / _server_id(file.with_suffix(".xml")) / "console.log")

    def _take(self, pipe: Path, written: Path) -> None:
        if not written.parent.is_dir():
            return
        descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._held[descriptor] = written
        self._poll.register(descriptor, select.POLLIN)
        log.warning("nobody wrote the console log of server %s any more (virtlogd was killed): it goes on here", written.parent.name)

    def _copy(self, descriptor: int) -> None:
        written = self._held[descriptor]
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._poll.unregister(descriptor)
            os.close(descriptor)
            del self._held[descriptor]
            return
        try:
            _append(written, chunk)
        except OSError as error:  # the guest must not wait for our disk
            log.warning("the console log of server %s has lost %d bytes: %s", written.parent.name, len(chunk), error)

    def _let_go(self) -> None:
        for descriptor in (*self._held, self._ended, self._end):
            os.close(descriptor)


def _unread(process: Path) -> Path | None:
    """The descriptor by which QEMU writes to a pipe that nobody reads, other than its own output. Raises OSError."""
    own = {os.stat(process / "fd" / number).st_ino for number in ("1", "2")}
    for path in (process / "fd").iterdir():
        seen = path.stat()
        if stat.S_ISFIFO(seen.st_mode) and seen.st_ino not in own and _writes(process, path.name) and _nobody_reads(path):
            return path
    return None


def _writes(process: Path, number: str) -> bool:
    flags = next(line for line in (process / "fdinfo" / number).read_text().splitlines() if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE == os.O_WRONLY


def _nobody_reads(pipe: Path) -> bool:
    descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = select.poll()
        seen.register(descriptor, 0)
        return any(events & select.POLLERR for _, events in seen.poll(0))
    finally:
        os.close(descriptor)


def _server_id(status: Path) -> str:
    """The guest's UUID, which is its server's id, in libvirt's words: QEMU's own arguments are what QEMU likes. Raises OSError, ValueError,
    ParseError."""
    return str(uuid.UUID(ET.parse(status).findtext("domain/uuid") or ""))


def _append(path: Path, chunk: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(chunk)
        large = os.fstat(descriptor).st_size >= _LARGE
    if large:
        names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(_KEPT))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.rename(older)
