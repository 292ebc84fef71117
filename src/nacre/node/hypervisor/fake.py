"""A hypervisor without guests: the contract, in memory, with an optional delay a verb.

With a `folder` each server is kept in a file of its own, so that an agent that is killed finds its guests running again, as with
the real one. `lose` and `turn_off` are what a person could do behind our back.
"""

import io
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from nacre.node.deadline import Deadline, NodeError
from nacre.node.hypervisor.driver import (
    Console,
    ConsoleKind,
    Copies,
    CpuUse,
    Diagnostics,
    DiskUse,
    ImageSpec,
    NicUse,
    PortSpec,
    Power,
    Resources,
    SeenAll,
    SeenDomain,
    SeenServer,
    ServerSpec,
    Wanted,
)


class Guest(msgspec.Struct):
    spec: ServerSpec
    power: Power = "shutdown"
    starts: int = 0
    disk: str = ""
    backup: str | None = None
    ports: tuple[str, ...] = ()


class FakeHypervisor:
    """Names itself `hostname`. `delay` in seconds is added to every verb that would touch a machine. `screen` is the unix socket that
    all guests' screens are, if somebody made one. `strays` (folders), `bases` and `foreign` domains are what a survey finds beside the guests."""

    def __init__(self, hostname: str, *, folder: Path | None = None, delay: float = 0, size: tuple[int, int, int] = (64, 262144, 4096)) -> None:
        self.hostname, self.folder, self.delay = hostname, folder, delay
        self.vcpus, self.memory_mb, self.disk_gb = size
        self.screen: Path | None = None
        self.strays: set[str] = set()
        self.bases: set[str] = set()
        self.foreign: list[SeenDomain] = []
        self._guests: dict[str, Guest] = {}
        self._lock = threading.Lock()
        self.hung: dict[str, str] = {}
        self._changed: Callable[[str], None] = lambda server_id: None

    def trouble(self) -> Mapping[str, str]:
        return dict(self.hung)

    def recover(self) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob("*.json"):
                self._guests[path.stem] = msgspec.json.decode(path.read_bytes(), type=Guest)

    def resources(self) -> Resources:
        with self._lock:
            specs = [guest.spec for guest in self._guests.values()]
        return Resources(
            vcpus=self.vcpus,
            memory_mb=self.memory_mb,
            memory_mb_used=sum(spec.memory_mb for spec in specs),
            disk_gb=self.disk_gb,
            disk_gb_used=sum(spec.root_gb + spec.ephemeral_gb for spec in specs),
            cpu_arch="x86_64",
            cpu_model="fake",
            hypervisor_type="fake",
            hypervisor_version=1000000,
            hypervisor_hostname=self.hostname,
            uptime=" 12:00:00 up 1 day,  0:00,  0 users,  load average: 0.00, 0.00, 0.00",
        )

    def servers(self) -> dict[str, SeenServer]:
        with self._lock:
            return {key: SeenServer(guest.power, guest.spec.domain) for key, guest in self._guests.items()}

    def ensure_image(self, image: ImageSpec, deadline: Deadline) -> int:
        self._take_time(deadline)
        return image.size or 1 << 30

    def prune(self, images: Collection[str]) -> None: ...

    @contextmanager
    def converted(self, image: ImageSpec, wanted: str, deadline: Deadline) -> Iterator[IO[bytes]]:
        self._take_time(deadline)
        yield io.BytesIO(f"{image.disk_format} as {wanted}".encode())

    def ensure_server(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer:
        self._take_time(deadline)
        with self._lock:
            guest = self._guests.setdefault(spec.id, Guest(spec))
            if guest.power not in ("running", "paused"):
                guest.spec, guest.ports = spec, tuple(port.mac_address for port in spec.ports)
                guest.disk = guest.disk or spec.image.image_id
            if power != "shutdown" and (guest.power not in ("running", "paused") or power == "running"):
                self._move(guest, power)
            self._keep(guest)
            return SeenServer(guest.power, spec.domain)

    def start_again(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer | None:
        return self.ensure_server(spec, power, deadline) if spec.id in self._guests else None

    def ensure_power(self, server_id: str, power: Wanted, deadline: Deadline, *, hard: bool = False, timeout: float = 60) -> Power:
        self._take_time(deadline)
        with self._lock:
            if power == "shutdown" and server_id not in self._guests:
                return "shutdown"
            guest = self._guest(server_id)
            if power == "suspended" and guest.power in ("shutdown", "crashed"):
                raise NodeError("a guest that is off cannot be suspended")
            self._move(guest, power)
            return guest.power

    def incarnation(self, server_id: str) -> str | None:
        with self._lock:
            guest = self._guests.get(server_id)
            return str(guest.starts) if guest is not None and guest.power in ("running", "paused") else None

    def reboot(self, server_id: str, before: str | None, deadline: Deadline, *, hard: bool, timeout: float) -> Power:
        self._take_time(deadline)
        with self._lock:
            guest = self._guest(server_id)
            if guest.power in ("shutdown", "suspended") or str(guest.starts) == before:
                self._move(guest, "shutdown")
                self._move(guest, "running")
            return guest.power

    def absent_server(self, server_id: str, deadline: Deadline) -> None:
        self._take_time(deadline)
        with self._lock:
            gone = self._guests.pop(server_id, None)
            if self.folder is not None:
                (self.folder / f"{server_id}.json").unlink(missing_ok=True)
        if gone is not None:
            self._changed(server_id)

    @contextmanager
    def snapshot(self, server_id: str, power: Power, deadline: Deadline) -> Iterator[IO[bytes]]:
        self._take_time(deadline)
        with self._lock:
            self._guest(server_id)
        yield io.BytesIO(struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 << 16, 1 << 16, 1, 0, 0) + b"\0" * (4 << 16))

    def ensure_copies(self, server_id: str, deadline: Deadline) -> Copies:
        """Pretended disks hold nothing."""
        self._take_time(deadline)
        return Copies(server_id)

    def absent_copies(self, server_id: str) -> None:
        pass

    def ensure_backup(self, server_id: str, deadline: Deadline) -> None:
        self._take_time(deadline)
        with self._lock:
            guest = self._off(server_id)
            guest.backup = guest.backup or guest.disk
            self._keep(guest)

    def restore_backup(self, server_id: str) -> None:
        with self._lock:
            guest = self._off(server_id)
            guest.disk, guest.backup = guest.backup or guest.disk, None
            self._keep(guest)

    def absent_backup(self, server_id: str) -> None:
        with self._lock:
            guest = self._guest(server_id)
            guest.backup = None
            self._keep(guest)

    def absent_disks(self, server_id: str) -> None:
        with self._lock:
            if server_id not in self._guests:
                return
            guest = self._off(server_id)
            guest.disk = ""
            self._keep(guest)

    def ensure_interface(self, server_id: str, port: PortSpec) -> None:
        with self._lock:
            guest = self._guest(server_id)
            guest.ports = tuple(dict.fromkeys((*guest.ports, port.mac_address)))
            self._keep(guest)

    def absent_interface(self, server_id: str, mac_address: str, deadline: Deadline) -> None:
        with self._lock:
            guest = self._guest(server_id)
            guest.ports = tuple(mac for mac in guest.ports if mac != mac_address)
            self._keep(guest)

    def _off(self, server_id: str) -> Guest:
        guest = self._guest(server_id)
        if guest.power in ("running", "paused"):
            raise NodeError("the guest is on")
        return guest

    def diagnostics(self, server_id: str) -> Diagnostics:
        with self._lock:
            guest = self._guest(server_id)
            if guest.power == "shutdown":
                raise NodeError("the guest is off")
            spec, memory = guest.spec, guest.spec.memory_mb << 10
            nics = tuple(NicUse(port.tap, port.mac_address) for port in spec.ports)
            return Diagnostics("libvirt", memory, memory, tuple(CpuUse(number, 0) for number in range(spec.vcpus)), nics, (DiskUse("vda"),))

    def console_log(self, server_id: str, lines: int | None) -> str:
        with self._lock:
            guest = self._guest(server_id)
            output = [f"{guest.spec.name} start {number + 1}\n" for number in range(guest.starts)]
        return "".join(output if lines is None else output[-lines:] if lines else [])

    def console(self, server_id: str, kind: ConsoleKind) -> Console:
        with self._lock:
            self._guest(server_id)
        if self.screen is None or kind != "vnc":
            raise NodeError(f"a guest of the fake hypervisor has no {kind} console")
        return Console(self.screen)

    def survey(self) -> SeenAll:
        with self._lock:
            domains = [SeenDomain(key, guest.spec.domain, guest.power, tuple(port.tap for port in guest.spec.ports))
                       for key, guest in self._guests.items()]  # fmt: skip
            folders = [{"id": key, "disk": bool(guest.disk)} for key, guest in self._guests.items()]
            folders += [{"id": key, "disk": True} for key in sorted(self.strays)]
            return SeenAll([*domains, *self.foreign], folders, [{"name": name, "users": []} for name in sorted(self.bases)])

    def set_aside(self, server_id: str) -> str:
        with self._lock:
            self.strays.discard(server_id)
        return f"_set_aside/{server_id}"

    def absent_base(self, name: str) -> None:
        with self._lock:
            self.bases.discard(name)

    def watch(self, changed: Callable[[str], None]) -> None:
        self._changed = changed

    def close(self) -> None:
        self._changed = lambda server_id: None

    def turn_off(self, server_id: str) -> None:
        """As `virsh destroy` behind our back."""
        with self._lock:
            self._move(self._guest(server_id), "shutdown")

    def lose(self, server_id: str) -> None:
        """As `virsh undefine` behind our back."""
        with self._lock:
            del self._guests[server_id]
        self._changed(server_id)

    def _take_time(self, deadline: Deadline) -> None:
        deadline.check()
        if self.delay:
            deadline.sleep(self.delay)

    def _guest(self, server_id: str) -> Guest:
        guest = self._guests.get(server_id)
        if guest is None:
            raise NodeError(f"there is no server {server_id} on this host")
        return guest

    def _move(self, guest: Guest, power: Power) -> None:
        on = guest.power in ("running", "paused")
        if power == guest.power:
            return
        guest.starts += power in ("running", "paused") and not on
        guest.power = power
        self._keep(guest)
        self._changed(guest.spec.id)

    def _keep(self, guest: Guest) -> None:
        if self.folder is not None:
            part = self.folder / f"{guest.spec.id}.part"
            part.write_bytes(msgspec.json.encode(guest))
            part.replace(self.folder / f"{guest.spec.id}.json")
