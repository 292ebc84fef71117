"""Reads do not stand behind changes."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Running, started
from fake_node import until
from nacre.core.caller import System


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Running]:
    """On SQLite, where one change waits for the other."""
    with started(tmp_path / "cloud") as running:
        yield running


def test_a_read_is_answered_while_more_changes_wait_than_there_are_threads(alone: Running) -> None:
    client, answers = alone.http(), list[int]()

    def change(number: int) -> None:
        answers.append(client.post("/identity/v3/projects", json={"project": {"name": f"waits-{number}"}}).status_code)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(24)]
    with alone.cloud.db.write(System("req-holds")):
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        assert client.get("/identity/v3/projects?name=admin").json()["projects"]
        assert time.monotonic() - began < 5 and not answers, "the changes wait, the read did not"
    until(lambda: len(answers) == 24)
    assert set(answers) == {201}
