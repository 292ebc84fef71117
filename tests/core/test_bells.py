"""Bells between processes: datagrams beside SQLite, LISTEN/NOTIFY on PostgreSQL, and what becomes of them when the server goes away."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import postgres
from fake_node import until
from nacre.core.bells import Bells, ListenNotify
from nacre.core.db import Database


class Ear:
    """Counts how often it was woken."""

    def __init__(self, bells: Bells, topic: str) -> None:
        self.count = 0
        self.heard = threading.Event()
        bells.listen(topic, self)

    def __call__(self) -> None:
        self.count += 1
        self.heard.set()


def test_datagrams_reach_the_other_process_and_itself(tmp_path: Path) -> None:
    one, other = Bells(tmp_path, "one"), Bells(tmp_path, "other")
    ears = [Ear(one, "tasks"), Ear(other, "tasks")]
    deaf = Ear(other, "call:x")
    one.ring({"tasks", "call:y"})
    assert all(ear.heard.wait(2) for ear in ears) and not deaf.count
    one.close()
    other.close()
    assert not list(tmp_path.iterdir())


def test_processes_that_stand_still_silence_nobody_else(tmp_path: Path) -> None:
    """What they do not read counts against the socket that sent it."""
    one, other = Bells(tmp_path, "one"), Bells(tmp_path, "other")
    ear = Ear(other, "tasks")
    with ExitStack() as still:
        for number in range(30):
            still.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(str(tmp_path / f"still-{number}.sock"))
        for _ in range(30):
            ear.heard.clear()
            one.ring({"tasks"})
            assert ear.heard.wait(2)
    one.close()
    other.close()


@pytest.fixture(scope="module")
def started() -> Iterator[postgres.Postgres]:
    with postgres.cluster() as cluster:
        yield cluster


@pytest.fixture
def pair(started: postgres.Postgres) -> Iterator[tuple[ListenNotify, ListenNotify]]:
    database = Database(started.fresh())
    both = ListenNotify(database.dial), ListenNotify(database.dial)
    ears = [Ear(bells, "ready") for bells in both]
    for bells in both:  # each hears the other: both listen
        until(lambda bells=bells: (bells.ring({"ready"}), all(ear.count for ear in ears))[1], step=0.1)
    until(lambda: connections(database) == 2)
    yield both
    for bells in both:
        bells.close()
    assert connections(database) == 0
    database.close()


def connections(database: Database) -> int:
    probe = database.dial()
    try:
        return int(probe.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").fetchone()[0]) - 1
    finally:
        probe.close()


@pytest.mark.services
def test_notifications_reach_the_other_process_once(pair: tuple[ListenNotify, ListenNotify]) -> None:
    one, other = pair
    ears, deaf = [Ear(one, "tasks"), Ear(other, "tasks")], Ear(other, "call:x")
    one.ring({"tasks", "call:y"})
    assert all(ear.heard.wait(2) for ear in ears) and not deaf.count
    second = Ear(other, "end")
    one.ring({"end"})
    assert second.heard.wait(2)
    assert [ear.count for ear in ears] == [1, 1], "a process does not hear its own notification again"


@pytest.mark.services
def test_more_topics_than_a_notification_holds(pair: tuple[ListenNotify, ListenNotify]) -> None:
    one, other = pair
    topics = [f"call:{number:04d}-{'x' * 200}-é" for number in range(200)]
    ears = [Ear(other, topic) for topic in topics]
    one.ring(set(topics))
    assert all(ear.heard.wait(5) for ear in ears)


@pytest.mark.services
def test_a_lost_connection_wakes_everybody_once_and_bells_ring_again(pair: tuple[ListenNotify, ListenNotify], started: postgres.Postgres) -> None:
    one, other = pair
    ears = [Ear(bells, "whatever") for bells in pair]
    started.stop()
    one.ring({"rung:meanwhile"})
    meanwhile = Ear(other, "rung:meanwhile")
    started.start()
    assert all(ear.heard.wait(10) for ear in ears), "who waits looks at the database once more"
    assert meanwhile.heard.wait(10)
    again = Ear(other, "again")
    until(lambda: (one.ring({"again"}), again.heard.wait(0.2))[1])
