"""Which host holds which document: decided at the end of a transaction, by all that was said in it, and by what others have written until then."""

import threading
from collections.abc import Callable, Collection, Iterator

import pytest

from conftest import make_cloud
from nacre.core import db, nodes
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.errors import Conflict

WHO = System("req-test")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str]) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("wanted") / "cloud", database=fresh_database())
    yield made
    made.db.close()


def held(cloud: Cloud, document: str) -> list[str]:
    with cloud.db.read() as conn:
        return sorted(nodes.holders_of(conn, "network", document))


def version(cloud: Cloud, document: str, host: str = "a") -> int:
    with cloud.db.read() as conn:
        return nodes.held_by(conn, host)["network"][document]


def test_the_last_word_of_a_transaction_counts(cloud: Cloud) -> None:
    with cloud.db.write(WHO) as tx:
        nodes.hold(tx, "a", "network", "one")
        nodes.hold(tx, "b", "network", "one")
        nodes.release(tx, "network", "one", "b")
        nodes.bump(tx, "network", "nobody's")
    assert held(cloud, "one") == ["a"] and held(cloud, "nobody's") == []
    first = version(cloud, "one")
    with cloud.db.write(WHO) as tx:
        for _ in range(3):
            nodes.bump(tx, "network", "one")
    assert version(cloud, "one") == first + 1
    with cloud.db.write(WHO) as tx:
        nodes.release(tx, "network", "one")
    with cloud.db.write(WHO) as tx:
        nodes.hold(tx, "a", "network", "one")
    assert version(cloud, "one") > first + 1, "what a node still has of a document that was released is never taken for the new one"


def test_who_holds_it_again_has_something_to_report(cloud: Cloud) -> None:
    """A host that never noticed that it was to let go has told of the version before, and would tell of it no more."""
    for host in ("a", "b"):
        with cloud.db.write(WHO) as tx:
            nodes.hold(tx, host, "network", "five")
    known = version(cloud, "five", "b")
    with cloud.db.write(WHO) as tx:
        nodes.mark_applied(tx, "b", {"network": {"five": known}})
        nodes.release(tx, "network", "five", "b")
    with cloud.db.write(WHO) as tx:
        nodes.hold(tx, "b", "network", "five")
    with cloud.db.read() as conn:
        assert nodes.missing(conn, "b", [("network", "five")])
    assert version(cloud, "five", "b") > known
    with cloud.db.write(WHO) as tx:
        nodes.mark_applied(tx, "b", {"network": {"five": known}})
    with cloud.db.read() as conn:
        assert nodes.missing(conn, "b", [("network", "five")]), "a report that was on its way says nothing of it"
    with cloud.db.write(WHO) as tx:
        nodes.mark_applied(tx, "b", {"network": {"five": version(cloud, "five", "b") + 1}})
    with cloud.db.read() as conn:
        assert nodes.missing(conn, "b", [("network", "five")]), "neither does one of a document of before, which was made when the clock was ahead"
    with cloud.db.write(WHO) as tx:
        nodes.mark_applied(tx, "b", {"network": {"five": version(cloud, "five", "b")}})
    with cloud.db.read() as conn:
        assert nodes.missing(conn, "b", [("network", "five")]) is None


def test_what_is_taken_back_says_nothing(cloud: Cloud) -> None:
    with cloud.db.write(WHO) as tx:
        nodes.hold(tx, "a", "network", "two")
        with pytest.raises(Conflict), tx.nested():
            nodes.hold(tx, "b", "network", "two")
            nodes.hold(tx, "b", "network", "three")
            raise Conflict("no")
    assert held(cloud, "two") == ["a"] and held(cloud, "three") == []


def test_whether_a_host_needs_it_is_looked_at_when_nobody_else_decides(cloud: Cloud) -> None:
    """The one that binds and the one that unbinds meet: whoever comes last sees what both wrote."""
    bound, looked, go = {"a"}, threading.Event(), threading.Event()

    def needed(tx: db.Tx, host: str, ids: Collection[str]) -> set[str]:
        if threading.current_thread() is not threading.main_thread():
            looked.set()
            go.wait(10)
        return set(ids) if bound else set()

    def unbind() -> None:
        with cloud.db.write(WHO) as tx:
            nodes.settle(tx, "a", "network", ["four"], needed)

    bound.clear()
    thread = threading.Thread(target=unbind)
    thread.start()
    assert looked.wait(10)
    threading.Timer(0.3, go.set).start()
    with cloud.db.write(WHO) as tx:
        bound.add("a")
        nodes.settle(tx, "a", "network", ["four"], needed)
        assert not go.is_set() or cloud.db.sqlite
    thread.join(10)
    assert held(cloud, "four") == ["a"]
