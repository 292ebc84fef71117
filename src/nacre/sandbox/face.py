"""What a host is to those who start, enter and end it: a sandbox (host.py) or the machine itself (machine.py)."""

import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from nacre.core.config import Home
from nacre.sandbox.processes import HostProcess


class HostError(Exception):
    """The host cannot be started, entered or stopped; the message says why."""


class Host(Protocol):
    """`folder` is its own below the home."""

    home: Home
    number: int
    name: str
    folder: Path

    def running(self) -> bool: ...

    def pid(self) -> int:
        """The process that keeps its daemons, as the machine sees it. Raises HostError when the host is not running."""

    def processes(self) -> list[HostProcess]:
        """Its daemons, `dnsmasq`s and `guest`s; empty when it is not running."""

    def guests(self) -> list[str]:
        """Names of the cloud's guests that are on. Raises HostError, CommandFailed."""

    def ensure(self, *, uplink: bool = False) -> None:
        """Start the host if it is not running, make what is missing, wait until its daemons answer; with `uplink` guests have a way out.
        Raises HostError."""

    def stop(self, *, wipe: bool = False) -> list[str]:
        """End the host with its guests and take its wires away, with `wipe` whatever of it is outside the home; harmless when it is not
        running. What is left there because others made it, in words. Raises HostError."""

    def command(self, argv: Sequence[str], *, cwd: str = "/") -> list[str]:
        """The arguments that run `argv` inside, for short commands. Raises HostError when the host is not running."""

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: int | None = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start `argv` inside as a child of the caller; its stdout and stderr go to `output`. Raises HostError, OSError."""

    def listen(self, address: str, port: int) -> socket.socket:
        """A TCP socket that listens inside the host, held by the caller. Raises HostError, OSError."""

    def enter(self) -> AbstractContextManager[int]:
        """A descriptor of a process inside, to be given to `namespaces.setns` with the kinds wanted. Raises HostError."""
