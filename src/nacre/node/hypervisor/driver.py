"""What the agent asks of a hypervisor.

Every verb names its server by id and may be repeated at any point: the agent can be killed between any two effects and the same call
comes again. Guests belong to the hypervisor, never to this process; ending or losing a driver leaves them as they are. Only
`absent_server` destroys anything.

The agent runs verbs of one server one after another and verbs of different servers in parallel; reads (`resources`, `servers`,
`console_log`, `console`, `incarnation`) may come at any time from any thread.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import msgspec

from nacre.node.deadline import Deadline

Power = Literal["running", "paused", "shutdown", "crashed", "suspended"]
Wanted = Literal["running", "paused", "shutdown", "suspended"]
ConsoleKind = Literal["vnc", "serial"]


class ImageSpec(msgspec.Struct, frozen=True):
    """An image as the control plane knows it. `size` in bytes; `hash_value` in hexadecimal."""

    image_id: str
    disk_format: str
    size: int | None = None
    hash_algo: str = "sha512"
    hash_value: str | None = None


class PortSpec(msgspec.Struct, frozen=True):
    """A port of a guest; the wires are somebody else's, the domain only names the tap."""

    id: str
    mac_address: str
    tap: str
    mtu: int | None = None


class ServerSpec(msgspec.Struct, frozen=True):
    """All that makes a guest. `number` gives the domain's name; `root_gb` 0 means the image's own size. `rescue`: the image that it
    starts from instead, with its own disk as the second one. `config_drive`: it has a small disk that tells it who it is. `metadata` is
    for people who read the domain: {"flavor": {"name", "memory_mb", ...} or a name, "owner": {"user_id", "user_name", ...}, "created_at"}."""

    id: str
    number: int
    name: str
    project_id: str
    vcpus: int
    memory_mb: int
    root_gb: int
    image: ImageSpec
    ephemeral_gb: int = 0
    swap_mb: int = 0
    ports: tuple[PortSpec, ...] = ()
    rescue: ImageSpec | None = None
    config_drive: bool = False
    metadata: dict[str, Any] = {}

    @property
    def domain(self) -> str:
        return f"instance-{self.number:08x}"


class SeenServer(msgspec.Struct, frozen=True):
    power: Power
    domain: str


class SeenDomain(msgspec.Struct, frozen=True):
    """A guest or anybody's domain, with the taps and files that it names."""

    id: str
    name: str
    power: Power
    taps: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class SeenAll(msgspec.Struct, frozen=True):
    """What is on this machine, whoever made it. `folders`: {"id", "disk": whether a root disk is there}; `bases`: {"name", "users"};
    `others`: paths of what is neither."""

    domains: list[SeenDomain]
    folders: list[dict[str, Any]] = []
    bases: list[dict[str, Any]] = []
    others: list[str] = []


class Resources(msgspec.Struct, frozen=True):
    """What this machine has and what is in use; `hypervisor_version` as libvirt counts: 7002022 is 7.2.22; `uptime` in the words of
    uptime(1)."""

    vcpus: int
    memory_mb: int
    memory_mb_used: int
    disk_gb: int
    disk_gb_used: int
    cpu_arch: str
    cpu_model: str
    hypervisor_type: str
    hypervisor_version: int
    hypervisor_hostname: str
    uptime: str


class Copied(msgspec.Struct, frozen=True):
    """A raw copy of a disk of `size` bytes; `base`: the name of the base that the disk lies over."""

    size: int
    base: str | None = None


class Copies(msgspec.Struct, frozen=True):
    """Copies of a guest's disks, of one moment, in `folder`, by the disks' names."""

    folder: str
    disks: dict[str, Copied] = {}


class Console(msgspec.Struct, frozen=True):
    """`at`: the unix socket of a screen or its address and port, or the terminal (a character device) of a serial line, whose output is
    also in `log`."""

    at: Path | tuple[str, int]
    log: Path | None = None


class CpuUse(msgspec.Struct, frozen=True):
    """`time` in nanoseconds."""

    id: int
    time: int


class NicUse(msgspec.Struct, frozen=True):
    name: str
    mac_address: str
    rx_octets: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_drop: int = 0
    tx_octets: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_drop: int = 0


class DiskUse(msgspec.Struct, frozen=True):
    name: str
    read_requests: int = 0
    read_bytes: int = 0
    write_requests: int = 0
    write_bytes: int = 0
    errors_count: int = -1


class Diagnostics(msgspec.Struct, frozen=True):
    """Memory in KiB."""

    driver: str
    memory_maximum: int
    memory_used: int
    cpus: tuple[CpuUse, ...]
    nics: tuple[NicUse, ...]
    disks: tuple[DiskUse, ...]


class Hypervisor(Protocol):
    """Verbs raise NodeError with a sentence for the user, or anything else for what nobody expected."""

    def recover(self) -> None:
        """Called once before all else: clears what an earlier process left half-made and takes over the guests that run."""

    def resources(self) -> Resources: ...

    def servers(self) -> dict[str, SeenServer]:
        """Every guest of ours on this machine, by server id, whether anybody wants it or not."""

    def ensure_image(self, image: ImageSpec, deadline: Deadline) -> int:
        """The image lies ready for guests; its virtual size in bytes."""

    def prune(self, images: Collection[str]) -> None:
        """What lies ready of images goes when no guest needs it, none of `images` is it, and it was not asked for lately."""

    def converted(self, image: ImageSpec, wanted: str, deadline: Deadline) -> AbstractContextManager[IO[bytes]]:
        """An image that is being imported (it has no hash yet) in the format `wanted`, gone with the context."""

    def ensure_server(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer:
        """Disks and domain exist, and a guest that was off is now in `power`. One that is on is left as it is, except that
        `running` resumes a paused one."""

    def start_again(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer | None:
        """After a boot of the machine: as ensure_server, but None if the guest's root disk is not here; never makes one."""

    def ensure_power(self, server_id: str, power: Wanted, deadline: Deadline, *, hard: bool = False, timeout: float = 60) -> Power:
        """`shutdown` asks the guest and takes its power away after `timeout` seconds (at once if `hard`); one that is not here is off.
        `suspended` keeps its memory on disk; `running` goes on from there."""

    def incarnation(self, server_id: str) -> str | None:
        """A token that differs for every start of this guest; None when it is off or unknown."""

    def reboot(self, server_id: str, before: str | None, deadline: Deadline, *, hard: bool, timeout: float) -> Power:
        """Off (as ensure_power) and on again; does nothing to a running guest whose incarnation is not `before` any more."""

    def absent_server(self, server_id: str, deadline: Deadline) -> None:
        """Domain, disks and folder are gone."""

    def snapshot(self, server_id: str, power: Power, deadline: Deadline) -> AbstractContextManager[IO[bytes]]:
        """The guest's root disk of one moment as a qcow2 without a backing file, gone with the context. A guest that runs is paused
        while it is read and then in `power` again."""

    def ensure_copies(self, server_id: str, deadline: Deadline) -> Copies:
        """Copies of all its disks, of one moment, in place of those before; the guest does not notice. None of a server that is not here."""

    def absent_copies(self, server_id: str) -> None: ...

    def ensure_backup(self, server_id: str, deadline: Deadline) -> None:
        """A copy of the root disk of a guest that is off lies beside it; one that is there stays as it is."""

    def restore_backup(self, server_id: str) -> None:
        """The copy, if there is one, is the root disk again. The guest must be off."""

    def absent_backup(self, server_id: str) -> None: ...

    def absent_disks(self, server_id: str) -> None:
        """The disks of a guest that is off are gone (a rebuild makes new ones)."""

    def ensure_interface(self, server_id: str, port: PortSpec) -> None:
        """The guest has this interface, now and at its next start."""

    def absent_interface(self, server_id: str, mac_address: str, deadline: Deadline) -> None:
        """It has not; a running guest must let go of it. Raises NodeError when it does not."""

    def diagnostics(self, server_id: str) -> Diagnostics:
        """What a guest that is on has used so far. Raises NodeError when it is off."""

    def console_log(self, server_id: str, lines: int | None) -> str:
        """What the guest wrote on its first serial line, the last `lines` of it; at most 1 MiB."""

    def console(self, server_id: str, kind: ConsoleKind) -> Console:
        """Where the guest's console is. Raises NodeError when it has none, as while it is off."""

    def survey(self) -> SeenAll:
        """Everything that is here; changes nothing."""

    def set_aside(self, server_id: str) -> str:
        """The folder of what is no server of ours lies elsewhere, whole; where."""

    def absent_base(self, name: str) -> None:
        """A base is gone. Raises NodeError when a disk or a domain needs it."""

    def watch(self, changed: Callable[[str], None]) -> None:
        """`changed(server id)` is called, from a thread of the driver's, within a second after a guest's power changed."""

    def trouble(self) -> Mapping[str, str]:
        """Daemon -> what is wrong with it, of those that guests need. Returns at once."""

    def close(self) -> None: ...
