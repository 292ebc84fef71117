"""Process 1 of a sandbox host: starts the host's daemons, starts them again when they die, reaps everybody's orphans.

Guests and dnsmasq become its children when what started them dies. It must outlive every other process of ours, so it imports next
to nothing, takes no input after its start and never stops by itself: SIGKILL from outside ends it, and the kernel then ends everything
in its pid namespace.

Run as `python3 -I -S -E init.py SPEC`, SPEC being JSON: `{"state": path, "logs": folder, "daemons": [{"role", "argv"}]}`. After each
change it replaces the file `state`: `{"<role>": {"pid": pid in this namespace or 0, "restarts": n}}`.

A daemon that ran for at least a second is started again at once; one that keeps dying younger waits 0.5, 1, 2, 4, then 5 seconds.
SIGCHLD stays blocked except inside sigtimedwait, so none is lost between reaping and waiting.
"""

import json
import os
import signal
import sys
import time

YOUNG = 1.0
LONGEST_PAUSE = 5.0
LOG_LIMIT = 16 << 20
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


def pause_before_restart(ran: float, last_pause: float) -> float:
    """Seconds to wait before starting again a daemon which ran for `ran` seconds and had waited `last_pause` before that."""
    return 0.0 if ran >= YOUNG else min(max(2 * last_pause, 0.5), LONGEST_PAUSE)


class Daemon:
    def __init__(self, role: str, argv: list[str]) -> None:
        self.role, self.argv = role, argv
        self.pid, self.restarts = 0, 0
        self.started, self.due, self.pause = 0.0, 0.0, 0.0

    def start(self, logs: str, now: float) -> None:
        log = f"{logs}/{self.role}.log"
        try:
            if os.path.exists(log) and os.path.getsize(log) > LOG_LIMIT:
                os.replace(log, log + ".1")
            append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, append, 0o640),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
            defaults = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
            self.pid = os.posix_spawn(self.argv[0], self.argv, ENVIRONMENT, file_actions=actions, setsid=True, setsigmask=[], setsigdef=defaults)
            self.started = now
        except OSError as error:
            print(f"{self.role}: {error}", file=sys.stderr, flush=True)
            self.started = now
            self.ended(now)

    def ended(self, now: float) -> None:
        self.pid = 0
        self.restarts += 1
        self.pause = pause_before_restart(now - self.started, self.pause)
        self.due = now + self.pause


def write_state(path: str, daemons: list[Daemon]) -> None:
    try:
        with open(path + ".new", "w") as file:
            json.dump({daemon.role: {"pid": daemon.pid, "restarts": daemon.restarts} for daemon in daemons}, file)
        os.replace(path + ".new", path)
    except OSError as error:
        print(f"{path}: {error}", file=sys.stderr, flush=True)


def reap(daemons: list[Daemon], now: float) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        for daemon in daemons:
            if daemon.pid == pid:
                code = os.waitstatus_to_exitcode(status)
                print(f"{time.strftime('%F %T')} {daemon.role} ended: {code}", file=sys.stderr, flush=True)
                daemon.ended(now)


def main() -> None:
    spec = json.loads(sys.argv[1])
    daemons = [Daemon(entry["role"], entry["argv"]) for entry in spec["daemons"]]
    awaited = {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited | {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    os.chdir("/")
    os.umask(0o022)
    while True:
        now = time.monotonic()
        reap(daemons, now)
        for daemon in daemons:
            if not daemon.pid and daemon.due <= now:
                daemon.start(spec["logs"], now)
        write_state(spec["state"], daemons)
        waiting = [daemon.due for daemon in daemons if not daemon.pid]
        signal.sigtimedwait(awaited, max(0.0, min(waiting) - time.monotonic()) if waiting else 3600)


if __name__ == "__main__":
    main()
