"""The file that `nacre backup` writes: a tar, packed by zstd, whose first member says what it is and whose last one what must be in it.

    manifest.json   what cloud and program made it, and when; read before all else
    ...             members in the order in which they were added
    sums.json       the sha256 of every member before it

A file is written as FILE.part, for its owner alone, and gets its name when it is whole and on disk. It is read once, from beginning to
end, by somebody who keeps what he reads apart until `read` has ended: only then is it known to be undamaged.

Files with holes are members of their own kind (`holed`): runs of bytes with their places, in parts that fit into memory.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

import msgspec

FORMAT = 1
MANIFEST, SUMS = "manifest.json", "sums.json"
_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 20
_PART = 16 << 20
_LARGEST_TEXT = 64 << 20
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)


class Manifest(msgspec.Struct, kw_only=True):
    """`cloud`: the mark of the keys; `schema`: the step that the database is at; `disks`: whether servers' disks are in it."""

    format: int = FORMAT
    program: str
    schema: str
    cloud: str
    made: str
    disks: bool


class Unusable(Exception):
    """This file cannot be used, or not be written; the message says why, in a sentence without a full stop."""


class Writer:
    """Use as a context: what is not finished leaves nothing behind. Raises Unusable."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.sums: dict[str, str] = {}
        if path.is_dir():
            raise Unusable(f"{path} cannot be written: it is a folder")
        try:
            self._fd = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unusable(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise Unusable(f"{self.path} is being written by another command") from None
        os.fchmod(self._fd, 0o600)
        os.ftruncate(self._fd, 0)
        self._packer = subprocess.Popen(["zstd", "-q", "-c", "-1", "-T0"], stdin=subprocess.PIPE, stdout=self._fd, stderr=subprocess.PIPE)
        assert self._packer.stdin is not None
        with self._told():
            pipe: Any = _Pipe(self._packer.stdin)
            self._tar = tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK)  # noqa: SIM115
            self._tar.copybufsize = _CHUNK  # type: ignore[attr-defined]
        self.add(MANIFEST, msgspec.json.encode(manifest))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._fd < 0:
            return
        self.part.unlink(missing_ok=True)
        self._packer.kill()
        self._packer.wait()
        for pipe in (self._packer.stdin, self._packer.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        os.close(self._fd)
        self._fd = -1

    def add(self, name: str, content: bytes) -> None:
        self.add_file(name, io.BytesIO(content), len(content))

    def add_file(self, name: str, file: IO[bytes], size: int) -> None:
        """`size` bytes of `file` from where it stands."""
        seen = _Hashed(self.path, file)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o600, int(time.time())
        with self._told():
            self._tar.addfile(entry, seen)
        self.sums[name] = seen.digest.hexdigest()

    def add_holed(self, name: str, runs: Iterable[tuple[int, bytes]]) -> int:
        """The bytes of the runs, of which each is (offset, bytes), in rising order."""
        held: list[tuple[int, bytes]] = []
        size = total = number = 0
        for run in runs:
            held.append(run)
            size += len(run[1])
            if size >= _PART:
                self.add(f"{name}/{number:08d}", _packed(held))
                total, size, number, held = total + size, 0, number + 1, []
        self.add(f"{name}/{number:08d}", _packed(held))
        return total + size

    def finish(self) -> int:
        """The file has its name; its size."""
        self.add(SUMS, json.dumps(self.sums).encode())
        with self._told():
            self._tar.close()
            assert self._packer.stdin is not None
            self._packer.stdin.close()
            if self._packer.wait():
                raise BrokenPipeError
            os.fsync(self._fd)
            size = os.fstat(self._fd).st_size
            self.part.rename(self.path)
            os.close(self._fd)
            self._fd = -1
            _sync(self.path.parent)
        return size

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._packer.wait()
            assert self._packer.stderr is not None
            why = self._packer.stderr.read().decode(errors="replace").strip().rpartition(":")[2].strip(" .")
            raise Unusable(f"{self.path} cannot be written: {why or 'zstd has ended'}") from None


class _Pipe:
    """To the packer, as long as somebody wants the file."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def write(self, data: bytes) -> int:
        return len(data) if self.stream.closed else self.stream.write(data)


class _Hashed:
    """A member on its way in or out of the archive at `path`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file, self.digest = path, file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        try:
            data = self.file.read(size)
        except tarfile.TarError as error:
            raise Unusable(f"{self.path} is damaged: {error}") from error
        self.digest.update(data)
        return data


def _packed(runs: list[tuple[int, bytes]]) -> bytes:
    heads = b"".join(struct.pack(">QQ", offset, len(data)) for offset, data in runs)
    return b"".join((struct.pack(">Q", len(runs)), heads, *(data for _, data in runs)))


def unpacked(part: bytes) -> Iterator[tuple[int, bytes]]:
    """The runs in a part of a holed member."""
    count = struct.unpack_from(">Q", part)[0]
    at = 8 + 16 * count
    for number in range(count):
        offset, length = struct.unpack_from(">QQ", part, 8 + 16 * number)
        yield offset, part[at : at + length]
        at += length


class Reader:
    """A backup from its beginning: `manifest` is known at once, `members` are read in their order, once. Raises Unusable.
    `head`: the newest step of the schema that this program knows."""

    def __init__(self, path: Path, head: str) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
            start = self._file.read(len(_MAGIC))
        except OSError as error:
            raise Unusable(f"{path} cannot be read: {error.strerror}") from error
        if start != _MAGIC:
            self._file.close()
            raise Unusable(f"{path} is no backup of Nacre")
        self._file.seek(0)
        self._unpacker = subprocess.Popen(["zstd", "-q", "-d", "-c"], stdin=self._file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            self._entries = self._walk()
            self.manifest = self._first(head)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._unpacker.kill()
        self._unpacker.communicate()
        self._file.close()

    def _first(self, head: str) -> Manifest:
        try:
            name, file = next(self._entries)
            told = json.loads(file.read(_LARGEST_TEXT)) if name == MANIFEST else {}
            number = told.get("format")
        except Unusable as error:
            raise Unusable(f"{self.path} is no backup of Nacre, or a damaged one") from error
        except (StopIteration, ValueError, AttributeError):
            number = None
        if not isinstance(number, int):
            raise Unusable(f"{self.path} is no backup of Nacre")
        if number > FORMAT:
            raise Unusable(f"{self.path} is a backup of format {number}, made by a newer program: this one knows format {FORMAT}")
        try:
            found = msgspec.convert(told, Manifest)
        except msgspec.ValidationError as error:
            raise Unusable(f"{self.path} is damaged: {str(error).partition(' - ')[0]}") from error
        if found.schema > head:
            raise Unusable(f"{self.path} was made by a newer program: its database is at step {found.schema}, and this program is at {head}")
        return found

    def members(self) -> Iterator[tuple[str, IO[bytes]]]:
        """(name, content) of every member; when it ends, the file is whole and undamaged."""
        yield from self._entries

    def _walk(self) -> Iterator[tuple[str, IO[bytes]]]:
        sums: dict[str, str] = {}
        try:
            with tarfile.open(fileobj=self._unpacker.stdout, mode="r|", bufsize=_CHUNK) as tar:
                for entry in tar:
                    file = tar.extractfile(entry) if entry.isreg() and _NAME.fullmatch(entry.name) and ".." not in entry.name else None
                    if file is None or entry.name in sums:
                        raise Unusable(f"{self.path} is damaged: a member {entry.name[:80]!r} does not belong in it")
                    if entry.name == SUMS:
                        self._compare(sums, file.read(_LARGEST_TEXT))
                        return
                    seen = _Hashed(self.path, file)
                    yield entry.name, seen  # type: ignore[misc]
                    while seen.read(_CHUNK):
                        pass
                    sums[entry.name] = seen.digest.hexdigest()
        except (tarfile.TarError, EOFError, OSError, struct.error) as error:
            raise Unusable(f"{self.path} is damaged: {error or 'it ends too soon'}") from error
        raise Unusable(f"{self.path} is damaged: it ends too soon")

    def _compare(self, sums: dict[str, str], told: bytes) -> None:
        try:
            wanted: Any = json.loads(told)
        except ValueError:
            wanted = None
        if wanted != sums:
            name = next((name for name in sums if not isinstance(wanted, dict) or wanted.get(name) != sums[name]), "its list of members")
            raise Unusable(f"{self.path} is damaged: {name} is not what was written")
        stream = self._unpacker.stdout
        assert stream is not None
        while stream.read(_CHUNK):
            pass
        if self._unpacker.wait():
            raise Unusable(f"{self.path} is damaged: its end is not what was written")


def _sync(folder: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
