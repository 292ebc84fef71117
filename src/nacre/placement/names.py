"""Names of resource classes and traits: the standard ones, and what a custom one looks like.

Source: os-resource-classes, os-traits.
"""

import re

from nacre.placement.traits import TRAITS

__all__ = ["CUSTOM", "RESOURCE_CLASSES", "TRAITS"]

RESOURCE_CLASSES = (
    "VCPU", "MEMORY_MB", "DISK_GB", "PCI_DEVICE", "SRIOV_NET_VF", "NUMA_SOCKET", "NUMA_CORE", "NUMA_THREAD", "NUMA_MEMORY_MB", "IPV4_ADDRESS",
    "VGPU", "VGPU_DISPLAY_HEAD", "NET_BW_EGR_KILOBIT_PER_SEC", "NET_BW_IGR_KILOBIT_PER_SEC", "PCPU", "MEM_ENCRYPTION_CONTEXT", "FPGA", "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC", "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC", "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
)  # fmt: skip
CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]{1,248}")
