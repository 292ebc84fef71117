"""The scheduler by itself: hosts, and servers on them, as rows of a database of its own, and how long a decision takes.

What is timed is what the task does: the decision on its snapshot, and then the claim in a transaction that is on the disk when it ends.
The decision is measured by itself too, and where few hosts have room, and where none has and each one's reason is told.
"""

import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from endpoint import CLONE

sys.path.insert(0, str(CLONE / "src"))

from nacre import placement, program
from nacre.compute import scheduling, tables
from nacre.core import ids, leases, nodes, schema
from nacre.core.caller import System
from nacre.core.config import FilterScheduler
from nacre.core.db import Database, Tx
from nacre.placement.tables import allocations, consumers

WHO, OWNER, SERVERS_EACH = System("bench"), {"project_id": "p", "user_id": "u"}, 8
_SEEN = {"vcpus": 64, "memory_mb": 262144, "disk_gb": 4096, "cpu_arch": "x86_64", "hypervisor_type": "QEMU", "hypervisor_version": 7002000}
_OFFERS = {"VCPU": {"total": 64, "allocation_ratio": 4.0}, "MEMORY_MB": {"total": 262144}, "DISK_GB": {"total": 4096}}
_FLAVOR = {"vcpus": 1, "memory_mb": 512, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0}
_SERVER: Any = SimpleNamespace(id="x", flavor=_FLAVOR, image={}, hints={}, pinned_availability_zone=None, wanted_host=None, group_id=None)


@dataclass
class Times:
    """`seconds` sorted; `cpu_ms` of this process for one."""

    name: str
    seconds: list[float]
    cpu_ms: float


def measured(count: int, rounds: int) -> Iterator[Times]:
    """Among `count` hosts: to decide, to decide and claim; where 1 in 100 has room; where none has."""
    with _hosts(count) as (database, providers):
        yield _timed(f"decide among {count} hosts", rounds, lambda: _decided(database, 1))
        yield _timed(f"decide and claim among {count} hosts", rounds, lambda: _claimed(database))
        with database.write(WHO) as tx:
            _take(tx, [each for number, each in enumerate(providers) if number % 100], 1, 4096 - SERVERS_EACH)
        yield _timed(f"decide, 1 in 100 of {count} has room", rounds, lambda: _decided(database, 1))
        with database.write(WHO) as tx:
            _take(tx, providers[::100], 1, 4096)
        yield _timed(f"each reason of {count} full hosts", max(5, rounds // 20), lambda: _decided(database, 0))


def _timed(name: str, rounds: int, act: Callable[[], None]) -> Times:
    act()
    taken, computed = [], time.process_time()
    for _ in range(rounds):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return Times(name, sorted(taken), (time.process_time() - computed) * 1000 / rounds)


def _decided(database: Database, least: int) -> None:
    with database.read() as conn:
        found = scheduling.decide(conn, _SERVER, FilterScheduler().enabled_filters, {}).choice.candidates
    assert len(found) >= least and (least or not found)


def _claimed(database: Database) -> None:
    with database.read() as conn:
        decision = scheduling.decide(conn, _SERVER, FilterScheduler().enabled_filters, {})
    best = decision.choice.candidates[0]
    with database.write(WHO) as tx:
        assert placement.claim(tx, ids.uuid(), best.provider_id, best.generation, decision.request.resources, **OWNER)


@contextmanager
def _hosts(count: int) -> Iterator[tuple[Database, list[str]]]:
    """Their ids; each holds SERVERS_EACH servers."""
    assert program.TASKS  # the tables of all services
    with tempfile.TemporaryDirectory(prefix="nacre-bench-") as folder:
        database = Database(f"sqlite:///{Path(folder) / 'scheduling.db'}")
        schema.upgrade(database)
        providers = []
        with database.write(WHO) as tx:
            boot, instant = leases.now(tx)
            for number in range(count):
                name, host_id = f"host-{number:05}", str(uuid.uuid4())
                tx.insert(nodes.hosts, name=name, id=host_id, seen={**_SEEN, "hypervisor_hostname": name}, agents={}, created_at=tx.now,
                          last_seen=tx.now, boot=boot, heard=instant)  # fmt: skip
                tx.insert(tables.compute_hosts, host=name, service_id=str(uuid.uuid4()), disabled=False, forced_down=False, reported_at=tx.now,
                          reports=1, offered={})  # fmt: skip
                placement.set_inventory(tx, host_id, name, _OFFERS)
                providers.append(host_id)
            _take(tx, providers, SERVERS_EACH, 1)
        nodes.DEAD_AFTER = float("inf")  # nobody reports here
        yield database, providers
        database.close()


def _take(tx: Tx, providers: list[str], servers: int, gigabytes: int) -> None:
    """So many servers on each, with disks of that size."""
    held = [(str(uuid.uuid4()), provider) for provider in providers for _ in range(servers)]
    tx.execute(consumers.insert(), [{"id": each, "generation": 1, **OWNER, "created_at": tx.now, "updated_at": tx.now} for each, _ in held])
    amounts = (("VCPU", 1), ("MEMORY_MB", 512), ("DISK_GB", gigabytes))
    tx.execute(allocations.insert(), [{"consumer_id": each, "provider_id": provider, "resource_class": name, "used": amount}
                                      for each, provider in held for name, amount in amounts])  # fmt: skip
