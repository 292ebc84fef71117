"""Copies of all disks of a guest, of one moment, which the guest does not notice (`nacre backup`).

A guest that runs is copied by its own qemu (libvirt's push backup): writes that come meanwhile wait only until the cluster they hit is
copied, and its chain of files stays what it is. One that is off is copied from its files. Copies are raw and sparse, in `copies/` of the
server's folder, whose content is anybody's guess until `ensure` has answered.

What may race: the guest starts or ends meanwhile. A running copy then fails and one of files sees that these have changed; either is
begun anew. Whatever else is asked of the guest wins: `let_go` ends the copy for a verb that libvirt would refuse while it goes on.
"""

import os
import shutil
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks import copies
from nacre.node.disks.file import COPIES
from nacre.node.hypervisor.driver import Copied, Copies
from nacre.node.trace import noted

_ATTEMPTS = 5
_one = threading.Lock()  # at a time on this host
_under_way: dict[Path, Deadline] = {}


class _Again(Exception):
    """The guest started or ended while it was copied."""


@dataclass(frozen=True)
class _Disk:
    """`target`: its name in the guest, empty for a file that the guest does not have; `fixed`: nobody writes it."""

    path: Path
    kind: str
    base: Path | None
    target: str = ""
    fixed: bool = False


def ensure(domain: Any, folder: Path, deadline: Deadline) -> Copies:
    """Copies in place of those before. Raises NodeError, libvirtError."""
    while not _one.acquire(timeout=0.5):
        deadline.check()
    try:
        _under_way[folder] = deadline
        for attempt in range(_ATTEMPTS):
            _clear(folder)
            place = folder / COPIES
            place.mkdir(mode=0o711)
            try:
                return _copy(domain, folder, place, deadline)
            except (_Again, FileNotFoundError) as error:
                if attempt == _ATTEMPTS - 1:
                    raise NodeError("the guest is started and ended all the time", str(error)) from error
                deadline.sleep(1 + attempt)
        raise AssertionError("unreachable")
    except BaseException:
        _clear(folder)
        raise
    finally:
        del _under_way[folder]
        _one.release()


def absent(folder: Path) -> None:
    """The copies are gone; those that are being made end."""
    if (making := _under_way.get(folder)) is not None:
        making.cancel("nobody wants the copies any more")
    else:
        _clear(folder)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / COPIES, ignore_errors=True)


def let_go(domain: Any) -> None:
    """No copy of the guest goes on."""
    if domain.isActive() and domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
        domain.abortJob()


def _copy(domain: Any, folder: Path, place: Path, deadline: Deadline) -> Copies:
    active = bool(domain.isActive())
    found = _disks(domain.XMLDesc(0 if active else libvirt.VIR_DOMAIN_XML_INACTIVE), folder)
    written = [disk for disk in found if active and disk.target and not disk.fixed]
    if written:
        _push(domain, found, place, deadline)
    _copy_files([disk for disk in found if disk not in written], place, deadline, lambda: bool(domain.isActive()) is active)
    made = {disk.path.name: Copied(os.path.getsize(place / disk.path.name), disk.base.name if disk.base else None) for disk in found}
    return Copies(str(place), made)


def _disks(definition: str, folder: Path) -> list[_Disk]:
    """The guest's, and the copy that a resize keeps."""
    found = []
    for disk in ET.fromstring(definition).findall("devices/disk"):
        source, target, kind = disk.find("source"), disk.find("target"), disk.find("driver")
        if source is None or target is None or kind is None:
            continue
        below = disk.find("backingStore/source")
        base = Path(below.get("file", "/")) if below is not None else None
        fixed = disk.find("readonly") is not None
        found.append(_Disk(Path(source.get("file", "/")), kind.get("type", "raw"), base, target.get("dev", ""), fixed))
    root = next((disk for disk in found if disk.path.name == "disk"), None)
    if root is not None and (folder / copies.BACKUP).exists():
        found.append(_Disk(folder / copies.BACKUP, root.kind, root.base, fixed=True))
    return [disk for disk in found if disk.path.parent == folder]


def _push(domain: Any, disks: Iterable[_Disk], place: Path, deadline: Deadline) -> None:
    order = ET.Element("domainbackup", mode="push")
    listed = ET.SubElement(order, "disks")
    for disk in disks:
        if not disk.target:
            continue
        entry = ET.SubElement(listed, "disk", name=disk.target, backup="no" if disk.fixed else "yes")
        if not disk.fixed:
            entry.set("type", "file")
            ET.SubElement(entry, "target", file=str(place / disk.path.name))
            ET.SubElement(entry, "driver", type="raw")
    with noted(f"libvirt: backup of {domain.name()}"):
        let_go(domain)
        try:
            domain.backupBegin(ET.tostring(order, encoding="unicode"), None, 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                raise _Again(str(error)) from error
            raise
        try:
            while domain.isActive() and domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
                deadline.sleep(0.1)
        except BaseException:
            let_go(domain)
            raise
    _judge(domain)


def _judge(domain: Any) -> None:
    try:
        told = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError as error:
        raise _Again(str(error)) from error
    if told.get("type") == libvirt.VIR_DOMAIN_JOB_FAILED and domain.isActive():
        raise NodeError("the guest's disks could not be copied", str(told.get("errmsg") or told))
    if told.get("type") != libvirt.VIR_DOMAIN_JOB_COMPLETED or told.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        raise _Again(str(told))


def _copy_files(disks: Iterable[_Disk], place: Path, deadline: Deadline, settled: Any) -> None:
    for disk in disks:
        before = disk.path.stat()
        with (place / disk.path.name).open("xb") as target:
            if disk.kind == "qcow2" and disk.base is not None:
                copies.flatten(disk.path, disk.base, target, deadline, "raw")
            else:
                with disk.path.open("rb") as source:
                    copies.copy_sparse(source, target, deadline)
        after = disk.path.stat()
        if (before.st_ino, before.st_mtime_ns, before.st_size) != (after.st_ino, after.st_mtime_ns, after.st_size) or not settled():
            raise _Again(f"{disk.path.name} was written meanwhile")
