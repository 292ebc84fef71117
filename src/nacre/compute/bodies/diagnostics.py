"""Diagnostics of a server on the wire: fields of libvirt's own until 2.47, then the same of every hypervisor."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nacre.compute import states
from nacre.core import clock, db

_OLD_DISK = {"read": "read_bytes", "read_req": "read_requests", "write": "write_bytes", "write_req": "write_requests", "errors": "errors_count"}
_OLD_NIC = {"rx": "rx_octets", "rx_packets": "rx_packets", "rx_errors": "rx_errors", "rx_drop": "rx_drop",
            "tx": "tx_octets", "tx_packets": "tx_packets", "tx_errors": "tx_errors", "tx_drop": "tx_drop"}  # fmt: skip


def old(found: Mapping[str, Any]) -> dict[str, int]:
    shown = {f"cpu{cpu['id']}_time": cpu["time"] for cpu in found["cpus"]}
    for kind, names in (("disks", _OLD_DISK), ("nics", _OLD_NIC)):
        shown |= {f"{each['name']}_{word}": each[field] for each in found[kind] for word, field in names.items()}
    return shown | {"memory": found["memory_maximum"], "memory-actual": found["memory_used"]}


def new(found: Mapping[str, Any], row: db.Row) -> dict[str, Any]:
    nics = [{**{name: value for name, value in nic.items() if name != "name"}, "rx_rate": None, "tx_rate": None} for nic in found["nics"]]
    disks = [{name: value for name, value in disk.items() if name != "name"} for disk in found["disks"]]
    return {
        "state": "paused" if row.vm_state == states.PAUSED else "running", "driver": found["driver"], "hypervisor": "qemu",
        "hypervisor_os": "linux", "uptime": _seconds_since(row.launched_at), "config_drive": bool(row.config_drive),
        "num_cpus": len(found["cpus"]), "num_nics": len(nics), "num_disks": len(disks),
        "memory_details": {"maximum": found["memory_maximum"] >> 10, "used": found["memory_used"] >> 10},
        "cpu_details": [{**cpu, "utilisation": None} for cpu in found["cpus"]], "nic_details": nics, "disk_details": disks,
    }  # fmt: skip


def _seconds_since(moment: datetime | None) -> int | None:
    return int((clock.utcnow() - moment).total_seconds()) if moment is not None else None
