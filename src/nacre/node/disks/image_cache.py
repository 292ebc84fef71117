"""Bases: the images that guests of this host start from, each a raw file `_base/<sha1 of the image id>`.

An image is fetched once, whoever asks: the fetch holds a lock on its `.part`, others wait for it and then find the base. Bytes are
hashed as they come; what does not match is thrown away before anything looks at it. Then an unprivileged child says what the file is
(inspection.py) and, unless that is raw already, another one converts it with `qemu-img -f <that format>`. Only a whole, synced, raw
file gets the base's name, and a base is never written again: guests' disks lie over it.

A `.part` whose lock is free belongs to nobody: `recover` removes it.

Beside a base lies its `.sum` (bases.py): what it was when it was made. A base that has become anything else is fetched again: the same
image gives the same bytes, so the disks over it are whole again. `prune` removes bases that nobody has used for long, and when the disk is
short sooner; what a disk or a domain needs, the caller says, stays.
"""

import fcntl
import hashlib
import json
import os
import pwd
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol

from nacre.node.commands import CommandFailed
from nacre.node.deadline import Deadline, NodeError
from nacre.node.disks import bases, confined
from nacre.node.hypervisor.driver import ImageSpec
from nacre.node.trace import noted

QEMU_USER = "libvirt-qemu"
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_INSPECTION = Path(__file__).with_name("inspection.py")
_HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_FLAT = ("raw", "gpt", "iso")
_QEMU_NAMES = {"vhd": "vpc", "gpt": "raw"}
_LARGEST = 16 << 40


class _Bytes(Protocol):
    def read(self, amount: int, /) -> bytes: ...


Fetch = Callable[[str], AbstractContextManager[_Bytes]]


class ImageCache:
    """Bases in `folder`; `fetch(image id)` opens the bytes of an image; `keep`: how long what nobody needs stays."""

    def __init__(self, folder: Path, fetch: Fetch, keep: bases.Keep = bases.Keep(86400.0, 0)) -> None:
        self.folder, self.fetch, self.keep = folder, fetch, keep

    def path(self, image_id: str) -> Path:
        return self.folder / hashlib.sha1(image_id.encode(), usedforsecurity=False).hexdigest()

    def recover(self) -> None:
        """Removes what an earlier process left half-made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        bases.recover(self.folder)
        for part in self.folder.glob("*.part"):
            with part.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                part.unlink(missing_ok=True)

    def ensure(self, image: ImageSpec, deadline: Deadline) -> int:
        """Makes sure of the base; its size in bytes. Raises NodeError with the reason why the image cannot be used."""
        base = self.path(image.image_id)
        bases.used(base)  # first of all, so that nothing prunes it meanwhile
        if not bases.sound(base, deadline):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._part(base, deadline) as part:
                if part is not None:
                    self._make(image, base, part, deadline)
                    bases.remember(base, deadline)
        return base.stat().st_size

    def prune(self, needed: Collection[str]) -> list[str]:
        """Removes bases that are not `needed` (names) any more; their names."""
        return bases.prune(self.folder, needed, self.keep) if self.folder.is_dir() else []

    @contextmanager
    def _part(self, base: Path, deadline: Deadline) -> Iterator[IO[bytes] | None]:
        """The locked, empty `.part`; None if the base was finished meanwhile. Whatever is left of it goes."""
        path = base.with_suffix(".part")
        while True:
            file = path.open("a+b")
            try:
                while not _locked(file):
                    deadline.sleep(0.05)
                if bases.sound(base, deadline):
                    yield None
                    return
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    break
            except BaseException:
                file.close()
                raise
            file.close()
        try:
            file.truncate(0)
            with path.open("r+b") as writer:
                yield writer
        finally:
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                path.unlink()
            file.close()

    def _make(self, image: ImageSpec, base: Path, part: IO[bytes], deadline: Deadline) -> None:
        self._download(image, part, deadline)
        found, virtual_size = self._inspect(image, part, deadline)
        if found in _FLAT:
            _publish(part, base.with_suffix(".part"), base)
            return
        raw = base.with_suffix(".raw.part")
        raw.unlink(missing_ok=True)
        with raw.open("w+b") as target:
            try:
                fcntl.flock(target, fcntl.LOCK_EX)
                self._convert(image, (found, virtual_size), part, target, deadline)
                _publish(target, raw, base)
            finally:
                raw.unlink(missing_ok=True)

    @contextmanager
    def converted(self, image: ImageSpec, wanted: str, deadline: Deadline) -> Iterator[IO[bytes]]:
        """An image that is being imported, in another format, in a file that goes with the context. It has no hash yet, and nobody has
        looked into it: an unprivileged child is the first to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as part, tempfile.TemporaryFile(dir=self.folder) as target:
            self._fetch(image, part, deadline)
            found, virtual_size = self._inspect(image, part, deadline)
            self._convert(image, (found, virtual_size), part, target, deadline, wanted=wanted)
            yield target

    def _download(self, image: ImageSpec, part: IO[bytes], deadline: Deadline) -> None:
        if image.hash_algo not in _HASHES or not image.hash_value:
            raise NodeError(f"image {image.image_id} has no hash by which it could be verified")
        found = self._fetch(image, part, deadline)
        if found != image.hash_value.lower():
            raise NodeError(f"image {image.image_id} is damaged: its {image.hash_algo} differs", f"it is {found}")

    def _fetch(self, image: ImageSpec, part: IO[bytes], deadline: Deadline) -> str:
        """Writes the image's bytes into `part`; their hash."""
        digest, size = hashlib.new(image.hash_algo or "sha512", usedforsecurity=False), 0
        try:
            with noted(f"fetch image {image.image_id}"), self.fetch(image.image_id) as source:
                while chunk := source.read(_CHUNK):
                    deadline.check()
                    digest.update(chunk)
                    size += len(chunk)
                    if image.size is not None and size > image.size:
                        break
                    _write(part, chunk)
        except (OSError, EOFError) as error:
            raise NodeError(f"image {image.image_id} could not be fetched", f"{type(error).__name__}: {error}") from error
        part.truncate(size)
        part.flush()
        if image.size is not None and size != image.size:
            raise NodeError(f"image {image.image_id} is damaged: not the {image.size} bytes that it should have", f"{size} bytes came")
        return digest.hexdigest()

    def _inspect(self, image: ImageSpec, part: IO[bytes], deadline: Deadline) -> tuple[str, int]:
        confined.readable(part)
        try:
            with _INSPECTION.open("rb") as script:
                argv = [sys.executable, "-I", confined.path_of(script), image.disk_format, confined.path_of(part)]
                verdict = json.loads(confined.run(argv, [script, part], deadline))
        except (CommandFailed, json.JSONDecodeError) as error:
            raise NodeError(f"image {image.image_id} could not be inspected", str(error)) from error
        if "refused" in verdict:
            raise NodeError(f"image {image.image_id}: {verdict['refused']}")
        if verdict["virtual_size"] > _LARGEST:
            raise NodeError(f"image {image.image_id}: a disk of {verdict['virtual_size']} bytes is too large")
        return verdict["format"], verdict["virtual_size"]

    def _convert(self, image: ImageSpec, shape: tuple[str, int], part: IO[bytes], target: IO[bytes], deadline: Deadline, *,
                 wanted: str = "raw") -> None:  # fmt: skip
        confined.writable(target)
        found, virtual_size = shape
        source = ["-f", _QEMU_NAMES.get(found, found), "-O", wanted, "-S", "64k", confined.path_of(part), confined.path_of(target)]
        try:
            confined.run(["qemu-img", "convert", *source], [part, target], deadline, largest_file=virtual_size + (64 << 20))
        except CommandFailed as error:
            raise NodeError(f"image {image.image_id} could not be converted: {_reason(error.stderr)}", str(error)) from error


def _reason(stderr: str) -> str:
    """Why qemu-img does not like the image, without the name by which it knew it."""
    last = stderr.strip().splitlines()[-1] if stderr.strip() else "qemu-img says nothing"
    return re.sub(r"(qemu-img: |Could not open |error while [\w ]+: |'/proc/self/fd/\d+': )", "", last)[:200]


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(part: IO[bytes], chunk: bytes) -> None:
    """Writes, or leaves a hole where there is nothing but zeros."""
    if chunk == _ZEROS[: len(chunk)]:
        part.seek(len(chunk), os.SEEK_CUR)
    else:
        part.write(chunk)


def _publish(file: IO[bytes], path: Path, base: Path) -> None:
    """`file` at `path` becomes the base: ours, readable by guests, whole sectors, on disk."""
    descriptor = file.fileno()
    if os.geteuid() == 0:
        os.fchown(descriptor, 0, pwd.getpwnam(QEMU_USER).pw_gid)
    os.fchmod(descriptor, 0o640)
    file.flush()
    os.ftruncate(descriptor, -(-os.fstat(descriptor).st_size // 512) * 512)
    os.fsync(descriptor)
    path.rename(base)
    sync_folder(base.parent)


def sync_folder(folder: Path) -> None:
    """Names made in `folder` are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
