"""A cloud started as a newcomer would, and the course's commands typed at it: the repo's `./nacre`, the clients that `up` installed, and the
files it wrote to source. Clone and home lie below a folder that only root can enter."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SSH = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5", "BatchMode=yes")
GUEST_SSH = tuple(word for option in _SSH for word in ("-o", option))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Course:
    """`clone` and `home` of one cloud; `work` is the student's folder."""

    clone: Path
    home: Path
    work: Path
    port: int

    def nacre(self, *words: str, timeout: float = 300, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`./nacre VERB --home HOME ...`"""
        verb, *rest = words
        return self._run([str(self.clone / "nacre"), verb, "--home", str(self.home), *rest], timeout, check)

    def exec(self, *words: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`nacre exec -- ...`: a command on the host."""
        return self.nacre("exec", "--", *words, timeout=timeout, check=check)

    def typed(self, who: str, *words: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command after `. keystonerc_WHO`."""
        script = f'. "{self.home}/keystonerc_{who}" && exec "$@"'
        return self._run(["bash", "-c", script, "bash", *words], timeout, check)

    def openstack(self, who: str, *words: str, check: bool = True) -> str:
        """Output of an `openstack` command as admin or demo."""
        return self.typed(who, "openstack", *words, check=check).stdout.strip()

    def value(self, who: str, column: str, *words: str) -> str:
        return self.openstack(who, *words, "-f", "value", "-c", column)

    def ssh(self, address: str, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """ssh into a guest from the host, by key; status 124 when it takes longer than `timeout`."""
        words = ("ssh", "-i", str(self.work / "id_rsa"), *GUEST_SSH, f"cirros@{address}", *command)
        return self.exec("timeout", str(timeout), *words, timeout=timeout + 30, check=False)

    def _run(self, words: list[str], timeout: float, check: bool) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON", "VIRTUAL_ENV", "NACRE"))}
        done = subprocess.run(words, cwd=self.work, env=env, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done


def until(what: Callable[[], object], seconds: float, every: float = 0.3) -> object:
    """What `what()` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(every)


@contextmanager
def fresh(*options: str) -> Iterator[Course]:
    """A new cloud in a folder of its own, wiped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="nacre-course-"))
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.copytree(ROOT, folder / "clone", ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache"), symlinks=True)
    (folder / "student").mkdir()
    course = Course(folder / "clone", folder / "home", folder / "student", free_port())
    try:
        course.nacre("up", "--port", str(course.port), *options, timeout=900)
        yield course
    finally:
        course.nacre("down", "--wipe", timeout=120)
        assert not course.home.exists()
        shutil.rmtree(folder)
