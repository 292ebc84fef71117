"""`nacre backup`: the whole cloud in one file (core/archive.py), while it runs.

In it are the database as it was at one moment, keys, authorities, configuration, images, and of every server its disks as they were at one
moment each. This process is root and opens no database: a job of the unprivileged user does (core/backup.py), which also has the hosts
copy disks (node/hypervisor/copying.py); it is asked one question after another. Of a disk goes into the file what differs from its base,
and every base once.

What may race: images come and go. All files of images are held open before and after the database is copied, so every image that the copy
names is there, whatever happens to its name; only one that came and went in between makes the copy be taken again.
"""

import fcntl
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from nacre.cli import alive, layout, supervisor
from nacre.cli.processes import all_numbers, host_name
from nacre.cli.trouble import Trouble, typed
from nacre.core import backup as backups
from nacre.core.archive import Manifest, Unusable, Writer
from nacre.core.config import Config, ConfigError, Home, load
from nacre.node.disks import ranges
from nacre.node.disks.survey import BASES

FILES = ("ca.key", "ca.pem", "nacre.toml", "keystonerc_admin", "keystonerc_demo")
FOLDERS = ("keys", "policy")
FACTS, DATABASE, DISKS = "home.json", "db/nacre.db", "disks.json"
SLOW = 2.0
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOOKS = 3


class Progress:
    """Says what is being done, once it has been slow."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    def say(self, what: str) -> None:
        if time.monotonic() - self.begun > SLOW:
            print(f"  {what} ...", file=sys.stderr, flush=True)


def run(home: Home, file: Path, *, disks: bool) -> str:
    """What was done, in a sentence. Raises Trouble: then no file is left."""
    config = _checked(home, disks)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = Progress()
    try:
        with _alone(home), Conversation(home) as job, ExitStack() as held:
            images = Images(image_folders(home, config), held)
            told = _snapshot(job, images, progress)
            hosts = _hosts(home, config, told["servers"]) if disks else {}
            with Writer(file.absolute(), _manifest(home, told, disks)) as out:
                _state(home, out)
                for store, image_id in images.named(told):
                    progress.say(f"image {image_id}")
                    content = images.files[store, image_id]
                    out.add_file(f"images/{store}/{image_id}", content, os.fstat(content.fileno()).st_size)
                count = _servers(home, job, out, hosts, progress)
                size = out.finish()
    except Unusable as error:
        raise Trouble(f"{error}. Nothing is left of this backup.") from error
    except OSError as error:
        raise Trouble(f"{error.filename or file}: {error.strerror}. Nothing is left of this backup.") from error
    except KeyboardInterrupt:
        raise Trouble("Interrupted: nothing is left of this backup.") from None
    for _, image_id in images.missing(told):
        print(f"Image {image_id} has no data in this cloud, so it has none in the backup.", file=sys.stderr)
    servers = f"{len(told['servers'])} servers with {count} disks" if disks else f"{len(told['servers'])} servers without their disks"
    return (f"Backed up to {file}: the database, {len(images.named(told))} images, {servers};"
            f" {size / 1e6:.1f} MB in {time.monotonic() - progress.begun:.1f} s. It holds every key and password of the cloud.")  # fmt: skip


def _checked(home: Home, disks: bool) -> Config:
    if os.geteuid():
        raise Trouble("This needs root: type  sudo ./nacre backup")
    if not layout.is_home(home.path):
        raise Trouble(f"There is no cloud in {home.path}: name its folder with --home.")
    try:
        config = load(home.path / "nacre.toml")
    except ConfigError as error:
        raise Trouble(f"{error}. Correct it first.") from error
    if disks and alive.holder(home.path / "run", "api") is None:
        raise Trouble(f"The cloud does not run, so no host can copy disks: type  {typed('up', home.path)}  first, or add  --no-disks")
    if not config.database.connection and not (home.path / "db" / "nacre.db").exists():
        raise Trouble(f"This cloud has no state yet: type  {typed('up', home.path)}")
    return config


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One backup of a home at a time."""
    with (home.path / "run" / "backup").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Trouble(f"Another backup of {home.path} is under way.") from None
        yield


class Conversation:
    """With the job that may open the database. It ends with the context, and cleans up what it had begun."""

    def __init__(self, home: Home) -> None:
        self.home = home
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(supervisor.command(home, "job", "backup"), stdin=pipe, stdout=pipe, stderr=pipe, text=True,
                                        env=supervisor.ENVIRONMENT, cwd="/", start_new_session=True)  # fmt: skip

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def ask(self, what: str, **more: str) -> Any:
        """Raises Trouble with the reason."""
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        try:
            print(json.dumps({"what": what, **more}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            words = self.process.stderr.read().strip().rpartition("\n")[2]
            raise Trouble(f"The backup cannot go on: {words or 'its job has ended'}. Nothing is left of it. More: "
                          f" {typed('logs', self.home.path)} up")  # fmt: skip
        answer = json.loads(line)
        if "refused" in answer:
            raise Trouble(f"The backup cannot be made: {answer['refused']}. Nothing is left of it.")
        return answer["told"]


def image_folders(home: Home, config: Config) -> dict[str, Path]:
    """The folders of stores of files."""
    kept = {name: config.stores.get(name) for name, kind in config.backends.items() if kind == "file"}
    return {name: home.path / ((options and options.filesystem_store_datadir) or "images") for name, options in kept.items()}


class Images:
    """The files of images, held open; by store and id."""

    def __init__(self, folders: dict[str, Path], held: ExitStack) -> None:
        self.folders, self.held = folders, held
        self.files: dict[tuple[str, str], IO[bytes]] = {}
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def look(self) -> None:
        """What is there now takes the place of what was there before; what is not there any more stays held."""
        for store, folder in self.folders.items():
            for entry in list(folder.iterdir()) if folder.is_dir() else ():
                before = self.files.get((store, entry.name))
                if _ID.fullmatch(entry.name):
                    try:
                        file = opened(entry)
                    except FileNotFoundError:
                        continue
                    if before is not None and os.path.sameopenfile(before.fileno(), file.fileno()):
                        file.close()
                    else:
                        self.files[store, entry.name] = self.held.enter_context(file)

    def named(self, told: Any) -> list[tuple[str, str]]:
        """What the database names and is held."""
        return [(store, image_id) for store, image_id in told["images"] if (store, image_id) in self.files]

    def missing(self, told: Any) -> list[tuple[str, str]]:
        return [(store, image_id) for store, image_id in told["images"] if store in self.folders and (store, image_id) not in self.files]


def opened(path: Path) -> IO[bytes]:
    """A plain file in a folder that others may write."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Unusable(f"{path} is no plain file")
    return file


def _snapshot(job: Conversation, images: Images, progress: Progress) -> Any:
    told = None
    for _ in range(_LOOKS):
        images.look()
        progress.say("database")
        told = job.ask("snapshot")
        images.look()
        if not images.missing(told):
            break
    return told


def _manifest(home: Home, told: Any, disks: bool) -> Manifest:
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Manifest(program=Path(supervisor.__file__).parents[2].name, schema=told["schema"], cloud=layout.cloud_mark(home), made=made, disks=disks)


def _state(home: Home, out: Writer) -> None:
    paths = [home.path / name for name in FILES]
    paths += [path for name in FOLDERS if (home.path / name).is_dir() for path in sorted((home.path / name).iterdir())]
    paths += sorted((home.path / "hosts").glob("*/node/tls/*"))
    for path in paths:
        if path.is_file() and not path.name.endswith(".part"):
            with opened(path) as file:
                out.add(str(path.relative_to(home.path)), file.read())
    out.add(FACTS, json.dumps(layout.recall(home)).encode())
    with opened(home.path / "db" / backups.FILE) as file:
        out.add_file(DATABASE, file, os.fstat(file.fileno()).st_size)


# Disks


def _hosts(home: Home, config: Config, servers: list[dict[str, str]]) -> dict[str, tuple[str, Path]]:
    """server -> (its host, the host's folder of servers). Raises Trouble when one is on another machine."""
    if config.nacre.hypervisor == "fake":
        return {}
    here = {host_name(number): home.path / "hosts" / str(number) / "instances" for number in all_numbers(config)}
    for server in servers:
        if server["host"] not in here:
            raise Trouble(f"Server {server['id']} is on host {server['host']}, which is not on this machine: add  --no-disks")
    return {server["id"]: (server["host"], here[server["host"]]) for server in servers}


def _servers(home: Home, job: Conversation, out: Writer, hosts: dict[str, tuple[str, Path]], progress: Progress) -> int:
    """How many disks there are."""
    bases, count = set[str](), 0
    for number, (server_id, (host, instances)) in enumerate(hosts.items(), 1):
        progress.say(f"disks of server {server_id} ({number} of {len(hosts)})")
        copied = job.ask("copy", host=host, server_id=server_id)
        if copied["disks"]:
            place = instances / server_id / Path(copied["folder"]).name
            for name in sorted({disk["base"] for disk in copied["disks"].values() if disk["base"]} - bases):
                _base(out, instances / BASES / name)
                bases.add(name)
            out.add(f"servers/{server_id}/{DISKS}", json.dumps({"host": instances.parent.name, "disks": copied["disks"]}).encode())
            for name, disk in copied["disks"].items():
                _disk(out, f"servers/{server_id}/{name}", place / name, (instances / BASES / disk["base"]) if disk["base"] else None)
            count += len(copied["disks"])
        job.ask("let_go")
    return count


def _base(out: Writer, path: Path) -> None:
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        out.add(f"bases/{path.name}/size", str(size).encode())
        out.add_holed(f"bases/{path.name}", ranges.differing(file, None, size))


def _disk(out: Writer, name: str, path: Path, base: Path | None) -> None:
    with ExitStack() as held:
        file = held.enter_context(opened(path))
        below = held.enter_context(opened(base)) if base is not None else None
        out.add_holed(name, ranges.differing(file, below, os.fstat(file.fileno()).st_size))
