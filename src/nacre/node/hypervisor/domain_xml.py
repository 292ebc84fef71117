"""A guest as libvirt's XML. Pure: the same spec, machine and files give the same text.

What people rely on: the domain's name and metadata as upstream's compute service writes them, the product names in SMBIOS by which
cloud-init recognises the platform, the first serial line in `console.log` and on a terminal, because `virsh console` takes nothing
else. Under emulation the translation cache is kept small (160 instead of 218 MB for a small guest). A switch that forwards in user
space takes frames as they leave the guest, so checksums left to "hardware" would arrive broken: guests behind one do them themselves.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nacre.node.hypervisor.driver import PortSpec, ServerSpec

NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TCG_CACHE_MB = 32
_SPARE_SLOTS = 8
ET.register_namespace("nova", NOVA)


@dataclass(frozen=True)
class Machine:
    """What the host decides. `cpu_mode` None leaves the model to qemu; `cache` is the disks' cache mode."""

    virt_type: str
    cpu_mode: str | None = None
    chipset: str = "pc"
    cache: str = "none"
    userspace_switch: bool = True
    bridge: str = "br-int"
    vnc_listen: str | None = None


Drive = Literal["iso9660", "vfat"]


def domain_xml(spec: ServerSpec, machine: Machine, folder: Path, base: Path, rescue: Path | None = None, drive: Drive | None = None) -> str:
    """The domain of `spec` whose files lie in `folder`, its root disk over `base`, the one it is rescued with over `rescue`; `drive`: what
    its config drive is."""
    domain = ET.Element("domain", type=machine.virt_type)
    _text(domain, "name", spec.domain)
    _text(domain, "uuid", spec.id)
    _metadata(_add(domain, "metadata"), spec)
    _text(domain, "memory", str(spec.memory_mb), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus))
    _sysinfo(domain, spec)
    system = _add(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=machine.chipset)
    _add(system, "boot", dev="hd")
    _add(system, "smbios", mode="sysinfo")
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if machine.virt_type == "qemu":
        _text(_add(features, "tcg"), "tb-cache", str(_TCG_CACHE_MB), unit="MiB")
    if machine.cpu_mode:
        _add(domain, "cpu", mode=machine.cpu_mode)
    clock = _add(domain, "clock", offset="utc")
    if machine.virt_type == "kvm":
        _add(clock, "timer", name="pit", tickpolicy="delay")
        _add(clock, "timer", name="rtc", tickpolicy="catchup")
        _add(clock, "timer", name="hpet", present="no")
    for event, what in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(domain, f"on_{event}", what)
    _devices(_add(domain, "devices"), spec, machine, (folder, base, rescue, drive))
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, attributes)


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    found = ET.SubElement(parent, tag, attributes)
    found.text = _clean(text)
    return found


def _clean(text: str) -> str:
    """`text` without the characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _metadata(parent: ET.Element, spec: ServerSpec) -> None:
    instance = _add(parent, f"{{{NOVA}}}instance")
    _text(instance, f"{{{NOVA}}}name", spec.name)
    if created := spec.metadata.get("created_at"):
        _text(instance, f"{{{NOVA}}}creationTime", str(created))
    given = spec.metadata.get("flavor")
    flavor: dict[str, Any] = given if isinstance(given, dict) else {"name": given}
    about = _add(instance, f"{{{NOVA}}}flavor", name=_clean(str(flavor.get("name") or "")))
    sizes = {"memory": spec.memory_mb, "disk": spec.root_gb, "swap": spec.swap_mb, "ephemeral": spec.ephemeral_gb, "vcpus": spec.vcpus}
    for word, size in sizes.items():
        _text(about, f"{{{NOVA}}}{word}", str(size))
    given = spec.metadata.get("owner")
    owner: dict[str, Any] = given if isinstance(given, dict) else {}
    about = _add(instance, f"{{{NOVA}}}owner")
    if owner.get("user_id"):
        _text(about, f"{{{NOVA}}}user", str(owner.get("user_name") or ""), uuid=str(owner["user_id"]))
    _text(about, f"{{{NOVA}}}project", str(owner.get("project_name") or ""), uuid=spec.project_id)
    _add(instance, f"{{{NOVA}}}root", type="image", uuid=spec.image.image_id)
    ports = _add(instance, f"{{{NOVA}}}ports")
    for port in spec.ports:
        _add(ports, f"{{{NOVA}}}port", uuid=port.id)


def _sysinfo(domain: ET.Element, spec: ServerSpec) -> None:
    system = _add(_add(domain, "sysinfo", type="smbios"), "system")
    entries = {
        "manufacturer": "OpenStack Foundation",
        "product": "OpenStack Nova",
        "version": "0",
        "serial": spec.id,
        "uuid": spec.id,
        "family": "Virtual Machine",
    }
    for name, value in entries.items():
        _text(system, "entry", value, name=name)


def _devices(devices: ET.Element, spec: ServerSpec, machine: Machine, files: tuple[Path, Path, Path | None, Drive | None]) -> None:
    folder, base, rescue, drive = files
    if machine.chipset == "q35":
        _add(devices, "controller", type="pci", index="0", model="pcie-root")
        for index in range(_SPARE_SLOTS + len(spec.ports)):
            _add(devices, "controller", type="pci", index=str(index + 1), model="pcie-root-port")
    _add(devices, "controller", type="usb", model="none")
    names = iter(("vda", "vdb", "vdc", "vdd", "vde"))
    if rescue is not None:
        _backing(_disk(devices, folder / "disk.rescue", "qcow2", next(names), machine.cache), rescue)
    _backing(_disk(devices, folder / "disk", "qcow2", next(names), machine.cache), base)
    if spec.ephemeral_gb:
        _disk(devices, folder / "disk.eph0", "raw", next(names), machine.cache)
    if spec.swap_mb:
        _disk(devices, folder / "disk.swap", "raw", next(names), machine.cache)
    if drive == "iso9660":
        _cdrom(devices, folder / "disk.config", machine)
    elif drive == "vfat":
        _disk(devices, folder / "disk.config", "raw", next(names), machine.cache)
    for port in spec.ports:
        _nic(devices, port, machine)
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=str(folder / "console.log"), append="off")
    _add(serial, "target", port="0")
    _add(devices, "input", type="tablet", bus="virtio")
    _screen(_add(devices, "graphics"), machine.vnc_listen, folder)
    _add(_add(devices, "video"), "model", type="vga")
    _add(devices, "memballoon", model="virtio")
    _text(_add(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")


def _screen(graphics: ET.Element, listen: str | None, folder: Path) -> None:
    graphics.clear()
    graphics.set("type", "vnc")
    if listen is None:
        _add(graphics, "listen", type="socket", socket=str(folder / "run/vnc.sock"))
    else:
        graphics.set("autoport", "yes")
        _add(graphics, "listen", type="address", address=listen)


def screen_moved(definition: str, listen: str | None, folder: Path) -> str | None:
    """The definition of a domain with its screen where it is to be from now on; None when it is there."""
    domain = ET.fromstring(definition)
    graphics = domain.find("devices/graphics[@type='vnc']")
    held = None if graphics is None else graphics.find("listen")
    if graphics is None or (held is not None and held.get("address") == listen):
        return None
    _screen(graphics, listen, folder)
    return ET.tostring(domain, encoding="unicode")


def _disk(devices: ET.Element, path: Path, kind: str, name: str, cache: str) -> ET.Element:
    disk = _add(devices, "disk", type="file", device="disk")
    _add(disk, "driver", name="qemu", type=kind, cache=cache, discard="unmap")
    _add(disk, "source", file=str(path))
    _add(disk, "target", dev=name, bus="virtio")
    return disk


def _cdrom(devices: ET.Element, path: Path, machine: Machine) -> None:
    cdrom = _add(devices, "disk", type="file", device="cdrom")
    _add(cdrom, "driver", name="qemu", type="raw", cache=machine.cache)
    _add(cdrom, "source", file=str(path))
    _add(cdrom, "target", **({"dev": "sda", "bus": "sata"} if machine.chipset == "q35" else {"dev": "hda", "bus": "ide"}))
    _add(cdrom, "readonly")


def _backing(disk: ET.Element, base: Path) -> None:
    """Guests share the base and may only read it: it stays root's, libvirt does not give it to them."""
    backing = _add(disk, "backingStore", type="file")
    _add(backing, "format", type="raw")
    _add(_add(backing, "source", file=str(base)), "seclabel", model="dac", relabel="no")
    _add(backing, "backingStore")


def console_of(running: str, kind: str, dialled: str | None) -> Path | tuple[str, int] | None:
    """Where a console of a running domain is. `dialled`: the address of screens that listen on TCP, if it is not the one they name."""
    devices = ET.fromstring(running).find("devices")
    found = None if devices is None else devices.find("serial/source" if kind == "serial" else "graphics[@type='vnc']")
    if found is None:
        return None
    if kind == "serial":
        return Path(found.get("path", "/"))
    listen = found.find("listen")
    if listen is not None and listen.get("type") == "socket":
        return Path(listen.get("socket", "/"))
    return dialled or found.get("listen") or "127.0.0.1", int(found.get("port", "0"))


def nic_xml(port: PortSpec, machine: Machine) -> str:
    """The interface alone, for a guest that is there already."""
    devices = ET.Element("devices")
    _nic(devices, port, machine)
    return ET.tostring(devices[0], encoding="unicode")


def _nic(devices: ET.Element, port: PortSpec, machine: Machine) -> None:
    nic = _add(devices, "interface", type="bridge")
    _add(nic, "mac", address=port.mac_address)
    _add(nic, "source", bridge=machine.bridge)
    _add(_add(nic, "virtualport", type="openvswitch"), "parameters", interfaceid=port.id)
    _add(nic, "target", dev=port.tap)
    _add(nic, "model", type="virtio")
    driver = _add(nic, "driver", name="qemu")
    if machine.userspace_switch:
        off = dict.fromkeys(("csum", "tso4", "tso6", "ecn", "ufo"), "off")
        _add(driver, "host", gso="off", **off)
        _add(driver, "guest", **off)
    if port.mtu:
        _add(nic, "mtu", size=str(port.mtu))
    _add(nic, "rom", enabled="no")
