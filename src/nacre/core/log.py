"""Logs: one JSON object a line, one file a service.

A line goes to `logs/<service>.log`: the service that a logger is named after (`nacre.compute.tasks` -> compute), else the one named
by `extra={"service": ...}`, else the process (`api`, `worker`, `node`, `up`). Several processes append to one file, so a line is one
`write` to a descriptor opened for appending. Whoever finds its file too large renames it to `.1` under a lock; the others notice at
their next line that the name leads to another file and open that. The folder has the sticky bit: root's files cannot be replaced by
the unprivileged processes, and root follows no link they may have left.

Logging fails nobody: lines that a full or broken disk does not take are lost, and counted in the first line that it takes again. A line
of which it took a part is ended there, so that the next one is whole.
"""

import errno
import fcntl
import json
import logging
import os
import stat
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from pathlib import Path

SERVICES = frozenset(
    ("identity", "image", "placement", "compute", "network", "volume", "object_store", "orchestration", "telemetry", "load_balancer",
     "dashboard")
)
LIMIT = 32 * 1024 * 1024

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_ENCODER = json.JSONEncoder(default=str, ensure_ascii=False)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "service", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, service, request_id, message; then what `extra` brought, and the trace."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process
        self._second = 0, ""

    def format(self, record: logging.LogRecord) -> str:
        second, moment = self._second
        if second != int(record.created):
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            self._second = int(record.created), moment
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.created % 1 * 1e6):06d}Z",
            "level": record.levelname,
            "service": service_of(record, self.process),
            "request_id": request_id.get(),
            "message": record.getMessage(),
            "process": self.process,
            "pid": os.getpid(),
            "logger": record.name,
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD and key not in line)
        if record.exc_info and record.exc_info[0]:
            line["trace"] = "".join(traceback.format_exception(*record.exc_info))
        return _ENCODER.encode(line)


def service_of(record: logging.LogRecord, process: str) -> str:
    named = str(getattr(record, "service", "")).replace("-", "_")
    if named in SERVICES:
        return named
    first, _, rest = record.name.partition(".")
    word = rest.partition(".")[0]
    return word if first == "nacre" and word in SERVICES else process


class ServiceFiles(logging.Handler):
    """Writes each line to the file of its service in `folder`."""

    def __init__(self, folder: Path, process: str, limit: int = LIMIT) -> None:
        super().__init__()
        self.folder, self.process, self.limit = folder, process, limit
        self.files: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self._torn: set[str] = set()
        self.setFormatter(JsonLines(process))

    def emit(self, record: logging.LogRecord) -> None:
        service = service_of(record, self.process)
        try:
            line = self.format(record)
        except Exception:
            return self.handleError(record)
        try:
            self._write(service, line)
        except OSError:
            self.lost[service] = self.lost.get(service, 0) + 1

    def _write(self, service: str, line: str) -> None:
        file, lost = self._file(service), self.lost.get(service, 0)
        if lost:
            line = self.format(logging.makeLogRecord({"name": "nacre.log", "levelname": "WARNING", "msg": "lines lost before this one: %d",
                                                      "args": (lost,)})) + "\n" + line  # fmt: skip
        whole = ("\n" * (service in self._torn) + line + "\n").encode(errors="replace")
        written = os.write(file, whole)
        if written < len(whole):
            self._torn.add(service)
            raise OSError(errno.ENOSPC, "the line does not fit")
        self._torn.discard(service)
        self.lost.pop(service, None)

    def _file(self, service: str) -> int:
        path, held = self.folder / f"{service}.log", self.files.get(service)
        if held is not None:
            seen = os.fstat(held)
            if seen.st_size > self.limit:
                self._rotate(path, seen)
            if _same(path, seen):
                return held
            os.close(held)
        self.files[service] = _open(path)
        return self.files[service]

    def _rotate(self, path: Path, seen: os.stat_result) -> None:
        lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _same(path, seen):
                path.rename(path.with_suffix(".log.1"))
        except PermissionError:
            pass  # another user's file: its owner rotates it
        finally:
            os.close(lock)

    def close(self) -> None:
        for descriptor in self.files.values():
            os.close(descriptor)
        self.files.clear()
        super().close()


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return descriptor


def _same(path: Path, seen: os.stat_result) -> bool:
    try:
        now = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (seen.st_dev, seen.st_ino)


def setup(folder: Path, process: str, *, debug: bool = False) -> None:
    """From now on everything this process logs goes to `folder`; what nobody caught is logged as well."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # who looks these up for nothing: "Optimization" in
    logging._srcfile = None  # Python's Logging HOWTO
    root = logging.getLogger()
    root.handlers[:] = [ServiceFiles(folder, process)]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.captureWarnings(True)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    log = logging.getLogger("nacre")
    sys.excepthook = lambda kind, error, trace: log.critical("%s", error, exc_info=(kind, error, trace))
    threading.excepthook = lambda hook: log.error("thread %s died: %s", hook.thread and hook.thread.name, hook.exc_value,
                                                  exc_info=hook.exc_value)
