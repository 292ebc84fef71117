"""`nacre exec` and `nacre shell`: a command inside a host, as if typed on the machine.

The command is a child in the caller's own process group, so the terminal's signals, stops and sizes reach it directly. Here they are
ignored: when the command stops, this process stops itself, and the shell that continues the group continues both. What is sent to
this process alone is passed on. The child forks off with the host's pid namespace already chosen, joins the others and becomes the command: one
process, no relay, stdin and stdout are the caller's own. A shell with job control takes the terminal and cannot give it back to a
group outside its pid namespace; that is done here after its end.
"""

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

from nacre.sandbox import namespaces
from nacre.sandbox.face import Host

JOINED = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def run(host: Host, argv: Sequence[str], *, cwd: Path | None = None) -> int:
    """Run `argv` inside with the caller's environment, streams and folder (or `cwd`).

    Returns its exit status: 128+n for signal n, 127 when there is no such command, 126 when it cannot be run. To be called from the
    main thread. Raises SandboxError when the host is not running.
    """
    folder = str(cwd or _current_folder())
    sys.stdout.flush()
    sys.stderr.flush()
    with host.enter() as descriptor:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in FROM_TERMINAL}
        try:
            with namespaces.visiting(descriptor, namespaces.CLONE_NEWPID, "pid_for_children"):
                child = os.fork()
                if not child:
                    _default(number for number, handler in before.items() if handler != signal.SIG_IGN)
                    _become(argv, descriptor, folder)
            return _attend(child)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            _take_back_terminal()


def shell(host: Host) -> int:
    """An interactive shell in the host's folder; its exit status."""
    return run(host, [os.environ.get("SHELL") or "/bin/bash"], cwd=host.folder)


def _current_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _default(ignored_here: Iterable[int]) -> None:
    """What the command inherits: Python ignores two signals of its own accord."""
    for number in (*ignored_here, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _become(argv: Sequence[str], descriptor: int, folder: str) -> None:
    try:
        namespaces.setns(descriptor, JOINED)
        try:
            os.chdir(folder)
        except OSError as error:
            print(f"nacre: {folder}: {error.strerror} inside the host; in / instead", file=sys.stderr, flush=True)
            os.chdir("/")
        os.execvp(argv[0], list(argv))
    except FileNotFoundError:
        print(f"nacre: {argv[0]}: command not found", file=sys.stderr, flush=True)
        os._exit(NOT_FOUND)
    except BaseException as error:
        print(f"nacre: {argv[0]}: {error}", file=sys.stderr, flush=True)
        os._exit(NOT_EXECUTABLE)


def _attend(child: int) -> int:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            pass

    before = {number: signal.signal(number, pass_on) for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN}
    try:
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(child, signal.SIGCONT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _take_back_terminal() -> None:
    for descriptor in (0, 1, 2):
        try:
            foreground = os.tcgetpgrp(descriptor)
        except OSError:
            continue
        if not _group_exists(foreground):
            before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(descriptor, os.getpgrp())
            signal.signal(signal.SIGTTOU, before)
        return


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
