"""The folder of a cloud: what `up` makes in it, for whom, and how a folder is known to be one.

Everything here is repeatable: what exists with the right content stays, so `up` may be interrupted anywhere. `.nacre-home` is written
first and proves that the folder is ours: only such a folder is ever wiped. Nothing outside the home changes except `/run/nacre` (mount
points, and the lock that `up` and `down` hold).
"""

import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import secrets
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nacre.cli.trouble import Trouble
from nacre.core.config import Config, Home

USER = "nacre"
SHARED = Path("/run/nacre")
PROOF = ".nacre-home"

_PRIVATE = ("db", "keys", "images", "run/node", "run/bells")
_OPTIONS = """\
# Options of this cloud, under upstream's names and sections. Read when a process starts: `nacre up` again applies a change.
# An unknown option is refused by name.

[DEFAULT]
# cpu_allocation_ratio = 4.0
# ram_allocation_ratio = 1.0
# disk_allocation_ratio = 1.0
# reserved_host_memory_mb = 512

[nacre]
port = 15000
hypervisor = "libvirt"

[libvirt]
# virt_type = "auto"          # auto: kvm where it really works, else qemu

[vnc]
# server_listen = "127.0.0.1" # guests' screens listen on TCP from port 5900 of their host, from their next start on
"""


def is_home(path: Path) -> bool:
    return (path / PROOF).is_file()


def owner() -> tuple[int, int]:
    """User and group id of the unprivileged user, made if absent. Raises Trouble."""
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
        done = subprocess.run([*command, USER], capture_output=True, text=True, timeout=60, check=False)
        try:
            entry = pwd.getpwnam(USER)
        except KeyError:
            raise Trouble(f"The system user {USER} cannot be made: {done.stderr.strip()}") from None
    return entry.pw_uid, grp.getgrgid(entry.pw_gid).gr_gid


def make(home: Home) -> None:
    """The folder and its subfolders. Raises Trouble when it is somebody else's folder."""
    path = home.path
    if path.exists() and not is_home(path) and any(path.iterdir()):
        raise Trouble(f"{path} is not empty and not a Nacre home: choose another folder with --home.")
    uid, gid = owner()
    claim(home)
    for name, mode in (("run", 0o755), ("hosts", 0o755), ("logs", 0o1770)):
        _folder(path / name, mode, (0, gid if name == "logs" else 0))
    for name in _PRIVATE:
        _folder(path / name, 0o700, (uid, gid))
    for folder in (SHARED, home.reach):
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
    toml = path / "nacre.toml"
    if not toml.exists():
        write(toml, _OPTIONS, 0o600)


def claim(home: Home) -> None:
    """The folder is a home from now on."""
    home.path.mkdir(parents=True, exist_ok=True)
    if not is_home(home.path):
        remember(home, {"format": 1, "made": int(time.time())})
        home.path.chmod(0o755)


def make_fake_hosts(home: Home, numbers: Iterable[int]) -> None:
    """Folders of pretended hosts; they belong to the unprivileged user, who plays them."""
    for number in numbers:
        _folder(home.path / "hosts" / str(number), 0o755, owner())


def make_stores(home: Home, config: Config) -> None:
    """Folders of the image service's further stores; one that is there stays as its owner made it."""
    for options in config.stores.values():
        folder = home.path / (options.filesystem_store_datadir or "")
        if not folder.exists():
            _folder(folder, 0o700, owner())


def _folder(path: Path, mode: int, own: tuple[int, int]) -> None:
    path.mkdir(exist_ok=True)
    os.chown(path, *own, follow_symlinks=False)
    path.chmod(mode)


def write(path: Path, content: str, mode: int, own: tuple[int, int] = (0, 0)) -> None:
    """Replaces a file at once; readers see the old or the new one."""
    if path.exists() and path.read_text() == content:
        return
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), *own)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def recall(home: Home) -> dict[str, object]:
    """What `up` remembers of this home."""
    try:
        found = json.loads((home.path / PROOF).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(home: Home, facts: dict[str, object]) -> None:
    write(home.path / PROOF, json.dumps({**recall(home), **facts}) + "\n", 0o644)


def cloud_mark(home: Home) -> str:
    """The same for one cloud wherever its home is: made of the key that wraps its other keys; empty while there is none."""
    try:
        return hashlib.sha256(b"nacre cloud " + (home.path / "keys" / "master.key").read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        return ""


def set_options(toml: Path, section: str, options: dict[str, object]) -> None:
    """Sets options that were given on the command line in the operator's file; everything else in it stays as it was written."""
    text = toml.read_text()
    for name, value in options.items():
        text = with_option(text, section, name, json.dumps(value))
    write(toml, text, 0o600)


def with_option(text: str, section: str, name: str, value: str) -> str:
    """The TOML `text` with `name = value` in `[section]`."""
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if re.match(r"\s*\[", line)]
    begin = next((number for number in heads if re.match(rf"\s*\[\s*{re.escape(section)}\s*\]", lines[number])), None)
    if begin is None:
        return "\n".join([*lines, "", f"[{section}]", f"{name} = {value}"]) + "\n"
    end = next((number for number in heads if number > begin), len(lines))
    for number in range(begin + 1, end):
        if re.match(rf"\s*{re.escape(name)}\s*=", lines[number]):
            lines[number] = f"{name} = {value}"
            break
    else:
        lines.insert(begin + 1, f"{name} = {value}")
    return "\n".join(lines) + "\n"


def without_option(text: str, section: str, name: str) -> str:
    """The TOML `text` without `name` in `[section]`."""
    kept, inside = [], False
    for line in text.splitlines():
        if re.match(r"\s*\[", line):
            inside = bool(re.match(rf"\s*\[\s*{re.escape(section)}\s*\]", line))
        if not (inside and re.match(rf"\s*{re.escape(name)}\s*=", line)):
            kept.append(line)
    return "\n".join(kept) + "\n"


def password(home: Home, user: str) -> str:
    """The password in `keystonerc_<user>`, a new one if there is none yet."""
    try:
        found = re.search(r"^export OS_PASSWORD='([^']+)'$", (home.path / f"keystonerc_{user}").read_text(), re.MULTILINE)
    except FileNotFoundError:
        found = None
    return found[1] if found else secrets.token_urlsafe(15)


@contextmanager
def exclusive(home: Home) -> Iterator[None]:
    """One `up` or `down` of a home at a time; the next waits. Where no home came of it, or none is left, the lock goes, too."""
    SHARED.mkdir(mode=0o755, exist_ok=True)
    path = SHARED / f"{home.mark}.lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(descriptor)
    try:
        yield
    finally:
        if not is_home(home.path):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                SHARED.rmdir()
        os.close(descriptor)
