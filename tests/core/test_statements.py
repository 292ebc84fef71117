"""Statements that are built once give what SQLAlchemy gives: the same rows, the same errors, in the same transaction."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from conftest import make_cloud
from nacre.core import db, ids, nodes, tasks
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.statements import Statement, given, given_list

WHO = System("req-statements")
hosts = nodes.hosts


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[Cloud]:
    made = make_cloud(Path(tmp_path_factory.mktemp("statements")) / "cloud", database=fresh_database())
    with made.db.write(WHO) as tx:
        for number, name in enumerate(("a", "b", "c")):
            seen = {"vcpus": number, "note": "\u00e9"} if number else {}
            last = datetime(2026, 1, 31, 12, 0, 0, number) if number else None
            tx.insert(hosts, name=name, id=ids.uuid(), seen=seen, agents={}, created_at=tx.now, last_seen=last)
        tx.insert(nodes.facts, name="number", value=7)
    yield made
    made.db.close()


@pytest.mark.parametrize("names", [[], ["b"], ["c", "a"], ["a", "a", "nobody", "b"]])
def test_rows_are_those_of_the_plain_query(cloud: Cloud, names: list[str]) -> None:
    plain = sa.select(hosts).where(hosts.c.name.in_(names), hosts.c.address.is_(None)).order_by(hosts.c.number)
    once = Statement(sa.select(hosts).where(hosts.c.name.in_(given_list("names")), hosts.c.address.is_(None)).order_by(hosts.c.number))
    with cloud.db.read() as conn:
        found, wanted = once.rows(conn, names=names), list(conn.execute(plain))
    assert [row._mapping for row in found] == [row._mapping for row in wanted]
    assert [row.name for row in found] == sorted(set(names) & {"a", "b", "c"})


def test_constants_and_parameters_together(cloud: Cloud) -> None:
    since = datetime(2026, 1, 1)
    either = sa.or_(hosts.c.last_seen > given("since"), hosts.c.name == given("name"))
    once = Statement(sa.select(hosts.c.name).where(hosts.c.name.in_(("a", "b")), either))
    with cloud.db.read() as conn:
        assert {row.name for row in once.rows(conn, since=since, name="a")} == {"a", "b"}
        assert {row.name for row in once.rows(conn, since=since, name="c")} == {"b"}
        assert once.first(conn, since=datetime(2027, 1, 1), name="c") is None
        assert Statement(sa.select(nodes.facts.c.value).where(nodes.facts.c.name == given("name"))).scalar(conn, name="number") == 7


def test_what_is_null_is_found_and_set(cloud: Cloud) -> None:
    with cloud.db.write(WHO) as tx:
        assert tx.update(hosts, {"name": "a", "address": None}, address="192.0.2.1") == 1
        assert tx.update(hosts, {"name": "a", "address": None}, address="192.0.2.2") == 0
        assert tx.update(hosts, {"name": "a", "address": "192.0.2.1"}, address=None) == 1
        assert tx.delete(nodes.facts, name="nothing") == 0


def test_errors_and_transactions_are_the_same(cloud: Cloud) -> None:
    row = {"id": ids.uuid(), "seen": {}, "agents": {}}
    with pytest.raises(exc.IntegrityError), cloud.db.write(WHO) as tx:
        tx.insert(nodes.facts, name="gone", value={"with": "the transaction"})
        tx.insert(hosts, name="a", created_at=tx.now, **row)
    with cloud.db.read() as conn:
        assert conn.execute(sa.select(nodes.facts).where(nodes.facts.c.name == "gone")).first() is None
    with pytest.raises(exc.StatementError), cloud.db.write(WHO) as tx:
        tx.insert(tasks.tasks, kind="no such row without the rest")
    with cloud.db.write(WHO) as tx, tx.conn.begin_nested() as nested:
        tx.insert(hosts, name="d", created_at=tx.now, **row)
        nested.rollback()
    with cloud.db.read() as conn:
        assert nodes.host_named(conn, "d") is None


def test_a_verb_that_lost_a_race_is_run_again(cloud: Cloud) -> None:
    tried: list[str] = []

    def verb() -> None:
        with cloud.db.write(WHO) as tx:
            tried.append("b" if not tried else "e")
            tx.insert(hosts, name=tried[-1], id=ids.uuid(), seen={}, agents={}, created_at=tx.now)

    db.again(verb)
    assert tried == ["b", "e"]


def test_lazy_rows_are_the_same_by_name(cloud: Cloud) -> None:
    columns = (hosts.c.name, hosts.c.seen, hosts.c.last_seen, hosts.c.address, hosts.c.number)
    query = sa.select(*columns).order_by(hosts.c.name)
    with cloud.db.read() as conn:
        eager, lazy, again = Statement(query).rows(conn), Statement(query, lazy=True).rows(conn), Statement(query, lazy=True).rows(conn)
    assert [row._mapping for row in lazy] != [] and lazy == again
    for one, other in zip(eager, lazy, strict=True):
        assert all(getattr(one, column.name) == getattr(other, column.name) for column in columns)
        assert type(one.seen) is type(other.seen) is dict and one.last_seen == other.last_seen


def test_threads_that_read_lazy_rows_for_the_first_time_together(cloud: Cloud) -> None:
    ready = threading.Barrier(3)

    def read(statement: Statement) -> list[set[type]]:
        with cloud.db.read() as conn:
            conn.execute(sa.select(sa.literal(1))).scalar()
            ready.wait(10)
            return [{type(row.seen) for row in statement.rows(conn)} for _ in range(3)]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            for _ in range(200):
                assert list(pool.map(read, [Statement(sa.select(hosts), lazy=True)] * 3)) == [[{dict}] * 3] * 3
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 1000, 1024, 1025, 3000])
def test_any_number_of_members(cloud: Cloud, count: int) -> None:
    once = Statement(sa.select(hosts.c.name).where(hosts.c.name.not_in(given_list("names")), hosts.c.name.in_(("a", "c"))).order_by(hosts.c.name))
    with cloud.db.read() as conn:
        assert [row.name for row in once.rows(conn, names={"c", *map(str, range(count - 1))} if count else ())] == ["a", "c"][: 1 + (not count)]
