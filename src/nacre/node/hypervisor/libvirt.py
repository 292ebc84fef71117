"""Guests by libvirt.

Domains are libvirtd's children's business: this process only talks to it, and may die between any two calls. Each verb looks first
and does what is missing: disks (node/disks/file.py), the definition, the start. A domain that is on is never redefined; one that is
off is defined anew before it starts, so what changed in its spec takes effect.

One connection for all threads, with keep-alive: a libvirtd that hangs ends every call within twenty seconds, one that restarts is
found again by a thread of ours. Dialling has no limit of libvirt's, so a thread of its own does it and who needs the connection waits a
few seconds. Events come from libvirt's own loop, one thread a process, which nothing of ours may hold up: keep-alive is counted there.
Between the loss of a connection and the next one events are lost; `changed` is called once it is back.

What may race: the guest ends by itself (or by virsh) between our look and our act. Acts on a domain that is off raise
OPERATION_INVALID, which counts as "already so" where off was wanted.
"""

import logging
import os
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import libvirt

from nacre.core import config
from nacre.node.commands import CommandFailed, run
from nacre.node.deadline import Deadline, NodeError, Unreachable
from nacre.node.disks import copies
from nacre.node.disks import survey as files
from nacre.node.disks.file import COPIES, FileDisks
from nacre.node.hypervisor import copying, diagnostics, machine, probe, survey
from nacre.node.hypervisor.console_logs import ConsoleLogs
from nacre.node.hypervisor.domain_xml import Machine, console_of, domain_xml, nic_xml, screen_moved
from nacre.node.hypervisor.driver import (
    Console,
    ConsoleKind,
    Copies,
    Diagnostics,
    ImageSpec,
    PortSpec,
    Power,
    Resources,
    SeenAll,
    SeenServer,
    ServerSpec,
    Wanted,
)
from nacre.node.trace import noted
from nacre.node.trouble import pid_in, stopped

log = logging.getLogger(__name__)
_CONSOLE_LIMIT = 1 << 20
_ASK_AGAIN = 10.0
_DIAL = 5.0
_SLOW = 5.0
_ROOM = 64 << 20
_VIRTLOGD = Path("/run/virtlogd.pid")
_SWITCH = "to OVS bridge"  # what libvirt says when the switch takes no port
_LET_GO = 60.0
_POWERS: dict[int, Power] = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "shutdown",
    libvirt.VIR_DOMAIN_NOSTATE: "shutdown",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
}
_TO_DEFINE = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
_FORGET = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class _Events:
    """libvirt's event loop, one for the process."""

    _lock = threading.Lock()
    _started = False

    @classmethod
    def ensure(cls) -> None:
        with cls._lock:
            if not cls._started:
                libvirt.registerErrorHandler(lambda *_: None, None)
                libvirt.virEventRegisterDefaultImpl()
                threading.Thread(target=cls._loop, name="libvirt-events", daemon=True).start()
                cls._started = True

    @staticmethod
    def _loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()


@contextmanager
def _told(sentence: str) -> Iterator[None]:
    """libvirt's errors as ours: `sentence` for the user, libvirt's words for the operator."""
    try:
        yield
    except libvirt.libvirtError as error:
        passing = error.get_error_domain() == libvirt.VIR_FROM_RPC or _SWITCH in str(error)
        raise (Unreachable if passing else NodeError)(sentence, str(error)) from error


def power_of(state: int, reason: int) -> Power:
    if state == libvirt.VIR_DOMAIN_SHUTOFF and reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED:
        return "crashed"
    return _POWERS.get(state, "shutdown")


class _Dial:
    """One attempt to reach libvirtd, on a thread of its own."""

    def __init__(self, reach: Callable[[], None]) -> None:
        self.done, self.error = threading.Event(), ""
        self._reach = reach
        threading.Thread(target=self._run, name="libvirt-dial", daemon=True).start()

    def _run(self) -> None:
        try:
            self._reach()
        except libvirt.libvirtError as error:
            self.error = str(error)
        finally:
            self.done.set()


class Connection:
    """One connection to libvirtd that comes back by itself. `changed(server id)` tells of life cycle events, "" of a reconnection."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.changed: Callable[[str], None] = lambda server_id: None
        self._lock = threading.Lock()
        self._open: Any = None
        self._dial: _Dial | None = None
        self._closed = threading.Event()

    def get(self) -> Any:
        """The connection. Raises Unreachable while libvirtd does not answer."""
        with self._lock:
            if self._open is not None:
                return self._open
            if self._dial is None or self._dial.done.is_set():
                self._dial = _Dial(self._reach)
            dial = self._dial
        answered = dial.done.wait(_DIAL)
        with self._lock:
            if self._open is None:
                raise Unreachable("the hypervisor does not answer", dial.error if answered else f"libvirtd said nothing for {_DIAL:g} s")
            return self._open

    def _reach(self) -> None:
        """Raises libvirtError."""
        _Events.ensure()
        opened = libvirt.open(self.uri)
        opened.setKeepAlive(5, 3)
        opened.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._happened, None)
        opened.registerCloseCallback(self._lost, opened)
        with self._lock:
            self._open = opened

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            try:
                opened.unregisterCloseCallback()
                opened.close()
            except libvirt.libvirtError:
                log.debug("closing the connection to libvirtd failed", exc_info=True)

    def _happened(self, _connection: Any, domain: Any, _event: int, _detail: int, _opaque: None) -> None:
        self.changed(domain.UUIDString())

    def _lost(self, _connection: Any, reason: int, opened: Any) -> None:
        with self._lock:
            if self._open is not opened:
                return
            self._open = None
        if not self._closed.is_set():
            log.warning("the connection to libvirtd is lost (reason %d)", reason)
            threading.Thread(target=self._come_back, name="libvirt-again", daemon=True).start()

    def _come_back(self) -> None:
        while not self._closed.wait(0.5):
            try:
                self.get()
            except NodeError:
                continue
            log.info("libvirtd answers again")
            self.changed("")
            return


class LibvirtHypervisor:
    """Guests whose files lie in `instances`; `state` is a folder for what must be remembered between two lives."""

    def __init__(self, instances: Path, disks: FileDisks, options: config.Libvirt, vnc: config.Vnc, *, state: Path) -> None:
        self.vnc, self.console_logs = vnc, ConsoleLogs(instances)
        self.instances, self.disks, self.options, self.state = instances, disks, options, state
        self.connection = Connection("qemu:///system")
        self._asked: float | None = None
        self._silent = False

    def recover(self) -> None:
        self.disks.recover()
        self._go_on()
        log.info("guests will be of type %s", self.virt_type)
        threading.Thread(target=self._warm_up, name="libvirt-warm", daemon=True).start()

    def _warm_up(self) -> None:
        """libvirtd asks qemu what it can do when somebody first needs to know, for a second or two: let that not be a guest."""
        try:
            self.connection.get().getDomainCapabilities(None, "x86_64", None, self.virt_type, 0)
        except (libvirt.libvirtError, NodeError) as error:
            log.info("libvirtd could not be warmed up: %s", error)

    @cached_property
    def virt_type(self) -> str:
        if self.options.virt_type != "auto":
            return self.options.virt_type
        return "kvm" if probe.kvm_works(self.state / "kvm.json") else "qemu"

    @cached_property
    def _version(self) -> int:
        return int(self.connection.get().getVersion())

    def resources(self) -> Resources:
        with _told("the hypervisor does not answer"):
            return machine.resources(self.instances, self._version)

    def servers(self) -> dict[str, SeenServer]:
        self._asked, failed = time.monotonic(), True
        try:
            found = self._listed()
            failed = False
        finally:
            self._asked, self._silent = None, failed
        return found

    def trouble(self) -> dict[str, str]:
        asked = self._asked
        slow = asked is not None and time.monotonic() - asked > _SLOW
        found = {"libvirtd": "it does not answer"} if self._silent or slow else {}
        pid = pid_in(_VIRTLOGD)
        return found | ({"virtlogd": "it is stopped"} if pid is not None and stopped(pid) else {})

    def _listed(self) -> dict[str, SeenServer]:
        with _told("the hypervisor does not answer"):
            found = self.connection.get().getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0)
            saved = {domain.UUIDString() for domain in self.connection.get().listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)}
        for domain, stats in found:
            if (stats["state.state"], stats["state.reason"]) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
                self._resume(domain)
        powers = {domain.UUIDString(): (domain.name(), power_of(stats["state.state"], stats["state.reason"])) for domain, stats in found}
        return {
            server_id: SeenServer("suspended" if power == "shutdown" and server_id in saved else power, name)
            for server_id, (name, power) in powers.items()
            if name.startswith("instance-")
        }

    def _resume(self, domain: Any) -> None:
        """A guest that qemu paused because the disk was full goes on when there is room again."""
        seen = os.statvfs(self.instances)
        if seen.f_bavail * seen.f_frsize > _ROOM:
            log.warning("%s was paused by an error of its disk and goes on", domain.name())
            domain.resume()

    def ensure_image(self, image: ImageSpec, deadline: Deadline) -> int:
        return self.disks.cache.ensure(image, deadline)

    def prune(self, images: Collection[str]) -> None:
        domains = {Path(path).name for domain in self.survey().domains for path in domain.files}
        needed = {self.disks.cache.path(image_id).name for image_id in images} | files.bases_under_disks(self.instances) | domains
        for name in self.disks.cache.prune(needed):
            log.info("base %s was not needed any more", name)

    def converted(self, image: ImageSpec, wanted: str, deadline: Deadline) -> AbstractContextManager[IO[bytes]]:
        return self.disks.cache.converted(image, wanted, deadline)

    def ensure_server(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer:
        domain = self._find(spec.id)
        if domain is None or self.incarnation(spec.id) is None:
            self.disks.ensure(spec, deadline)
            deadline.check()
            with noted(f"libvirt: define {spec.domain}"), _told("the hypervisor does not accept the guest"):
                domain = self.connection.get().defineXML(domain_xml(spec, self._machine(), *self.disks.files(spec)))
            if power != "shutdown":
                self._start(domain, power)
        elif power == "running":
            self._start(domain, power)
        return SeenServer(self._power(domain), domain.name())

    def start_again(self, spec: ServerSpec, power: Wanted, deadline: Deadline) -> SeenServer | None:
        return self.ensure_server(spec, power, deadline) if self.disks.has_root(spec.id) else None

    def ensure_power(self, server_id: str, power: Wanted, deadline: Deadline, *, hard: bool = False, timeout: float = 60) -> Power:
        if power == "shutdown" and self._find(server_id) is None:
            return "shutdown"
        domain = self._known(server_id)
        if power == "shutdown":
            self._shut_down(domain, deadline, 0 if hard else timeout)
            self._forget_memory(domain)
        elif power == "suspended":
            self._suspend(domain)
        else:
            self._start(domain, power)
        return self._power(domain)

    def incarnation(self, server_id: str) -> str | None:
        domain = self._find(server_id)
        if domain is None:
            return None
        with _told("the hypervisor does not answer"):
            return str(domain.ID()) if domain.isActive() else None

    def reboot(self, server_id: str, before: str | None, deadline: Deadline, *, hard: bool, timeout: float) -> Power:
        domain = self._known(server_id)
        now = self.incarnation(server_id)
        if now is not None and now == before:
            self._shut_down(domain, deadline, 0 if hard else timeout)
        elif now is None and hard:
            self._forget_memory(domain)
        self._start(domain, "running")
        return self._power(domain)

    def absent_server(self, server_id: str, deadline: Deadline) -> None:
        folder = self.disks.folder(server_id)
        domain = self._find(server_id)
        if domain is not None:
            self._shut_down(domain, deadline, 0)
            with noted(f"libvirt: undefine {domain.name()}"), _told("the hypervisor does not forget the guest"), _already(libvirt.VIR_ERR_NO_DOMAIN):
                domain.undefineFlags(_FORGET)
        self.disks.absent(folder.name)

    @contextmanager
    def snapshot(self, server_id: str, power: Power, deadline: Deadline) -> Iterator[IO[bytes]]:
        """While the guest is paused qemu has written everything to the disk."""
        domain, folder = self._known(server_id), self.disks.folder(server_id)
        with _told("the guest's disk could not be read"):
            sources = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).findall("devices/disk/backingStore/source")
        base = Path(sources[-1].get("file", "/"))  # the rescue disk, if there is one, comes first
        with copies.scratch(folder) as target:
            try:
                if self._power(domain) == "running":
                    copies.paused(folder).touch()
                    self._start(domain, "paused")
                copies.flatten(folder / "disk", base, target, deadline)
            finally:
                if power == "running" and self._power(domain) == "paused":
                    self._start(domain, "running")
                copies.paused(folder).unlink(missing_ok=True)
            yield target

    def _go_on(self) -> None:
        """Guests that were paused to be read, and nobody reads them now."""
        for mark in self.instances.glob(f"*/{copies.PAUSED}"):
            try:
                domain = self._find(mark.parent.name)
                if domain is not None and self._power(domain) == "paused":
                    self._start(domain, "running")
            except NodeError as error:
                log.warning("guest %s stays paused: %s", mark.parent.name, error)
            else:
                mark.unlink(missing_ok=True)

    def ensure_copies(self, server_id: str, deadline: Deadline) -> Copies:
        folder, domain = self.disks.folder(server_id), self._find(server_id)
        if domain is None or not folder.exists():
            return Copies(str(folder / COPIES))
        with _told("the guest's disks could not be copied"):
            return copying.ensure(domain, folder, deadline)

    def absent_copies(self, server_id: str) -> None:
        copying.absent(self.disks.folder(server_id))

    def ensure_backup(self, server_id: str, deadline: Deadline) -> None:
        copies.ensure_backup(self._off(server_id), deadline)

    def restore_backup(self, server_id: str) -> None:
        copies.restore_backup(self._off(server_id))

    def absent_backup(self, server_id: str) -> None:
        copies.absent(self.disks.folder(server_id), copies.BACKUP)

    def absent_disks(self, server_id: str) -> None:
        folder = self._off(server_id)
        if folder.exists():
            copies.absent(folder, "disk", "disk.eph0", "disk.swap", "disk.rescue", "disk.config", copies.BACKUP)

    def ensure_interface(self, server_id: str, port: PortSpec) -> None:
        domain = self._known(server_id)
        for flag, active in ((libvirt.VIR_DOMAIN_AFFECT_CONFIG, False), (libvirt.VIR_DOMAIN_AFFECT_LIVE, True)):
            with _told("the interface could not be attached"):
                if active <= bool(domain.isActive()) and port.mac_address not in _macs(domain, active):
                    domain.attachDeviceFlags(nic_xml(port, self._machine()), flag)

    def absent_interface(self, server_id: str, mac_address: str, deadline: Deadline) -> None:
        domain = self._find(server_id)
        if domain is None:
            return
        with _told("the interface could not be detached"):
            found = _macs(domain, False).get(mac_address)
            if found is not None:
                domain.detachDeviceFlags(found, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
            patience, asked = Deadline(_LET_GO), 0
            while domain.isActive() and (found := _macs(domain, True).get(mac_address)) is not None:
                if patience.over():
                    raise NodeError("the guest does not let go of the interface")
                if asked % 25 == 0:
                    with _already(libvirt.VIR_ERR_OPERATION_FAILED):
                        domain.detachDeviceFlags(found, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                asked += 1
                deadline.sleep(0.2)

    def diagnostics(self, server_id: str) -> Diagnostics:
        with _told("the hypervisor does not answer"):
            domain = self._known(server_id)
            if not domain.isActive():
                raise NodeError("the guest is off")
            return diagnostics.diagnostics(domain)

    def console_log(self, server_id: str, lines: int | None) -> str:
        path = self.disks.folder(server_id) / "console.log"
        output = machine.tail(path, _CONSOLE_LIMIT)
        if len(output) < _CONSOLE_LIMIT:
            output = machine.tail(path.with_name("console.log.0"), _CONSOLE_LIMIT - len(output)) + output
        text = output.decode(errors="replace")
        return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:] if lines > 0 else [])

    def console(self, server_id: str, kind: ConsoleKind) -> Console:
        with _told("the hypervisor does not answer"):
            domain = self._known(server_id)
            at = console_of(domain.XMLDesc(), kind, self.vnc.dialled) if domain.isActive() else None
        if at is None:
            raise NodeError(f"the guest has no {kind} console while it is off")
        return Console(at, self.disks.folder(server_id) / "console.log" if kind == "serial" else None)

    def survey(self) -> SeenAll:
        with _told("the hypervisor does not answer"):
            return SeenAll(survey.domains(self.connection.get(), power_of), **files.files(self.instances))

    def set_aside(self, server_id: str) -> str:
        return files.set_aside(self.instances, server_id)

    def absent_base(self, name: str) -> None:
        files.absent_base(self.instances, name, [path for domain in self.survey().domains for path in domain.files])

    def watch(self, changed: Callable[[str], None]) -> None:
        self.console_logs.start()
        self.connection.changed = changed
        try:
            self.connection.get()
        except NodeError as error:
            log.warning("%s: %s", error, error.detail)

    def close(self) -> None:
        self.console_logs.stop()
        self._go_on()
        self.connection.close()

    def _machine(self) -> Machine:
        cpu_mode = self.options.cpu_mode or ("host-model" if self.virt_type == "kvm" else "maximum")
        try:
            datapath = run(["ovs-vsctl", "--timeout=5", "--if-exists", "get", "Bridge", "br-int", "datapath_type"], timeout=10)
        except CommandFailed as error:
            raise Unreachable("the switch's database does not answer", str(error)) from error
        return Machine(
            virt_type=self.virt_type,
            cpu_mode=None if cpu_mode == "none" else cpu_mode,
            cache="none" if machine.direct_io_works(self.instances) else "writeback",
            userspace_switch="netdev" in datapath,
            vnc_listen=self.vnc.server_listen,
        )

    def _off(self, server_id: str) -> Path:
        """The folder of a guest that is off. Raises NodeError when it is on."""
        if self.incarnation(server_id) is not None:
            raise NodeError("the guest is on")
        return self.disks.folder(server_id)

    def _suspend(self, domain: Any) -> None:
        with _told("the guest could not be suspended"):
            if domain.isActive():
                copying.let_go(domain)
                domain.managedSave(0)
            elif not domain.hasManagedSaveImage():
                raise NodeError("a guest that is off cannot be suspended")

    def _forget_memory(self, domain: Any) -> None:
        with _told("the guest's memory could not be forgotten"):
            if not domain.isActive() and domain.hasManagedSaveImage():
                domain.managedSaveRemove()

    def _find(self, server_id: str) -> Any:
        with _told("the hypervisor does not answer"):
            try:
                return self.connection.get().lookupByUUIDString(server_id)
            except libvirt.libvirtError as error:
                if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                    return None
                raise

    def _known(self, server_id: str) -> Any:
        domain = self._find(server_id)
        if domain is None:
            raise NodeError(f"there is no server {server_id} on this host")
        return domain

    def _power(self, domain: Any) -> Power:
        with _told("the hypervisor does not answer"):
            power = power_of(*domain.state()[:2])
            return "suspended" if power == "shutdown" and domain.hasManagedSaveImage() else power

    def _start(self, domain: Any, power: Wanted) -> None:
        """A guest that is off starts in `power`; one that is on is resumed or paused."""
        with noted(f"libvirt: {domain.name()} {power}"), _told("the guest could not be started"):
            state = power_of(*domain.state()[:2])
            if state == power:
                return
            if state == "suspended":
                domain.pMWakeup()
            elif not domain.isActive():
                moved = screen_moved(domain.XMLDesc(_TO_DEFINE), self.vnc.server_listen, self.disks.folder(domain.UUIDString()))
                if moved is not None:
                    domain = self.connection.get().defineXML(moved)
                domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if power == "paused" else 0)
            elif power == "running":
                domain.resume()
            else:
                domain.suspend()

    def _shut_down(self, domain: Any, deadline: Deadline, timeout: float) -> None:
        """Off: asked for `timeout` seconds (a paused guest cannot hear), then without asking."""
        asked, patience = 0.0, Deadline(timeout)
        with noted(f"libvirt: {domain.name()} shutdown"), _told("the guest could not be stopped"):
            while domain.isActive() and not patience.over() and power_of(*domain.state()[:2]) == "running":
                if patience.left() <= timeout - asked:
                    with _already(libvirt.VIR_ERR_OPERATION_INVALID):
                        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
                    asked += _ASK_AGAIN
                deadline.sleep(0.2)
            while domain.isActive():
                try:
                    domain.destroy()
                except libvirt.libvirtError as error:
                    if error.get_error_code() == libvirt.VIR_ERR_SYSTEM_ERROR:
                        log.warning("%s does not end yet: %s", domain.name(), error)
                    elif error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                        raise
                    deadline.sleep(0.2)


def _macs(domain: Any, active: bool) -> dict[str, str]:
    """The address of each interface -> its XML, of the running guest or of its definition."""
    whole = ET.fromstring(domain.XMLDesc(0 if active else libvirt.VIR_DOMAIN_XML_INACTIVE))
    found = ((nic.find("mac"), nic) for nic in whole.findall("devices/interface"))
    return {str(mac.get("address")): ET.tostring(nic, encoding="unicode") for mac, nic in found if mac is not None}


@contextmanager
def _already(code: int) -> Iterator[None]:
    """What was to be done had been done by somebody else."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != code:
            raise
