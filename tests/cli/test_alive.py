"""Locks tell who runs; the processes here are real."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre.cli import alive, down, supervisor
from nacre.core.config import Home

HOLD = """
import sys, time
from pathlib import Path
from nacre.cli import alive
print(alive.hold(Path(sys.argv[1]), "api"), flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    started = []

    def one() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                                   env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
        started.append(process)
        assert process.stdout
        return process, process.stdout.readline().strip()

    yield one
    for process in started:
        process.kill()
        process.communicate()


def test_one_holds_the_others_see_it(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    assert alive.holder(tmp_path, "api") is None
    first, got = start()
    assert got == "True" and alive.holder(tmp_path, "api") == first.pid
    second, refused = start()
    assert refused == "False" and alive.holder(tmp_path, "api") == first.pid
    found = alive.watch(tmp_path, "api")
    assert found and found[0] == first.pid
    first.kill()
    assert alive.ended(found[1], 5)
    first.wait()
    os.close(found[1])
    assert alive.holder(tmp_path, "api") is None and second.poll() is None


def test_stop_asks_then_kills(tmp_path: Path, start) -> None:  # type: ignore[no-untyped-def]
    process, _ = start()
    found = alive.watch(tmp_path, "api")
    assert found
    alive.stop([found[1]])
    assert process.wait(5) == -15
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout and deaf.stdout.readline()
        begun = time.monotonic()
        alive.stop([os.pidfd_open(deaf.pid)], patience=0.3)
        assert deaf.wait(5) == -9 and time.monotonic() - begun < 3


def test_memory_and_start_of_this_process() -> None:
    assert 5 < (alive.pss_mb(os.getpid()) or 0) < 2000
    assert alive.start_ticks(os.getpid()) and alive.start_ticks(2**22 + 1) is None and alive.pss_mb(2**22 + 1) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["api"], True),
        (["job", "prepare"], True),
        (["up", "--supervise"], True),
        (["up"], False),
        (["logs", "-f"], False),
    ],
)
def test_which_processes_are_of_a_home(tmp_path: Path, words: list[str], expected: bool) -> None:
    home, other = Home(tmp_path / "a"), Home(tmp_path / "ab")
    arguments = [word.encode() for word in supervisor.command(home, *words)] + [b""]
    assert down.ours(arguments, home) is expected
    assert not down.ours(arguments, other)
    assert not down.ours([b"vim", *arguments[1:]][:3], home)
