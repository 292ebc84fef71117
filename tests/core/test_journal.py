"""Readers of the journal: in order, each line once, whatever is being written meanwhile."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import postgres
from nacre import program
from nacre.core import journal, schema
from nacre.core.caller import System
from nacre.core.db import Database, Tx

WHO = System("req-journal")
assert program.SERVICES  # declares every table


def opened(url: str) -> Database:
    database = Database(url)
    schema.upgrade(database)
    return database


def note(tx: Tx, thing: str) -> None:
    journal.changed(tx, "thing", thing, "create", ["name"])


class Reader:
    """Takes some lines at a time and remembers where it was."""

    def __init__(self, database: Database, some: int = 2) -> None:
        self.database, self.some, self.seen = database, some, list[str]()

    def read(self) -> list[str]:
        """What is new."""
        before = len(self.seen)
        while True:
            with self.database.write(WHO) as tx:
                found = journal.after(tx, journal.cursor_of(tx, "test"), self.some)
                if not found:
                    return self.seen[before:]
                journal.advance(tx, "test", found[-1])
            self.seen += [line.resource_id for line in found]


@pytest.fixture
def database(tmp_path: Path, fresh_database: Callable[[], str]) -> Iterator[Database]:
    made = opened(fresh_database() or f"sqlite:///{tmp_path}/journal.db")
    yield made
    made.close()


@pytest.fixture(scope="module")
def started() -> Iterator[postgres.Postgres]:
    with postgres.cluster() as cluster:
        yield cluster


def test_a_reader_goes_on_where_it_was(database: Database) -> None:
    reader = Reader(database)
    assert reader.read() == []
    with database.write(WHO) as tx:
        for number in range(5):
            note(tx, f"first-{number}")
    assert reader.read() == [f"first-{number}" for number in range(5)]
    with database.write(WHO) as tx:
        note(tx, "second")
    assert reader.read() == ["second"] and reader.read() == []
    assert Reader(database).read() == [], "the cursor is in the database"


@pytest.mark.services
def test_a_line_that_commits_late_is_not_missed(started: postgres.Postgres) -> None:
    database = opened(started.fresh())
    reader = Reader(database)
    with database.write(WHO) as slow:
        note(slow, "slow")
        with database.write(WHO) as quick:
            note(quick, "quick")
        assert reader.read() == [], "its order is not known while an older transaction is open"
    assert reader.read() == ["slow", "quick"]
    database.close()


@pytest.mark.services
def test_many_writers_and_every_line_once(started: postgres.Postgres) -> None:
    database = opened(started.fresh())
    chance = random.Random(7)
    pauses = [[chance.random() / 50 for _ in range(25)] for _ in range(6)]

    def write(writer: int) -> None:
        for number, pause in enumerate(pauses[writer]):
            with database.write(WHO) as tx:
                note(tx, f"{writer}-{number}")
                time.sleep(pause)  # the order of commits is not that of ids

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
    reader = Reader(database, some=1000)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reader.read()
    reader.read()
    assert sorted(reader.seen) == sorted(f"{writer}-{number}" for writer in range(6) for number in range(25))
    for writer in range(6):
        own = [int(thing.partition("-")[2]) for thing in reader.seen if thing.startswith(f"{writer}-")]
        assert own == sorted(own), "one writer's lines stay in order"
    database.close()
