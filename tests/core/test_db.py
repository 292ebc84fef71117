"""Transactions that lose a race are run again, at most five times; values that cannot be stored are the caller's error. Those that share one
are answered when it is committed, and each meets its own failure."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

import postgres
from nacre.core.caller import System
from nacre.core.db import Database, Tx, Unreachable, Who, again
from nacre.core.errors import BadRequest, Conflict

WHO = System("req-db")
things = sa.Table("things", sa.MetaData(), sa.Column("name", sa.String(8), primary_key=True), sa.Column("count", sa.Integer, nullable=False))


@pytest.fixture(scope="module")
def started() -> Iterator[postgres.Postgres]:
    with postgres.cluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield from made(f"sqlite:///{tmp_path}/things.db")
    else:
        yield from made(request.getfixturevalue("started").fresh())


class Counting(Database):
    transactions = 0

    def write(self, who: Who) -> AbstractContextManager[Tx]:
        self.transactions += 1
        return super().write(who)


def made(url: str) -> Iterator[Database]:
    database = Counting(url)
    things.create(database.engine)
    with database.write(WHO) as tx:
        tx.execute(things.insert(), [{"name": name, "count": 0} for name in "ab"])
    yield database
    database.close()


def test_what_always_loses_is_tried_five_times(database: Database) -> None:
    tried = []

    def lose() -> None:
        tried.append(1)
        with database.write(WHO) as tx:
            tx.insert(things, name="new", count=0)
            tx.insert(things, name="a", count=0)

    with pytest.raises(Conflict):
        again(lose)
    assert len(tried) == 5
    with database.read() as conn:
        assert set(conn.execute(sa.select(things.c.name)).scalars()) == {"a", "b"}, "nothing of it stays"


def test_two_that_block_each_other_both_succeed(database: Database) -> None:
    """Opposite orders deadlock where writers do not queue; one of them is run again."""
    both, tried = threading.Barrier(2, timeout=5), list[str]()

    def verb(order: str) -> None:
        tried.append(order)
        with database.write(WHO) as tx:
            for position, name in enumerate(order):
                tx.update(things, {"name": name}, count=things.c.count + 1)
                if not database.sqlite and position == 0 and len(tried) <= 2:
                    both.wait()

    threads = [threading.Thread(target=again, args=(lambda order=order: verb(order),)) for order in ("ab", "ba")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with database.read() as conn:
        assert list(conn.execute(sa.select(things.c.count).order_by(things.c.name)).scalars()) == [2, 2]
    assert len(tried) == 2 if database.sqlite else len(tried) >= 3  # who lost may come before the other once more, and lose again


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("value", [{"name": "with\0nul"}, {"name": "far too long a name"}, {"count": 2**40}], ids=lambda value: next(iter(value)))
@pytest.mark.services
def test_what_cannot_be_stored_is_a_bad_request(database: Database, value: dict[str, object]) -> None:
    with pytest.raises(BadRequest), database.write(WHO) as tx:
        tx.insert(things, **{"name": "x", "count": 0, **value})


def test_after_an_error_the_next_transaction_is_a_whole_one(database: Database) -> None:
    """Whatever a block ends with, what it changed is gone, and what comes after it sees and changes what is there."""
    for trouble in (KeyError("ours"), GeneratorExit(), None):
        with pytest.raises((KeyError, GeneratorExit, sa.exc.IntegrityError)), database.write(WHO) as tx:
            tx.update(things, {"name": "a"}, count=7)
            with tx.nested():
                tx.update(things, {"name": "b"}, count=7)
                if trouble is not None:
                    raise trouble
                tx.insert(things, name="a", count=0)
        with database.read() as conn, database.read() as other:
            assert set(conn.execute(sa.select(things.c.count)).scalars()) == set(other.execute(sa.select(things.c.count)).scalars()) == {0}
            conn.execute(things.update().values(count=9))
        with database.write(WHO) as tx:
            assert tx.update(things, {"name": "a", "count": 0}, count=0) == 1, "what a reader changed is gone"


def test_a_reader_keeps_its_snapshot_while_others_write(tmp_path: Path) -> None:
    for database in made(f"sqlite:///{tmp_path}/things.db"):
        with database.read() as conn:
            before = conn.execute(sa.select(things.c.count).where(things.c.name == "a")).scalar()
            with database.write(WHO) as tx:
                tx.update(things, {"name": "a"}, count=5)
            with database.read() as later:
                assert later.execute(sa.select(things.c.count).where(things.c.name == "a")).scalar() == 5
            assert conn.execute(sa.select(things.c.count).where(things.c.name == "a")).scalar() == before == 0


Part = Callable[[Tx], None]


def inserting(name: str) -> Part:
    return lambda tx: tx.insert(things, name=name, count=0)


def behind_one(database: Database, parts: list[Part]) -> tuple[list[Future[None]], int]:
    """What became of parts that waited together while another one was written, and how many transactions all that took."""
    assert isinstance(database, Counting)
    before, begun, goes_on = database.transactions, threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        begun.set()
        goes_on.wait(10)

    with ThreadPoolExecutor(len(parts) + 1) as pool:
        first = pool.submit(database.write_shared, WHO, slow)
        assert begun.wait(10)
        others = [pool.submit(database.write_shared, WHO, part) for part in parts]
        time.sleep(0.3)
        goes_on.set()
        first.result()
    return others, database.transactions - before


def names(database: Database) -> set[str]:
    with database.read() as conn:
        return set(conn.execute(sa.select(things.c.name)).scalars()) - {"a", "b"}


def test_who_waits_together_shares_a_transaction(database: Database) -> None:
    done, transactions = behind_one(database, [inserting(f"n{number}") for number in range(8)])
    assert [one.exception() for one in done] == [None] * 8 and names(database) == {f"n{number}" for number in range(8)}
    assert transactions == 2


def test_each_meets_its_own_failure(database: Database) -> None:
    done, _ = behind_one(database, [inserting("c"), inserting("a"), inserting("d")])
    assert [type(one.exception()) for one in done] == [type(None), sa.exc.IntegrityError, type(None)]
    assert names(database) == {"c", "d"}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_full_disk_is_full_for_all_who_wait_and_later_for_nobody(database: Database) -> None:
    tried: Counter[int] = Counter()

    def part(number: int) -> Part:
        def do(tx: Tx) -> None:
            tried[number] += 1
            tx.conn.exec_driver_sql("PRAGMA max_page_count = 1")
            tx.insert(things, name=f"{number}" * 100_000, count=0)

        return do

    done, _ = behind_one(database, [part(number) for number in range(4)])
    assert [type(one.exception()) for one in done] == [Unreachable] * 4
    assert names(database) == set() and set(tried.values()) == {1}
    with database.write(WHO) as tx:
        tx.conn.exec_driver_sql("PRAGMA max_page_count = 1000000")
    database.write_shared(WHO, inserting("later"))
    assert names(database) == {"later"}


def test_what_many_write_is_there_when_they_are_answered(database: Database) -> None:
    def many(thread: int) -> list[str]:
        missing = []
        for number in range(25):
            name = f"{thread}-{number}"
            with suppress(sa.exc.IntegrityError):
                database.write_shared(WHO, inserting("a" if number == thread else name))
            missing += [name] if name not in names(database) and number != thread else []
        return missing

    with ThreadPoolExecutor(12) as pool:
        assert [each for missing in pool.map(many, range(12)) for each in missing] == []
    assert len(names(database)) == 12 * 24
