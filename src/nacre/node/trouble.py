"""Whether a daemon that cannot be asked does its work: by the kernel's word."""

from pathlib import Path


def stopped(pid: int) -> bool:
    """Whether the process was stopped (SIGSTOP, a tracer) and goes on only when told to; False when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def pid_in(file: Path) -> int | None:
    """The pid that a pid file names."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
