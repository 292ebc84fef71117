"""Reads do not stand behind changes."""

import threading
import time

from conftest import Running
from fake_node import until
from nacre.core.caller import System


def test_a_read_is_answered_while_more_changes_wait_than_there_are_threads(running: Running) -> None:
    client, answers = running.http(), list[int]()

    def change(number: int) -> None:
        answers.append(client.post("/identity/v3/projects", json={"project": {"name": f"waits-{number}"}}).status_code)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(24)]
    with running.cloud.db.write(System("req-holds")):
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        assert client.get("/identity/v3/projects?name=admin").json()["projects"]
        assert time.monotonic() - began < 5 and not answers, "the changes wait, the read did not"
    until(lambda: len(answers) == 24)
    assert set(answers) == {201}
