"""`nacre up --supervise`: starts the processes of a cloud and starts them again when they die, for ever.

It first runs the jobs (`prepare`: the database; `host-<n>`: a sandbox host), and beside them `api` and `worker`, which wait for the jobs
they need. A service that ran for at least `YOUNG` seconds is started again at once; one that keeps dying younger waits 0.5, 1, 2, 4,
then 5 seconds. A service that an operator stopped (`held_back`) waits until SIGHUP tells to look again; SIGHUP ends all those pauses.

A node's host is made sure of before the node starts again, of host 1 first: it makes what the cables of all meet in. A node that the
control plane refuses (certificates.py) is not started until its host has joined anew.

Services are found by the locks they hold (alive.py) and watched through pidfds, never by the fact of being children: what a killed
supervisor left behind is taken over, and a service that was started twice by two supervisors refuses itself. `run/up.json` tells others
what is going on; nothing is decided from it but the counts of restarts, so a full disk makes it old and stops nobody.
"""

import errno
import hashlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from nacre.cli import alive, certificates, hosts
from nacre.cli.processes import ALREADY_RUNS, Gate, all_numbers
from nacre.core.config import Config, Home
from nacre.sandbox.face import Host, HostError

YOUNG = 1.0
LONGEST_PAUSE = 5.0
_FIRST = "host-1"
# Two arenas: with one for each thread, what a burst of requests has freed stays with the process.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "MALLOC_ARENA_MAX": "2"}
_log = logging.getLogger("nacre")


def pause_before_restart(ran: float, last_pause: float) -> float:
    """Seconds to wait before starting again what ran for `ran` seconds and had waited `last_pause` before that."""
    return 0.0 if ran >= YOUNG else min(max(2 * last_pause, 0.5), LONGEST_PAUSE)


def command(home: Home, *words: str) -> list[str]:
    """The arguments that run a verb of this very program on `home`."""
    return [sys.executable, "-I", str(Path(__file__).parents[1]), *words, "--home", str(home.path)]


def fingerprint(home: Home) -> str:
    """Program and options: processes with another one are replaced by `up`."""
    options = (home.path / "nacre.toml").read_bytes()
    return hashlib.sha256(b"\0".join((sys.executable.encode(), str(Path(__file__).parents[1]).encode(), options))).hexdigest()


class Service:
    """One role: what runs it now (`pid`, a pidfd), or when it is due. A job is a service that ends: exit status 0 is done."""

    def __init__(self, role: str, start: Callable[[int], subprocess.Popen[bytes]], *, job: bool = False) -> None:
        self.role, self.start, self.job = role, start, job
        self.pid, self.descriptor = 0, -1
        self.child: subprocess.Popen[bytes] | None = None
        self.born, self.due, self.pause = 0.0, 0.0, 0.0
        self.restarts, self.failures, self.done, self.trouble = 0, 0, False, ""

    @property
    def running(self) -> bool:
        return self.descriptor >= 0


class Supervisor:
    """`command(home, words...)` gives the arguments that run a verb."""

    def __init__(self, home: Home, config: Config, command: Callable[..., list[str]] = command) -> None:
        self.home, self.folder, self.command = home, home.path / "run", command
        self.fingerprint = fingerprint(home)
        self.poll = select.poll()
        self.ending = False
        self.hosts: dict[str, Host] = {}
        if config.nacre.hypervisor != "fake":
            self.hosts = {f"host-{number}": hosts.of(home, number) for number in all_numbers(config)}
        made = [Service("prepare", self._starter("job", "prepare"), job=True)]
        for role, host in self.hosts.items():
            made.append(Service(role, self._starter("job", "host", "--host", str(host.number)), job=True))
            made.append(Service(f"node-{host.number}", self._node_starter(host)))
        made += [Service(word, self._starter(word)) for word in ("api", "worker", *(() if self.hosts else ("node",)))]
        self.services = {service.role: service for service in made}

    # Starting

    def _starter(self, *words: str) -> Callable[[int], subprocess.Popen[bytes]]:
        def start(output: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(self.command(self.home, *words), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                    env=ENVIRONMENT, cwd="/", start_new_session=True)  # fmt: skip

        return start

    def _node_starter(self, host: Host) -> Callable[[int], subprocess.Popen[bytes]]:
        def start(output: int) -> subprocess.Popen[bytes]:
            return host.spawn(self.command(self.home, "node", "--host", str(host.number)), env=ENVIRONMENT, output=output)

        return start

    def _start(self, service: Service) -> None:
        """Takes over what already runs this role, else starts it."""
        service.born = time.monotonic()
        if not service.job and (found := alive.watch(self.folder, service.role)):
            service.pid, service.descriptor = found
            _log.info("%s runs already: pid %d", service.role, service.pid)
        else:
            try:
                if service.job:
                    Gate(self.home.path, service.role).close()
                output = self._errors(service)
                try:
                    service.child = service.start(output)
                finally:
                    os.close(output)
                service.pid, service.descriptor = service.child.pid, os.pidfd_open(service.child.pid)
            except (OSError, HostError, subprocess.SubprocessError) as error:
                self._failed(service, str(error))
                return
            _log.info("%s started: pid %d", service.role, service.pid)
        self.poll.register(service.descriptor, select.POLLIN)

    def _errors(self, service: Service) -> int:
        """Where a process writes that cannot log: a crash of the interpreter, a message before the log is open."""
        path = self.home.path / "logs" / f"{service.role}.err"
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def _last_words(self, service: Service) -> str:
        with suppress(OSError):
            lines = (self.home.path / "logs" / f"{service.role}.err").read_text(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]
        return ""

    # Ending

    def _ended(self, service: Service) -> None:
        status = service.child.wait() if service.child else None
        self.poll.unregister(service.descriptor)
        os.close(service.descriptor)
        service.child, service.descriptor, service.pid = None, -1, 0
        if service.job and status == 0:
            self._job_done(service)
        elif status == ALREADY_RUNS:
            service.due = time.monotonic() + 0.2
        else:
            words = self._last_words(service)
            self._failed(service, f"{words} (exit status {status})" if words else f"ended with status {status}")
        self._store()

    def _failed(self, service: Service, trouble: str) -> None:
        now = time.monotonic()
        ran = now - service.born
        service.pause = pause_before_restart(0 if service.job else ran, service.pause)
        service.due = now + service.pause
        service.failures = service.failures + 1 if service.pause else 0
        service.restarts += not service.job
        service.trouble = trouble
        _log.warning("%s died after %.1f s, starts again in %.1f s: %s", service.role, ran, service.pause, trouble)
        host = self.services.get(service.role.replace("node-", "host-")) if service.role.startswith("node-") else None
        if host and not host.running:
            host.done, host.due = False, service.due

    def _job_done(self, job: Service) -> None:
        job.done, job.failures, job.pause, job.trouble = True, 0, 0.0, ""
        Gate(self.home.path, job.role).open()

    # The loop

    def run(self) -> None:
        """Until SIGTERM; then ends every service (not the hosts, not the guests)."""
        wake, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(told)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_end)
        signal.signal(signal.SIGHUP, lambda *_: None)
        self.poll.register(wake, select.POLLIN)
        self._remember()
        while not self.ending:
            for service in self.services.values():
                if self._may_start(service):
                    self._start(service)
                    self._store()
            self._settle()
            by_descriptor = {service.descriptor: service for service in self.services.values() if service.running}
            for descriptor, _ in self.poll.poll(self._timeout()):
                if descriptor == wake:
                    if signal.SIGHUP in os.read(wake, 512):
                        self._hurry()
                else:
                    self._ended(by_descriptor[descriptor])
        _log.info("ending: asked to")
        alive.stop([service.descriptor for service in self.services.values() if service.running])

    def _asked_to_end(self, _number: int, _frame: FrameType | None) -> None:
        self.ending = True

    def _hurry(self) -> None:
        for service in self.services.values():
            service.due = 0.0

    def _may_start(self, service: Service) -> bool:
        return self._waits(service) and service.due <= time.monotonic()

    def _settle(self) -> None:
        """What has lived long enough is no longer in trouble."""
        settled = [service for service in self.services.values() if service.running and service.failures and not service.job]
        for service in settled:
            if time.monotonic() - service.born >= YOUNG:
                service.failures, service.trouble = 0, ""
                self._store()

    def _waits(self, service: Service) -> bool:
        """Whether it is to be started when it is due: not while a node's host is not there, no host before the first."""
        host = self.services.get(service.role.replace("node-", "host-"), service)
        if service.role in self.hosts and service.role != _FIRST:
            host = self.services[_FIRST]
        here = not (service.running or service.done) and (host is service or host.done)
        return here and not held_back(self.home, service.role).exists() and not self._refused(service.role)

    def _refused(self, role: str) -> bool:
        number = role.removeprefix("node-")
        return number.isdigit() and certificates.refused(self.home, int(number)) is not None

    def _timeout(self) -> float | None:
        """Milliseconds until something is due; None: nothing is."""
        due = [service.due for service in self.services.values() if self._waits(service)]
        due += [service.born + YOUNG for service in self.services.values() if service.running and service.failures and not service.job]
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1 if due else None

    def _remember(self) -> None:
        """What the supervisor before this one knew. With api and worker running the database is prepared."""
        before = read_state(self.home)
        for role, service in self.services.items():
            service.restarts = before.get("services", {}).get(role, {}).get("restarts", 0)
        if all(alive.holder(self.folder, role) for role in ("api", "worker")):
            self.services["prepare"].done = True
            Gate(self.home.path, "prepare").open()
        for service in self.services.values():
            if service.job and not service.done:
                Gate(self.home.path, service.role).close()

    def _store(self) -> None:
        services = {
            service.role: {"pid": service.pid, "start": alive.start_ticks(service.pid) if service.pid else None, "done": service.done,
                           "restarts": service.restarts, "failures": service.failures, "trouble": service.trouble}
            for service in self.services.values()
        }  # fmt: skip
        state = {"fingerprint": self.fingerprint, "supervisor": os.getpid(), "services": services}
        part = self.folder / "up.json.part"
        try:
            part.write_text(json.dumps(state))
            part.replace(self.folder / "up.json")
        except OSError as error:
            _log.warning("up.json cannot be written: %s", error)


def held_back(home: Home, role: str) -> Path:
    """The file that keeps the supervisor from starting `role`."""
    return home.path / "run" / f"{role}.held"


def wake(home: Home) -> None:
    """Has the running supervisor look at what is held back."""
    if found := alive.watch(home.path / "run", "up"):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(found[1], signal.SIGHUP)
        os.close(found[1])


def read_state(home: Home) -> dict[str, Any]:
    """What the last supervisor wrote; empty when there was none."""
    try:
        found = json.loads((home.path / "run/up.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
