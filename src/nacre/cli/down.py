"""`nacre down`: stops our processes; guests and their hosts go on. `--guests` ends those too, `--wipe` leaves nothing of the home."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from nacre.cli import alive, hosts, layout, supervisor, units
from nacre.cli.trouble import Trouble
from nacre.core.config import Home
from nacre.node import commands
from nacre.sandbox.face import Host, HostError

_PATIENCE = 25.0
_GUEST_PATIENCE = 45.0


def run(home: Home, *, guests: bool = False, wipe: bool = False) -> str:
    """What was done, in one sentence. Raises Trouble."""
    if os.geteuid():
        raise Trouble("This needs root: type  sudo ./nacre down")
    if not home.path.exists() or (home.path.is_dir() and not any(home.path.iterdir())):
        return f"There is no cloud in {home.path}."
    if not layout.is_home(home.path):
        if wipe:
            raise Trouble(f"{home.path} is not a Nacre home: nothing of it is deleted. Name the right folder with --home.")
        return f"There is no cloud in {home.path}."
    with layout.exclusive(home):
        stopped = stop(home)
        known = hosts.known(home)
        ended = [host for host in known if host.running()] if guests or wipe else []
        left = _end(known, wipe=wipe) if guests or wipe else []
        others = f" Left alone, because others made it: {', '.join(left)}." if left else ""
        if wipe:
            units.stop(home, wipe=True)
            _wipe(home)
            return f"Wiped: nothing of {home.path} is left.{others}"
        if not stopped and not ended:
            return "Nothing was running."
        now = "guests and hosts are ended" if guests else "guests go on" if any(host.running() for host in known) else ""
        return f"Stopped{': ' + now if now else ''}.{others}"


def _end(known: list[Host], *, wipe: bool) -> list[str]:
    """Ends hosts; what is left of them because others made it. Raises Trouble."""
    left = []
    for host in known:
        try:
            if not wipe and host.running():
                shut_down_guests(host)
            left += host.stop(wipe=wipe)
        except HostError as error:
            raise Trouble(f"{error}. Type the same command again.") from error
    return left


def roles(home: Home) -> list[str]:
    """Every role that ever had a lock in this home, the supervisor first."""
    found = sorted(path.stem for path in (home.path / "run").glob("*.lock"))
    return sorted(found, key=lambda role: role != "up")


def stop(home: Home) -> bool:
    """Ends the supervisor, then whatever still runs; False if nothing did."""
    folder, found = home.path / "run", units.stop(home)
    if watched := alive.watch(folder, "up"):
        found = True
        alive.stop([watched[1]], _PATIENCE)
        os.close(watched[1])
    rest = [watched for role in roles(home) if (watched := alive.watch(folder, role))] + _unlocked(home)
    alive.stop([descriptor for _, descriptor in rest])
    for _, descriptor in rest:
        os.close(descriptor)
    return found or bool(rest)


def _unlocked(home: Home) -> list[tuple[int, int]]:
    """Processes of this home that have not got as far as their lock, by their arguments; they run this very program."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if ours(entry.joinpath("cmdline").read_bytes().split(b"\0"), home):
                descriptor = os.pidfd_open(int(entry.name))
                if ours(entry.joinpath("cmdline").read_bytes().split(b"\0"), home):
                    found.append((int(entry.name), descriptor))
                else:
                    os.close(descriptor)
    return found


def ours(arguments: list[bytes], home: Home) -> bool:
    """Whether these are the arguments of a process that `supervisor.command` started for `home`."""
    expected = [word.encode() for word in supervisor.command(home)]
    verbs = (b"api", b"worker", b"node", b"job", b"up")
    while arguments and not arguments[-1]:
        arguments = arguments[:-1]
    return (
        len(arguments) > 5
        and arguments[1] == b"-I"
        and arguments[2].endswith(b"/nacre")
        and arguments[3] in verbs
        and (arguments[3] != b"up" or arguments[4] == b"--supervise")
        and arguments[-2:] == expected[-2:]
    )


def shut_down_guests(host: Host) -> None:
    """Presses every guest's power button and waits a while; a guest that does not listen is switched off with its host."""
    deadline, asked = time.monotonic() + _GUEST_PATIENCE, set[str]()
    try:
        while names := set(host.guests()):
            for name in names - asked:
                commands.run(host.command(["virsh", "shutdown", name]))
            asked |= names
            if time.monotonic() > deadline:
                print(f"Switched off: {', '.join(sorted(names))} did not shut down within {_GUEST_PATIENCE:.0f} s.", flush=True)
                return
            time.sleep(0.3)
    except commands.CommandFailed as error:
        print(f"Guests of {host.name} are switched off: {error}", flush=True)


def _wipe(home: Home) -> None:
    inside = [point for point in _mounts() if point == home.reach or home.path in point.parents or home.reach in point.parents]
    if inside:
        raise Trouble(f"{inside[0]} is a mount point: unmount it, then type the same command again.")
    _empty(home.path)
    with suppress(OSError):
        home.path.rmdir()  # stays, empty, if it is a mount point
    with suppress(OSError):
        home.reach.rmdir()


def _empty(folder: Path) -> None:
    """Deletes what is in a home; the proof that it is one goes last, so that an interrupted wipe can be repeated. Raises Trouble."""
    try:
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == layout.PROOF):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise Trouble(f"{error.filename or folder} cannot be deleted: {error.strerror}. Correct that, then type the same command again.") from error


def _mounts() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]

