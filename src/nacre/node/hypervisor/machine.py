"""What this machine has, asked of the kernel: no libvirt call may delay a report."""

import os
import socket
import time
from pathlib import Path

from nacre.node.hypervisor.driver import Resources

_GB = 1 << 30


def resources(instances: Path, hypervisor_version: int) -> Resources:
    """Sizes as placement wants them; the disk is the one that `instances` lies on."""
    memory = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        memory[name] = int(value.split()[0]) // 1024
    disk = os.statvfs(instances)
    return Resources(
        vcpus=os.cpu_count() or 1,
        memory_mb=memory["MemTotal"],
        memory_mb_used=memory["MemTotal"] - memory["MemAvailable"],
        disk_gb=disk.f_blocks * disk.f_frsize // _GB,
        disk_gb_used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize // _GB,
        cpu_arch=os.uname().machine,
        cpu_model=_cpu_model(),
        hypervisor_type="QEMU",
        hypervisor_version=hypervisor_version,
        hypervisor_hostname=socket.gethostname(),
        uptime=uptime(),
    )


def uptime() -> str:
    """As uptime(1) says it, of nobody logged in."""
    up = float(Path("/proc/uptime").read_text().split()[0])
    loads = ", ".join(Path("/proc/loadavg").read_text().split()[:3])
    return f" {time.strftime('%H:%M:%S')} up {lasted(int(up))},  0 users,  load average: {loads}"


def lasted(seconds: int) -> str:
    minutes, hours, days = seconds // 60 % 60, seconds // 3600 % 24, seconds // 86400
    begun = f"{days} day{'s' if days > 1 else ''}, " if days else ""
    return begun + (f"{hours:2}:{minutes:02}" if hours else f"{minutes} min")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def direct_io_works(folder: Path) -> bool:
    """Files in `folder` can be opened past the page cache."""
    path = folder / ".direct-io"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600))
        return True
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)


def tail(path: Path, limit: int) -> bytes:
    """The last `limit` bytes of `path`, nothing if it is not there; never follows a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(max(0, os.fstat(descriptor).st_size - limit))
        return file.read(limit)
