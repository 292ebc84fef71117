"""A process that serves a room and lives longer than the agent: its folder, and finding it again.

An agent that starts again finds it by the pid file, and takes the pid for true only if that process's arguments name our folder.
"""

import os
import signal
import time
from pathlib import Path


class Daemon:
    """`folder` holds its files and its `pid`; every user must be able to walk to it. `mark` is the argument that names the pid file."""

    def __init__(self, folder: Path, namespace: str, mark: str) -> None:
        self.folder, self.namespace, self._mark = folder, namespace, mark.encode()

    def pid(self) -> int | None:
        try:
            pid = int((self.folder / "pid").read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if self._mark in arguments else None

    def stop(self) -> None:
        """End it and wait until it is gone. Raises OSError when it cannot be ended."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            if self.pid() != pid:
                return
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)

    def open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)

    def read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return ""

    def write(self, name: str, text: str) -> bool:
        """Replace a file whole; False when it is so already."""
        if (self.folder / name).exists() and self.read(name) == text:
            return False
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.chmod(0o644)
        new.replace(self.folder / name)
        return True
