"""Commands that read what users sent: as user nobody, with limits on time, memory and what they write.

Files and folders are handed over as open descriptors and named by `/proc/self/fd/N`, so nobody needs no way to where they lie, only the
right to the file itself (`readable`, `writable`). The command ends with us. When we are not root ourselves it runs as we are.
"""

import os
import pwd
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol, Self

from nacre.node.commands import CommandFailed
from nacre.node.deadline import Deadline
from nacre.node.trace import noted

NOBODY = 65534
_MEMORY = 2 << 30
_CPU_SECONDS = 900


class Handed(Protocol):
    def fileno(self) -> int: ...


class Folder:
    """An open folder; what is below it needs rights of its own."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def fileno(self) -> int:
        return self._descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def readable(file: IO[bytes]) -> None:
    """Nobody may read `file` and not change it."""
    os.fchmod(file.fileno(), 0o640)
    if os.geteuid() == 0:
        os.fchown(file.fileno(), 0, NOBODY)


def writable(file: IO[bytes]) -> None:
    """Nobody may read and change `file`."""
    os.fchmod(file.fileno(), 0o600)
    if os.geteuid() == 0:
        os.fchown(file.fileno(), NOBODY, NOBODY)


def path_of(file: Handed) -> str:
    """How the command calls `file`."""
    return f"/proc/self/fd/{file.fileno()}"


def run(argv: Sequence[str], files: Sequence[Handed], deadline: Deadline, *, largest_file: int = 0, user: str = "nobody") -> str:
    """Standard output of `argv`, run as `user` with no group but his own. Raises CommandFailed; NodeError when the deadline is over or
    nobody wants it any more."""
    limits = [f"--as={_MEMORY}", f"--cpu={_CPU_SECONDS}", f"--fsize={largest_file}", "--core=0", "--nofile=64"]
    who = pwd.getpwnam(user)
    drop = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
            "--pdeathsig=KILL"]  # fmt: skip
    confined = ["prlimit", *limits, "--", *([*drop, "--no-new-privs", "--"] if os.geteuid() == 0 else []), *argv]
    with noted(shlex.join(argv)):
        output, errors, status = _await(confined, files, deadline)
        if status:
            raise CommandFailed(argv, status, errors or output)
    return output


def _await(argv: Sequence[str], files: Sequence[Handed], deadline: Deadline) -> tuple[str, str, int]:
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        pass_fds=[file.fileno() for file in files],
    ) as process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    deadline.check()
        except BaseException:
            process.kill()
            raise
    return output, errors, process.returncode
