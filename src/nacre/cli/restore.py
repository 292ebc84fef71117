"""`nacre restore`: a cloud out of the file that `nacre backup` wrote, into a new home or over a stopped one of the same cloud.

Everything is unpacked beside what is there (`restore.part`) and read to its end before anything changes; then the database is settled by a job
of the unprivileged user (core/backup.py), the folder gets the name `restore.ready`, and its parts are moved to their places (swap.py).
From that name on the restore has happened: whoever comes next, `up` too, finishes it.

Nothing is destroyed. Files that are replaced, and images that the backup does not know, are set aside in the home. A server's disks that are
here stay as they are, and guests that run go on: the file's disks are for servers that have none here. Guests start when their
host's agent does, as after a reboot.
"""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from nacre.cli import alive, backup, down, layout, supervisor, swap
from nacre.cli.processes import all_numbers, host_name
from nacre.cli.trouble import Trouble, typed
from nacre.core import archive, schema
from nacre.core.archive import Manifest, Reader, Unusable
from nacre.core.config import Config, ConfigError, Home, load
from nacre.node.disks import overlay
from nacre.node.disks.image_cache import QEMU_USER
from nacre.node.disks.survey import BASES

STAGING, ASIDE = "restore.part", "set_aside"
_ID, _BASE, _HOST = (re.compile(text) for text in (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"[0-9a-f]{40}", r"[0-9]{1,3}"))
_DISK = re.compile(r"disk(\.[a-z0-9]+)?")
_LIMIT = 3600


@dataclass
class Found:
    """What was unpacked: `servers` by id: their host's number; `stayed`: whose disks were here already; `bases` by name: the hosts that
    need them; `images`: (store, id) whose data came or was here."""

    servers: dict[str, str] = field(default_factory=dict)
    stayed: set[str] = field(default_factory=set)
    bases: dict[str, set[str]] = field(default_factory=dict)
    images: set[tuple[str, str]] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)


def run(home: Home, file: Path) -> str:
    """What was done, in sentences. Raises Trouble: then nothing has changed."""
    if os.geteuid():
        raise Trouble("This needs root: type  sudo ./nacre restore")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with layout.exclusive(home):
        swap.finish(home)
        fresh = _fits(home)
        made = not home.path.exists()
        try:
            with Reader(file, schema.head()) as source:
                _same_cloud(home, source.manifest, fresh)
                found = _restore(home, source, fresh)
        except BaseException as error:
            _undo(home, fresh, made)
            if isinstance(error, Unusable):
                raise Trouble(f"{error}. Nothing has changed.") from error
            if isinstance(error, OSError):
                raise Trouble(f"{error.filename or home.path} cannot be written: {error.strerror}. Nothing has changed.") from error
            if isinstance(error, KeyboardInterrupt):
                raise Trouble("Interrupted: nothing has changed.") from None
            raise
        aside = swap.finish(home)
        for folder in backup.image_folders(home, load(home.path / "nacre.toml")).values():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(folder, *layout.owner())
    return _told(home, source.manifest, found, aside)


def _told(home: Home, manifest: Manifest, found: Found, aside: list[str]) -> str:
    told = [f"Restored into {home.path}: the cloud as it was on {manifest.made}, with {len(found.images)} images and"
            f" {'the disks of ' + str(len(found.servers)) if manifest.disks else 'without the disks of its'} servers."]  # fmt: skip
    if found.stayed:
        told.append(f"The disks of {len(found.stayed)} servers are here and were left as they are.")
    if aside:
        told.append(f"What was here before is in {aside[0]}: {', '.join(sorted(aside[1:]))}.")
    return " ".join([*told, f"Start it:  {typed('up', home.path)}"])


# Before anything is written


def _fits(home: Home) -> bool:
    """Whether the home is new. Raises Trouble when it cannot take a cloud."""
    if not layout.is_home(home.path):
        if home.path.exists() and any(entry.name != STAGING for entry in home.path.iterdir()):
            raise Trouble(f"{home.path} is not empty and not a Nacre home: choose another folder with --home.")
        return True
    roles = [role for role in down.roles(home) if alive.holder(home.path / "run", role) is not None]
    if roles:
        raise Trouble(f"The cloud in {home.path} runs: type  {typed('down', home.path)}  first (guests go on), or choose another --home.")
    return False


def _same_cloud(home: Home, manifest: Manifest, fresh: bool) -> None:
    here = "" if fresh else layout.cloud_mark(home)
    if here and here != manifest.cloud:
        raise Trouble(f"Another cloud is in {home.path}: choose another --home.")


def _undo(home: Home, fresh: bool, made: bool) -> None:
    """Leaves nothing of a restore that has not happened."""
    shutil.rmtree(home.path / STAGING, ignore_errors=True)
    if fresh and home.path.exists():
        for entry in list(home.path.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        with suppress(OSError):
            home.reach.rmdir()
    if made:
        with suppress(OSError):
            home.path.rmdir()


# Unpacking


def _restore(home: Home, source: Reader, fresh: bool) -> Found:
    """Up to the moment from which the restore has happened."""
    progress, part = backup.Progress(), home.path / STAGING
    shutil.rmtree(part, ignore_errors=True)
    home.path.mkdir(parents=True, exist_ok=True)
    part.mkdir(mode=0o711)
    part.chmod(0o711)
    found = Unpacking(home, part, progress).all(source)
    if not (part / backup.DATABASE).exists() or not (part / "keys" / "master.key").exists():
        raise Unusable(f"{source.path} is damaged: it holds no database or no keys")
    config = _configuration(home, part)
    if fresh:
        layout.claim(home)
        layout.make(home)
        (home.path / "nacre.toml").unlink()
    progress.say("database")
    _settle(home, source.manifest, found, config)
    moves, away = _plan(home, part, found)
    (part / swap.PLAN).write_text(json.dumps({"aside": f"{ASIDE}/{time.strftime('%Y%m%d-%H%M%S')}", "moves": moves, "away": away,
                                         "facts": _facts(home, found)}))  # fmt: skip
    os.sync()
    part.rename(home.path / swap.READY)
    return found


class Unpacking:
    """Members of a backup as files in `part`, which looks like a home; what is no file of a backup is refused."""

    def __init__(self, home: Home, part: Path, progress: backup.Progress) -> None:
        self.home, self.part, self.progress = home, part, progress
        self.found, self.sizes = Found(), dict[str, int]()
        self.disks: dict[str, dict[str, Any]] = {}
        self._members: Iterator[tuple[str, IO[bytes]]] = iter(())
        self._next: tuple[str, IO[bytes]] | None = None

    @cached_property
    def _folders(self) -> dict[str, Path]:
        return backup.image_folders(self.home, load(self.part / "nacre.toml"))

    def all(self, source: Reader) -> Found:
        """Raises Unusable, OSError."""
        self._members = source.members()
        self._step()
        while self._next is not None:
            name, file = self._next
            try:
                self._take(name, file)
            except (KeyError, ValueError, TypeError, AttributeError, ConfigError) as error:
                raise Unusable(f"{source.path} is damaged: {name} cannot be read") from error
        return self.found

    def _step(self) -> None:
        self._next = next(self._members, None)

    def _take(self, name: str, file: IO[bytes]) -> None:
        match name.split("/"):
            case [word] if word in (*backup.FILES, backup.FACTS):
                if word == backup.FACTS:
                    self.found.facts = dict(json.loads(file.read()))
                else:
                    self._file(name, file)
                self._step()
            case ["db", _] if name == backup.DATABASE:
                self._file(name, file)
                self._step()
            case ["keys" | "policy", _]:
                self._file(name, file)
                self._step()
            case ["hosts", number, "node", "tls", _] if _HOST.fullmatch(number):
                self._file(name, file)
                self._step()
            case ["images", store, image_id] if _ID.fullmatch(image_id):
                self.progress.say(f"image {image_id}")
                self.found.images.add((store, image_id))
                if not (self._folders[store] / image_id).exists():
                    self._file(name, file)
                self._step()
            case ["bases", base, "size"] if _BASE.fullmatch(base):
                self.sizes[base] = int(file.read())
                self._step()
                self._holed(f"bases/{base}", self.part / "bases" / base, self.sizes[base])
            case ["servers", server_id, backup.DISKS] if _ID.fullmatch(server_id):
                told = json.loads(file.read())
                self._step()
                self._server(server_id, str(told["host"]), told["disks"])
            case _:
                raise ValueError

    def _file(self, name: str, file: IO[bytes]) -> None:
        path = self.part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            shutil.copyfileobj(file, target, 1 << 20)
            self._keep(target)
            owner, mode = _owner(name)
            os.fchown(target.fileno(), *owner)
            os.fchmod(target.fileno(), mode)
        if name.startswith(("db/", "keys/")):
            path.parent.chmod(0o700)
            os.chown(path.parent, *layout.owner())

    def _keep(self, file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())

    def _runs(self, name: str) -> Iterator[tuple[int, bytes]]:
        while self._next is not None and self._next[0].rpartition("/")[0] == name:
            yield from archive.unpacked(self._next[1].read())
            self._step()

    def _holed(self, name: str, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            for offset, data in self._runs(name):
                target.seek(offset)
                target.write(data)
            target.truncate(size)
            self._keep(target)

    def _server(self, server_id: str, number: str, disks: dict[str, Any]) -> None:
        if not _HOST.fullmatch(number) or not all(_DISK.fullmatch(name) for name in disks):
            raise ValueError
        self.progress.say(f"disks of server {server_id}")
        self.found.servers[server_id] = number
        if (self.home.path / "hosts" / number / "instances" / server_id / "disk").exists():
            self.found.stayed.add(server_id)
            for name in disks:
                for _ in self._runs(f"servers/{server_id}/{name}"):
                    pass
            return
        folder = self.part / "hosts" / number / "instances" / server_id
        folder.mkdir(parents=True)
        folder.chmod(0o711)
        for name, disk in disks.items():
            base, size = disk.get("base"), int(disk["size"])
            if base is None:
                self._holed(f"servers/{server_id}/{name}", folder / name, size)
            else:
                self.found.bases.setdefault(base, set()).add(number)
                below = self.home.host(int(number)) / "instances" / BASES / base
                with (folder / name).open("xb") as target:
                    overlay.write(target, size, below, self._runs(f"servers/{server_id}/{name}"))
                    self._keep(target)
            (folder / name).chmod(0o600)


def _owner(name: str) -> tuple[tuple[int, int], int]:
    """Who owns a file of a home, and its mode."""
    if name.startswith("images/"):
        return layout.owner(), 0o640
    if name.startswith(("db/", "keys/")):
        return layout.owner(), 0o644 if name.endswith(".crt") else 0o600
    if name.startswith("keystonerc_"):
        return (int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0"))), 0o600
    return (0, 0), 0o644 if name == "ca.pem" or name.startswith("policy/") else 0o600


def _configuration(home: Home, part: Path) -> Config:
    """The backup's, for a database that is SQLite again, and with the hosts that the home has. Raises Unusable."""
    toml = part / "nacre.toml"
    try:
        layout.write(toml, layout.without_option(toml.read_text(), "database", "connection"), 0o600)
        config, here = load(toml), load(home.path / "nacre.toml")
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise Unusable(f"a configuration cannot be read: {error}") from error
    more = {"nodes": max(config.nacre.nodes, here.nacre.nodes), "joined": tuple(sorted({*config.nacre.joined, *here.nacre.joined}))}
    layout.set_options(toml, "nacre", {name: value for name, value in more.items() if value != getattr(config.nacre, name)})
    return load(toml)


def _settle(home: Home, manifest: Manifest, found: Found, config: Config) -> None:
    """Raises Unusable."""
    there = set(found.servers) | {path.parent.name for path in (home.path / "hosts").glob("*/instances/*/disk")}
    there |= {path.stem for path in (home.path / "hosts").glob("*/node/guests/*.json")}
    followed = [int(path.read_text() or 0) for path in (home.path / "hosts").glob("*/node/documents/epoch")]
    order = {"file": f"{STAGING}/{backup.DATABASE}", "when": manifest.made, "there": sorted(there), "epoch": max(followed, default=0),
             "hosts": [host_name(number) for number in all_numbers(config)]}  # fmt: skip
    done = subprocess.run(supervisor.command(home, "job", "settle-backup"), input=json.dumps(order), capture_output=True, text=True,
                          env=supervisor.ENVIRONMENT, cwd="/", timeout=_LIMIT, check=False)  # fmt: skip
    if done.returncode:
        raise Unusable(f"the database of the backup cannot be used: {done.stderr.strip().rpartition(chr(10))[2] or done.returncode}")


# Taking its place


def _plan(home: Home, part: Path, found: Found) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """((what in `part`, where to), (what goes out of the way, under which name)); places are in the home unless they say otherwise."""
    names = [*backup.FILES, "db", *backup.FOLDERS]
    moves = [(name, name) for name in names if (part / name).exists()]
    for pattern in ("hosts/*/instances/*", "hosts/*/node/tls"):
        moves += [(str(path.relative_to(part)),) * 2 for path in sorted(part.glob(pattern))]
    folders, away = backup.image_folders(home, load(part / "nacre.toml")), list[tuple[str, str]]()
    for store, folder in folders.items():
        moves += [(f"images/{store}/{path.name}", str(folder / path.name)) for path in sorted((part / "images" / store).glob("*"))]
        known = {image_id for named, image_id in found.images if named == store}
        away += [(str(path), f"images/{store}/{path.name}") for path in folder.glob("*") if _ID.fullmatch(path.name) and path.name not in known]
    for base, numbers in found.bases.items():
        for number in sorted(numbers):
            place = f"hosts/{number}/instances/{BASES}/{base}"
            if not (home.path / place).exists():
                moves.append((_base(part, base, number), place))
    return moves, away


def _base(part: Path, base: str, number: str) -> str:
    """A host's own name of a base's file."""
    name = f"bases/{base}.{number}"
    os.chown(part / "bases" / base, 0, pwd.getpwnam(QEMU_USER).pw_gid)
    (part / "bases" / base).chmod(0o640)
    os.link(part / "bases" / base, part / name)
    return name


def _facts(home: Home, found: Found) -> dict[str, Any]:
    kept: dict[str, Any] = {name: found.facts[name] for name in ("hypervisor", "on_host", "first_image") if name in found.facts}
    return kept | layout.recall(home) | {"database": "sqlite", "copy": ""}
