"""Host commands: a list of arguments with a time limit, never a shell string; a failure keeps what the command said."""

import shlex
import subprocess
from collections.abc import Sequence

from nacre.node.trace import noted


class CommandFailed(Exception):
    """A host command ended badly or took too long. `argv`, `status` (None: timed out) and `stderr` say how."""

    def __init__(self, argv: Sequence[str], status: int | None, stderr: str) -> None:
        self.argv, self.status, self.stderr = tuple(argv), status, stderr.strip()
        how = "timed out" if status is None else f"exit status {status}"
        super().__init__(f"{' '.join(argv)}: {how}: {self.stderr}"[:2000])


def run(argv: Sequence[str], *, timeout: float = 30, stdin: str | None = None) -> str:
    """Standard output of `argv`. Raises CommandFailed."""
    with noted(shlex.join(argv)):
        return _run(argv, timeout, stdin)


def _run(argv: Sequence[str], timeout: float, stdin: str | None) -> str:
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(argv, None, f"no end after {timeout} s") from error
    except OSError as error:
        raise CommandFailed(argv, None, str(error)) from error
    if done.returncode:
        raise CommandFailed(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout
