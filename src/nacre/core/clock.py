"""Time, asked for in one place.

Rows hold naive UTC with microseconds. Leases on SQLite must survive a clock that is set back or a machine that sleeps, so they use
seconds since the kernel started (suspend included) together with the id of that boot: a lease of another boot is over.
"""

import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path


def utcnow() -> datetime:
    """Now, as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def boottime() -> float:
    """Seconds since the kernel started, time asleep included; never goes back within one `boot_id`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """The id of this run of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
