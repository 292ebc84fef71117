"""Extra specs of flavors that mean something to the cloud, and what their values may be (checked since microversion 2.86).

A name is exact or a pattern; a name in one of the namespaces here that is neither is a misspelling. Names without a namespace, or in one
of an operator's own, may be anything. Source: "Extra Specs" of nova's configuration guide.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from nacre import placement
from nacre.core.errors import BadRequest

Check = Callable[[str], str | None]
"""What is wrong with a value, or None."""
_BOOLEANS = frozenset("1 t true on y yes 0 f false off n no".split())


def _anything(value: str) -> str | None:
    return None


def _boolean(value: str) -> str | None:
    return None if value.strip().lower() in _BOOLEANS else f"'{value}' is not a valid boolean-like value"


def _integer(least: int | None = None, most: int | None = None) -> Check:
    def check(value: str) -> str | None:
        try:
            number = int(value)
        except ValueError:
            return f"'{value}' is not a valid integer value"
        if least is not None and number < least:
            return f"'{value}' is less than the min value of '{least}'"
        return f"'{value}' is greater than the max value of '{most}'" if most is not None and number > most else None

    return check


def _one_of(words: str) -> Check:
    return lambda value: None if value in words.split() else f"'{value}' is not one of: {', '.join(words.split())}"


def _like(pattern: str) -> Check:
    return lambda value: None if re.fullmatch(pattern, value) else f"'{value}' is not of the format '{pattern}'"


def _each(names: str, check: Check, prefix: str = "") -> dict[str, Check]:
    return {prefix + name: check for name in names.split()}


_CPUS = r"\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*"
_FIRST, _SOME, _COUNT = _integer(1), _integer(0), _integer()
_VMWARE_QUOTAS: dict[str, Check] = {
    f"quota:{of}_{name}": check
    for of in ("cpu", "memory", "disk_io", "vif")
    for name, check in {"limit": _SOME, "reservation": _COUNT, "shares_level": _one_of("custom high normal low"), "shares_share": _SOME}.items()
}
_EXACT: Mapping[str, Check] = {
    **_each("hide_hypervisor_id hw:cpu_realtime hw:hide_hypervisor_id hw:locked_memory hw:boot_menu hw:vif_multiqueue_enabled hw:mem_encryption "
            "hw:pmu hw:virtio_packed_ring hw:ephemeral_encryption hw_rng:allowed", _boolean),
    **_each("numa_nodes cpu_sockets cpu_cores cpu_threads cpu_max_sockets cpu_max_cores cpu_max_threads", _FIRST, "hw:"),
    **_each("hw:serial_port_count hw_rng:rate_bytes hw_rng:rate_period hw_video:ram_max_mb quota:cpu_shares quota:cpu_period", _SOME),
    **_each("accel:device_profile vmware:hw_version vmware:storage_policy", _anything),
    **_VMWARE_QUOTAS, "quota:cpu_quota": _COUNT,
    **{f"quota:disk_{stat}_{unit}_sec": _SOME for stat in ("read", "write", "total") for unit in ("bytes", "iops")},
    **{f"quota:vif_{way}_{what}": _SOME for way in ("inbound", "outbound") for what in ("average", "peak", "burst")},
    **_each("id uuid service_id host vcpus memory_mb local_gb vcpus_used memory_mb_used local_gb_used hypervisor_type hypervisor_version "
            "hypervisor_hostname free_ram_mb free_disk_gb current_workload running_vms disk_available_least host_ip mapped cpu_allocation_ratio "
            "ram_allocation_ratio disk_allocation_ratio total_usable_ram_mb total_usable_disk_gb disk_mb_used free_disk_mb vcpus_total "
            "num_instances num_io_ops failed_builds aggregates cell_uuid updated", _anything, "capabilities:"),
    "group_policy": _one_of("isolate none"), "os:secure_boot": _one_of("disabled required"),
    "hw:cpu_realtime_mask": _like(_CPUS), "hw:cpu_dedicated_mask": _like(_CPUS), "hw:cpu_policy": _one_of("dedicated shared mixed"),
    "hw:cpu_thread_policy": _one_of("prefer isolate require"), "hw:emulator_threads_policy": _one_of("isolate share"),
    "hw:mem_page_size": _like(r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)"), "hw:mem_encryption_model": _one_of("amd-sev amd-sev-es amd-sev-snp"),
    "hw:pci_numa_affinity_policy": _one_of("required preferred legacy socket"), "hw:pmem": _like(r"[a-zA-Z0-9_]+(,[a-zA-Z0-9_]+)*,?"),
    "hw:tpm_model": _one_of("tpm-tis tpm-crb"), "hw:tpm_version": _one_of("1.2 2.0"), "hw:tpm_secret_security": _one_of("user host deployment"),
    "hw:watchdog_action": _one_of("none pause poweroff reset disabled"), "hw:viommu_model": _one_of("intel smmuv3 virtio auto"),
    "hw:sound_model": _one_of("sb16 es1370 pcspk ac97 ich6 ich9 usb virtio"), "hw:usb_model": _one_of("none nec-xhci qemu-xhci"),
    "hw:redirected_usb_ports": _integer(0, 15), "hw:ephemeral_encryption_format": _one_of("plain luks luksv2"),
    "pci_passthrough:alias": _like(r"[^:]+:\d+(?:\s*,\s*[^:]+:\d+)*"),
}  # fmt: skip


def _named(names: Iterable[str]) -> str:
    return "|".join(names)


_GROUP = r"([a-zA-Z0-9_-]{1,64})?"
_PATTERNS: tuple[tuple[re.Pattern[str], Check], ...] = tuple((re.compile(pattern), check) for pattern, check in (
    (r"aggregate_instance_extra_specs:.+", _anything),
    (r"capabilities:(cpu_info|metrics|stats|numa_topology|supported_hv_specs|pci_device_pools|nodename|pci_stats|supported_instances|limits"
     r"|instances)(:\w+)*", _anything),
    (r"hw:numa_cpus\.\d+", _like(_CPUS)), (r"hw:numa_mem\.\d+", _FIRST),
    (rf"resources{_GROUP}:({_named(placement.RESOURCE_CLASSES)}|CUSTOM_[A-Z0-9_]+)", _COUNT),
    (rf"trait{_GROUP}:({_named(placement.TRAITS)}|CUSTOM_[A-Z0-9_]+)", _one_of("required forbidden")),
))  # fmt: skip
_NAMESPACES = re.compile(rf"(accel|aggregate_instance_extra_specs|capabilities|hw|hw_rng|hw_video|os|pci_passthrough|quota|vmware"
                         rf"|resources{_GROUP}|trait{_GROUP})")  # fmt: skip


def check(specs: Mapping[str, str]) -> None:
    """Raises BadRequest naming the first that is misspelt or has a value that it may not have."""
    for name, value in specs.items():
        known = _EXACT.get(name) or next((check for pattern, check in _PATTERNS if pattern.fullmatch(name)), None)
        if known is None:
            namespace, colon, _ = name.partition(":")
            if colon and _NAMESPACES.fullmatch(namespace):
                raise BadRequest(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")
        elif (wrong := known(value)) is not None:
            raise BadRequest(f"Validation failed; extra spec '{name}': {wrong}.")
