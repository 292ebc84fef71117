"""What a call tells of itself: the commands it ran, how long they took, and no more than fits."""

import threading

import pytest

from nacre.node.commands import CommandFailed, run
from nacre.node.trace import noted, recording


def test_commands_are_noted_with_their_time() -> None:
    with recording(0.5) as trace:
        run(["sleep", "0.1"])
        with pytest.raises(CommandFailed):
            run(["ls", "/no such folder"])
    told = trace.told()
    assert told["waited_ms"] == 500 and told["ms"] >= 100
    (at, took, text, ok), (later, _, other, bad) = told["commands"]
    assert text == "sleep 0.1" and ok and 100 <= took < 2000 and later >= at + took - 1
    assert other == "ls '/no such folder'" and not bad


def test_it_is_bounded_and_of_its_own_thread() -> None:
    with recording(0) as trace:
        for number in range(50):
            with noted(f"{number} " + "x" * 1000):
                pass
        other = threading.Thread(target=lambda: run(["true"]))
        other.start()
        other.join()
    told = trace.told()
    assert len(told["commands"]) == 40 and told["more"] == 10 and all(len(row[2]) == 300 for row in told["commands"])
    run(["true"])
    assert trace.told()["more"] == 10
