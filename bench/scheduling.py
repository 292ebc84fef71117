"""The scheduler by itself: hosts as rows in a database of its own, and how long it takes to read them all and choose.

What is timed is what the task does on its snapshot: every host's flags, inventories, usages and report, the filters, the weighers.
"""

import sys
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path

from endpoint import CLONE

sys.path.insert(0, str(CLONE / "src"))

from nacre import program
from nacre.compute import plan, tables, tasks
from nacre.core import clock, nodes, schema
from nacre.core.caller import System
from nacre.core.config import FilterScheduler
from nacre.core.db import Database
from nacre.placement import set_inventory

WANTED = {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}
_SEEN = {"vcpus": 64, "memory_mb": 262144, "disk_gb": 4096, "cpu_arch": "x86_64", "hypervisor_type": "QEMU", "hypervisor_version": 7002000}


def times(hosts: int, rounds: int = 100) -> list[float]:
    """Seconds of each decision, sorted."""
    assert program.TASKS  # the tables of all services
    with tempfile.TemporaryDirectory(prefix="nacre-bench-") as folder:
        database = Database(f"sqlite:///{Path(folder) / 'scheduling.db'}")
        schema.upgrade(database)
        with database.write(System("bench")) as tx:
            for number in range(hosts):
                name, host_id = f"host-{number:05}", str(uuid.uuid4())
                tx.insert(nodes.hosts, name=name, id=host_id, seen={**_SEEN, "hypervisor_hostname": name}, agents={}, created_at=tx.now,
                          last_seen=clock.utcnow() + timedelta(hours=1))  # fmt: skip
                tx.insert(tables.compute_hosts, host=name, service_id=str(uuid.uuid4()), disabled=False, forced_down=False, reported_at=tx.now,
                          offered={})  # fmt: skip
                offers = {"VCPU": {"total": 64, "allocation_ratio": 4.0}, "MEMORY_MB": {"total": 262144}, "DISK_GB": {"total": 4096}}
                set_inventory(tx, host_id, name, offers)
        request, filters = plan.Request(WANTED), FilterScheduler().enabled_filters
        taken = []
        for _ in range(rounds):
            begun = time.perf_counter()
            with database.read() as conn:
                choice = plan.choose(tasks.hosts(conn, WANTED), request, filters)
            taken.append(time.perf_counter() - begun)
            assert choice.candidates
        database.close()
    return sorted(taken)
