"""What a guest of libvirt has used of processors, network and disks since it was started."""

import xml.etree.ElementTree as ET
from typing import Any

from nacre.node.hypervisor.driver import CpuUse, Diagnostics, DiskUse, NicUse


def diagnostics(domain: Any) -> Diagnostics:
    """Of one that is on. Raises libvirt.libvirtError."""
    whole = ET.fromstring(domain.XMLDesc())
    _, maximum, used, _, _ = domain.info()
    cpus = tuple(CpuUse(vcpu[0], vcpu[2]) for vcpu in domain.vcpus()[0])
    disks = [target.get("dev", "") for target in whole.findall("devices/disk/target")]
    return Diagnostics("libvirt", maximum, used, cpus, tuple(_nic(domain, nic) for nic in whole.findall("devices/interface")),
                       tuple(DiskUse(name, *domain.blockStats(name)) for name in disks))  # fmt: skip


def _nic(domain: Any, nic: ET.Element) -> NicUse:
    target, mac = nic.find("target"), nic.find("mac")
    name = target.get("dev", "") if target is not None else ""
    return NicUse(name, mac.get("address", "") if mac is not None else "", *(domain.interfaceStats(name) if name else ()))
