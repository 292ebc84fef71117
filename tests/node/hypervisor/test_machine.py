"""What a machine says of itself, in the words that operators know."""

import re
import shutil
import subprocess

import pytest

from nacre.node.hypervisor import machine


@pytest.mark.parametrize(("seconds", "words"), [
    (59, "0 min"), (600, "10 min"), (3600, " 1:00"), (45296, "12:34"), (86400, "1 day, 0 min"), (90061, "1 day,  1:01"),
    (2 * 86400 + 60, "2 days, 1 min")])  # fmt: skip
def test_how_long(seconds: int, words: str) -> None:
    assert machine.lasted(seconds) == words


@pytest.mark.skipif(shutil.which("uptime") is None, reason="procps is not installed")
def test_as_uptime_says_it() -> None:
    shape = re.compile(r" \d\d:\d\d:\d\d up (.*?),  \d+ users?,  load average: [\d.]+, [\d.]+, [\d.]+\n?")
    for _ in range(3):  # a minute may pass between the two
        theirs, ours = shape.fullmatch(subprocess.check_output(["uptime"], text=True)), shape.fullmatch(machine.uptime())
        assert theirs and ours
        if theirs[1] == ours[1]:
            return
    raise AssertionError((theirs, ours))
