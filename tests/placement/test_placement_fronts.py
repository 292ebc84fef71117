"""Claims: decisions in tables, and many claimers at once on one database."""

import random
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nacre import placement
from nacre.core import ids, schema
from nacre.core.caller import System
from nacre.core.db import Database
from nacre.placement.plan import Inventory, refusals

WHO = System("req-test")
ONE = {"project_id": "p", "user_id": "u"}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/t.db")
    schema.upgrade(database)
    yield database
    database.close()


@pytest.mark.parametrize(("wanted", "offer", "used", "said"), [
    (4, Inventory(4), 0, ""),
    (5, Inventory(4), 0, "VCPU: 5 requested, 4 of 4 free"),
    (1, Inventory(4), 4, "VCPU: 1 requested, 0 of 4 free"),
    (16, Inventory(4, allocation_ratio=4.0), 0, ""),
    (13, Inventory(4, reserved=1, allocation_ratio=4.0), 0, "VCPU: 13 requested, 12 of 12 free"),
    (1, Inventory(4, min_unit=2), 0, "VCPU: 1 requested, at least 2 at a time"),
    (3, Inventory(4, max_unit=2), 0, "VCPU: 3 requested, at most 2 at a time"),
    (3, Inventory(4, step_size=2), 0, "VCPU: 3 requested, only multiples of 2"),
    (1, None, 0, "VCPU: 1 requested, none offered"),
])  # fmt: skip
def test_refusals(wanted: int, offer: Inventory | None, used: int, said: str) -> None:
    assert refusals({"VCPU": wanted}, {"VCPU": offer} if offer else {}, {"VCPU": used}) == ([said] if said else [])


def offer(db: Database, provider: str, **totals: int) -> None:
    with db.write(WHO) as tx:
        placement.set_inventory(tx, provider, f"host-{provider}", {name: {"total": total} for name, total in totals.items()})


def test_a_claim_needs_the_generation_that_was_read(db: Database) -> None:
    offer(db, "a", VCPU=4, MEMORY_MB=100)
    with db.read() as conn:
        (seen,) = placement.candidates(conn, {"VCPU": 2})
    with db.write(WHO) as tx:
        assert placement.claim(tx, "c1", "a", seen.generation, {"VCPU": 2, "DISK_GB": 0}, **ONE)
        assert not placement.claim(tx, "c2", "a", seen.generation, {"VCPU": 2}, **ONE)
    with db.read() as conn:
        (now,) = placement.candidates(conn, {"VCPU": 3})
        assert (now.usages["VCPU"], now.missing) == (2, ("VCPU: 3 requested, 2 of 4 free",))
        assert placement.allocated(conn, "c1") == {"a": {"VCPU": 2}}
        assert placement.allocated(conn, "c2") == {}
    with db.write(WHO) as tx:
        assert not placement.claim(tx, "c2", "a", now.generation, {"VCPU": 3}, **ONE)
        assert placement.claim(tx, "c1", "a", now.generation, {"VCPU": 4}, **ONE), "its own former share counts as free"
        placement.release(tx, "c1")
        placement.release(tx, "c1")
    with db.read() as conn:
        assert placement.candidates(conn, {"VCPU": 4})[0].missing == ()


def test_with_room_is_what_has_no_refusal(db: Database) -> None:
    """Whatever is offered and held: SQL finds those that the table of refusals leaves, each once, wherever the ring begins."""
    dice = random.Random(7)
    with db.write(WHO) as tx:
        for number in range(300):
            offers = {name: {"total": dice.randint(1, 12), "reserved": dice.choice((0, 0, 1, 13)), "min_unit": dice.choice((1, 1, 2)),
                             "max_unit": dice.choice((99, 99, 2)), "step_size": dice.choice((1, 1, 2)),
                             "allocation_ratio": dice.choice((1.0, 0.7, 1.5))}
                      for name in ("VCPU", "DISK_GB") if dice.random() < 0.9}  # fmt: skip
            provider = str(uuid.UUID(int=dice.getrandbits(128)))
            placement.set_inventory(tx, provider, f"host-{number}", offers)
            for name in offers:
                for _ in range(dice.randint(0, 2)):
                    (seen,) = placement.candidates(tx, {name: 2}, [provider])
                    placement.claim(tx, ids.uuid(), provider, seen.generation, {name: 2}, **ONE)
    with db.read() as conn:
        for wanted in ({"VCPU": 1}, {"VCPU": 2, "DISK_GB": 3}, {"VCPU": 4, "DISK_GB": 0}, {"DISK_GB": 30}, {"MEMORY_MB": 1}, {}):
            expected = {each.provider_id for each in placement.candidates(conn, wanted) if not each.missing}
            for _ in range(3):
                found = [each.provider_id for batch in placement.with_room(conn, wanted) for each in batch]
                assert len(found) == len(set(found)) and set(found) == expected, wanted
        assert len({next(placement.with_room(conn, {"VCPU": 1}))[0].provider_id for _ in range(9)}) > 1


def test_an_unchanged_report_changes_nothing(db: Database) -> None:
    offer(db, "a", VCPU=4)
    offer(db, "a", VCPU=4)
    with db.read() as conn:
        (seen,) = placement.candidates(conn, {"VCPU": 1})
    assert seen.generation == 1


def test_a_class_in_use_that_is_no_longer_reported_gives_nothing_more(db: Database) -> None:
    offer(db, "a", VCPU=4, DISK_GB=10)
    with db.write(WHO) as tx:
        assert placement.claim(tx, "c", "a", 1, {"DISK_GB": 5}, **ONE)
    offer(db, "a", VCPU=4)
    with db.read() as conn:
        (seen,) = placement.candidates(conn, {"DISK_GB": 1})
        assert seen.missing == ("DISK_GB: 1 requested, 0 of 0 free",)
        assert placement.allocated(conn, "c") == {"a": {"DISK_GB": 5}}


def test_claims_at_once_never_pass_the_inventory(db: Database) -> None:
    offer(db, "a", VCPU=7)
    offer(db, "b", VCPU=6)
    won: list[str] = []

    def claimer() -> None:
        for _ in range(12):
            with db.read() as conn:
                fits = [seen for seen in placement.candidates(conn, {"VCPU": 1}) if not seen.missing]
            for seen in fits:
                consumer = ids.uuid()
                with db.write(WHO) as tx:
                    got = placement.claim(tx, consumer, seen.provider_id, seen.generation, {"VCPU": 1}, **ONE)
                if got:
                    won.append(consumer)
                    break

    threads = [threading.Thread(target=claimer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as conn:
        seen = placement.candidates(conn, {"VCPU": 1})
    assert [(each.name, each.usages["VCPU"]) for each in seen] == [("host-a", 7), ("host-b", 6)]
    assert len(won) == 13
