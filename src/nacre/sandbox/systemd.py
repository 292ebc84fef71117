"""The machine's service manager, where it is systemd."""

from collections.abc import Iterable
from pathlib import Path

from nacre.node.commands import run

_LIMIT = 120.0


def booted() -> bool:
    """Whether systemd is this machine's process 1."""
    return Path("/run/systemd/system").is_dir()


def control(*words: str) -> str:
    """`systemctl WORDS`. Raises CommandFailed."""
    return run(["systemctl", "--no-ask-password", *words], timeout=_LIMIT)


def active(patterns: Iterable[str]) -> set[str]:
    """Names of the services and sockets that are active. Raises CommandFailed."""
    listed = control("list-units", "--plain", "--no-legend", "--full", "--state=active", "--type=service,socket", *patterns)
    return {line.split()[0] for line in listed.splitlines() if line.strip()}
