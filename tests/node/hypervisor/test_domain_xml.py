import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nacre.node.hypervisor.domain_xml import NOVA, Machine, console_of, domain_xml, screen_moved
from nacre.node.hypervisor.driver import ImageSpec, PortSpec, ServerSpec

FOLDER = Path("/run/nacre/12345678/hosts/1/instances/6c1f1b4e-0000-4000-8000-000000000001")
BASE = FOLDER.parent / "_base/0"
SPEC = ServerSpec(
    id="6c1f1b4e-0000-4000-8000-000000000001",
    number=26,
    name='a <b> & "c"',
    project_id="p1",
    vcpus=2,
    memory_mb=96,
    root_gb=1,
    image=ImageSpec("i1", "qcow2"),
    ports=(PortSpec("port-1", "fa:16:3e:00:00:01", "tapport-1", 1450), PortSpec("port-2", "fa:16:3e:00:00:02", "tapport-2")),
    metadata={"flavor": {"name": "m1.nano"}, "owner": {"user_id": "u1", "user_name": "admin", "project_name": "demo"}, "created_at": "T"},
)
TCG = Machine(virt_type="qemu", cpu_mode="maximum")


def parsed(spec: ServerSpec = SPEC, machine: Machine = TCG) -> ET.Element:
    return ET.fromstring(domain_xml(spec, machine, FOLDER, BASE))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "instance-0000001a"),
        ("uuid", SPEC.id),
        ("memory", "96"),
        ("vcpu", "2"),
        ("features/tcg/tb-cache", "32"),
        ("sysinfo/system/entry[@name='manufacturer']", "OpenStack Foundation"),
        ("sysinfo/system/entry[@name='product']", "OpenStack Nova"),
        ("sysinfo/system/entry[@name='serial']", SPEC.id),
        (f"metadata/{{{NOVA}}}instance/{{{NOVA}}}name", SPEC.name),
        (f"metadata/{{{NOVA}}}instance/{{{NOVA}}}creationTime", "T"),
        (f"metadata/{{{NOVA}}}instance/{{{NOVA}}}flavor/{{{NOVA}}}memory", "96"),
        (f"metadata/{{{NOVA}}}instance/{{{NOVA}}}owner/{{{NOVA}}}user", "admin"),
        (f"metadata/{{{NOVA}}}instance/{{{NOVA}}}owner/{{{NOVA}}}project", "demo"),
    ],
)
def test_text(path: str, value: str) -> None:
    assert parsed().findtext(path) == value


@pytest.mark.parametrize(
    ("path", "attributes"),
    [
        (".", {"type": "qemu"}),
        ("cpu", {"mode": "maximum"}),
        (f"metadata/{{{NOVA}}}instance/{{{NOVA}}}flavor", {"name": "m1.nano"}),
        ("devices/disk/driver", {"type": "qcow2", "cache": "none", "discard": "unmap"}),
        ("devices/disk/source", {"file": str(FOLDER / "disk")}),
        ("devices/disk/target", {"dev": "vda", "bus": "virtio"}),
        ("devices/interface[1]/mac", {"address": "fa:16:3e:00:00:01"}),
        ("devices/interface[1]/source", {"bridge": "br-int"}),
        ("devices/interface[1]/virtualport", {"type": "openvswitch"}),
        ("devices/interface[1]/virtualport/parameters", {"interfaceid": "port-1"}),
        ("devices/interface[1]/target", {"dev": "tapport-1"}),
        ("devices/interface[1]/mtu", {"size": "1450"}),
        ("devices/interface[1]/driver/host", {"csum": "off", "gso": "off", "tso4": "off"}),
        ("devices/interface[1]/driver/guest", {"csum": "off", "tso6": "off"}),
        ("devices/interface[2]/target", {"dev": "tapport-2"}),
        ("devices/serial", {"type": "pty"}),
        ("devices/serial/log", {"file": str(FOLDER / "console.log")}),
        ("devices/graphics/listen", {"type": "socket", "socket": str(FOLDER / "run/vnc.sock")}),
        ("devices/memballoon", {"model": "virtio"}),
    ],
)
def test_attributes(path: str, attributes: dict[str, str]) -> None:
    found = parsed().find(path)
    assert found is not None and attributes.items() <= found.attrib.items()


def changed(**other: Any) -> ServerSpec:
    return msgspec.structs.replace(SPEC, **other)


def test_kvm_has_no_translation_cache_and_a_kernel_switch_no_checksum_settings() -> None:
    found = parsed(machine=Machine(virt_type="kvm", cpu_mode="host-model", userspace_switch=False))
    assert found.get("type") == "kvm" and found.find("features/tcg") is None
    assert found.find("devices/interface/driver/host") is None and found.find("clock/timer[@name='hpet']") is not None
    assert parsed(machine=Machine(virt_type="qemu")).find("cpu") is None


def test_q35_has_room_for_what_is_plugged_in_later() -> None:
    found = parsed(machine=Machine("qemu", chipset="q35")).findall("devices/controller[@type='pci']")
    controllers = [(c.get("index"), c.get("model")) for c in found]
    assert controllers[0] == ("0", "pcie-root") and len([1 for _, model in controllers if model == "pcie-root-port"]) == 10


def test_more_disks_come_in_upstreams_order() -> None:
    disks = parsed(changed(ephemeral_gb=1, swap_mb=8)).findall("devices/disk")
    seen = [(disk.find("target").get("dev"), Path(disk.find("source").get("file")).name, disk.find("driver").get("type")) for disk in disks]  # type: ignore[union-attr,arg-type]
    assert seen == [("vda", "disk", "qcow2"), ("vdb", "disk.eph0", "raw"), ("vdc", "disk.swap", "raw")]


@pytest.mark.parametrize("metadata", [{}, {"flavor": "m1.nano"}, {"flavor": None, "owner": None}, {"owner": {"user_id": "u"}}])
def test_metadata_may_say_little(metadata: dict[str, Any]) -> None:
    assert parsed(changed(metadata=metadata)).find(f"metadata/{{{NOVA}}}instance/{{{NOVA}}}owner/{{{NOVA}}}project").get("uuid") == "p1"  # type: ignore[union-attr]


def test_a_name_that_xml_cannot_hold_is_written_as_it_can_be() -> None:
    assert parsed(changed(name="bad\x00\x1b\ud800 name")).findtext(f"metadata/{{{NOVA}}}instance/{{{NOVA}}}name") == "bad\ufffd\ufffd\ufffd name"


def test_a_screen_listens_on_a_socket_or_where_it_is_told_to() -> None:
    assert parsed().find("devices/graphics[@port]") is None
    graphics = parsed(machine=Machine(virt_type="qemu", vnc_listen="127.0.0.1")).find("devices/graphics")
    assert graphics is not None and graphics.attrib == {"type": "vnc", "autoport": "yes"}
    assert [listen.attrib for listen in graphics] == [{"type": "address", "address": "127.0.0.1"}]


def test_a_screen_moves_with_the_next_start_and_nothing_else_does() -> None:
    tcp = Machine(virt_type="qemu", cpu_mode="maximum", vnc_listen="127.0.0.1")
    for before, after in ((TCG, tcp), (tcp, TCG)):
        moved, wanted = screen_moved(domain_xml(SPEC, before, FOLDER, BASE), after.vnc_listen, FOLDER), domain_xml(SPEC, after, FOLDER, BASE)
        assert moved is not None and ET.canonicalize(moved, strip_text=True) == ET.canonicalize(wanted, strip_text=True)
        assert screen_moved(moved, after.vnc_listen, FOLDER) is None


RUNNING = """<domain><devices><serial type='pty'><source path='/dev/pts/7'/></serial>%s</devices></domain>"""
TCP = "<graphics type='vnc' port='5903' autoport='yes' listen='192.0.2.1'><listen type='address' address='192.0.2.1'/></graphics>"
SOCKET = "<graphics type='vnc' socket='/x/vnc.sock'><listen type='socket' socket='/x/vnc.sock'/></graphics>"


@pytest.mark.parametrize(
    ("graphics", "kind", "dialled", "at"),
    [
        (SOCKET, "vnc", "127.0.0.1", Path("/x/vnc.sock")),
        (TCP, "vnc", None, ("192.0.2.1", 5903)),
        (TCP, "vnc", "127.0.0.1", ("127.0.0.1", 5903)),
        (SOCKET, "serial", None, Path("/dev/pts/7")),
        ("", "vnc", None, None),
    ],
)
def test_where_a_console_of_a_running_guest_is(graphics: str, kind: str, dialled: str | None, at: object) -> None:
    assert console_of(RUNNING % graphics, kind, dialled) == at


@pytest.mark.parametrize(("drive", "chipset", "device", "target"), [
    ("iso9660", "pc", "cdrom", {"dev": "hda", "bus": "ide"}), ("iso9660", "q35", "cdrom", {"dev": "sda", "bus": "sata"}),
    ("vfat", "pc", "disk", {"dev": "vdd", "bus": "virtio"})])  # fmt: skip
def test_a_config_drive_is_a_cdrom_or_the_last_disk(drive: Any, chipset: str, device: str, target: dict[str, str]) -> None:
    spec = changed(ephemeral_gb=1, swap_mb=8)
    found = ET.fromstring(domain_xml(spec, Machine("qemu", chipset=chipset), FOLDER, BASE, None, drive)).findall("devices/disk")[-1]
    assert found.get("device") == device and found.find("target").attrib == target  # type: ignore[union-attr]
    assert found.find("source").get("file") == str(FOLDER / "disk.config") and found.find("driver").get("type") == "raw"  # type: ignore[union-attr]
    assert (found.find("readonly") is not None) == (device == "cdrom")
