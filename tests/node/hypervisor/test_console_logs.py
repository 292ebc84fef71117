"""A process that writes as QEMU does, and the reader of its pipe killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nacre.node.hypervisor import console_logs
from nacre.node.hypervisor.console_logs import ConsoleLogs

ID = "6c1f1b4e-0000-4000-8000-000000000001"
# says each line of its input into the pipe, whether or not somebody reads it
GUEST = """
import os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
for line in sys.stdin:
    try:
        os.write(int(sys.argv[1]), line.encode())
    except BrokenPipeError:
        pass
    print("said", flush=True)
"""


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Guest:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "instances" / ID / "console.log"
        self.log.parent.mkdir(parents=True)
        (folder / "running").mkdir()
        reading, writing = os.pipe()
        with self.log.open("ab") as log:
            self.virtlogd = subprocess.Popen(["cat"], stdin=reading, stdout=log)
        self.process = subprocess.Popen([sys.executable, "-c", GUEST, str(writing)], pass_fds=[writing], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)  # fmt: skip
        os.close(reading)
        os.close(writing)
        (folder / "running/instance-00000001.pid").write_text(f"{self.process.pid}\n")
        (folder / "running/instance-00000001.xml").write_text(f"<domstatus><domain type='qemu'><uuid>{ID}</uuid></domain></domstatus>\n")

    def say(self, text: str) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "said\n"

    def kill_virtlogd(self) -> None:
        os.kill(self.virtlogd.pid, signal.SIGKILL)
        self.virtlogd.wait(10)

    def end(self) -> None:
        for process in (self.process, self.virtlogd):
            process.kill()
            process.wait(10)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path)
    yield made
    made.end()


@pytest.fixture
def logs(tmp_path: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsoleLogs]:
    monkeypatch.setattr(console_logs, "_EVERY", 0.1)
    made = ConsoleLogs(tmp_path / "instances", tmp_path / "running")
    made.start()
    yield made
    made.stop()


def test_a_log_that_somebody_writes_is_left_alone(guest: Guest, logs: ConsoleLogs, caplog: pytest.LogCaptureFixture) -> None:
    guest.say("one")
    time.sleep(0.5)
    guest.say("two")
    until(lambda: guest.log.read_text() == "one\ntwo\n")
    assert not caplog.text


def test_a_log_goes_on_when_its_writer_is_killed(guest: Guest, logs: ConsoleLogs, caplog: pytest.LogCaptureFixture) -> None:
    guest.say("one")
    until(lambda: guest.log.read_text() == "one\n")
    guest.kill_virtlogd()
    guest.say("lost")
    until(lambda: "it goes on here" in caplog.text)
    guest.say("two")
    until(lambda: guest.log.read_text() == "one\ntwo\n")
    assert caplog.text.count("it goes on here") == 1 and ID in caplog.text


def test_the_next_agent_takes_it_over_and_a_guest_that_ends_is_let_go(guest: Guest, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest.kill_virtlogd()
    first = ConsoleLogs(tmp_path / "instances", tmp_path / "running")
    first.start()
    until(lambda: "it goes on here" in caplog.text)
    first.stop()
    guest.say("nobody hears this, and the guest does not wait")
    following = ConsoleLogs(tmp_path / "instances", tmp_path / "running")
    before = len(os.listdir("/proc/self/fd"))
    following.start()
    until(lambda: len(os.listdir("/proc/self/fd")) > before)
    guest.say("three")
    until(lambda: guest.log.read_text() == "three\n")
    guest.end()
    until(lambda: len(os.listdir("/proc/self/fd")) == before)
    following.stop()


def test_a_large_log_is_turned(guest: Guest, logs: ConsoleLogs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(console_logs, "_LARGE", 1000)
    guest.kill_virtlogd()
    until(lambda: "it goes on here" in caplog.text)
    for number in range(5):
        guest.say(str(number) * 1200)
        until(lambda number=number: guest.log.with_name("console.log.0").read_text()[:1] == str(number) if number else True)
        time.sleep(0.05)
    kept = sorted(path.name for path in guest.log.parent.iterdir())
    assert kept == ["console.log.0", "console.log.1", "console.log.2"]
    assert guest.log.with_name("console.log.2").read_text() == "2" * 1200 + "\n"
