"""A store of files in one folder.

`<id>` is the whole data of an image. While it arrives it is `<id>.<token>.part`, locked (flock) by its uploader for as long as that
lives, so that whoever can take the lock knows the uploader is dead, whichever process it was and however it ended. A part becomes `<id>`
by rename; the data is on disk before. Retired data is a part again that nobody holds.
"""

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from nacre.core import ids
from nacre.core.config import Backend
from nacre.core.errors import TooLarge, Unavailable
from nacre.image.stores.contract import Gone

_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PART = re.compile(rf"{_ID}\.[0-9a-f]{{32}}\.part")
_WHOLE = re.compile(_ID)
_SETTLE = 60.0


class FilePart:
    def __init__(self, store: "FileStore", image_id: str) -> None:
        self.store, self.image_id, self.token = store, image_id, ids.hex_id()
        self.path = store.part(image_id, self.token)
        self._published = False
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _refused(error) from error
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def write(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _refused(error) from error

    def finish(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _refused(error) from error

    def publish(self) -> str:
        if not self._published:
            try:
                self.path.rename(self.store.path(self.image_id))
                self._published = True
                _sync(self.store.folder)
            except OSError as error:
                raise _refused(error) from error
        return self.store.url(self.image_id)

    def close(self) -> None:
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _refused(error: OSError) -> Exception:
    """What a client is told of a disk that takes no data. Source: glance, `ImageDataController.upload`."""
    why = os.strerror(error.errno or 0)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return TooLarge(f"Image storage media is full: {why}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(f"Insufficient permissions on image storage media: {why}", kind="ServiceUnavailable")
    return Unavailable(f"Image storage media does not work: {why}", kind="ServiceUnavailable")


class FileStore:
    kind, read_only = "file", False

    def __init__(self, store_id: str, options: Backend, folder: Path) -> None:
        self.id, self.options, self.folder = store_id, options, folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, image_id: str) -> Path:
        return self.folder / image_id

    def part(self, image_id: str, token: str) -> Path:
        return self.folder / f"{image_id}.{token}.part"

    def url(self, image_id: str) -> str:
        return f"file://{self.path(image_id)}"

    def begin(self, image_id: str) -> FilePart:
        return FilePart(self, image_id)

    def open(self, url: str, first: int) -> IO[bytes]:
        try:
            file = self._at(url).open("rb")
        except FileNotFoundError as error:
            raise Gone(f"The data of image {self._at(url).name} is not in store {self.id}.") from error
        file.seek(first)
        return file

    def _at(self, url: str) -> Path:
        return self.folder / url.rpartition("/")[2]  # a home may be moved: the folder is where it is now

    def retire(self, url: str) -> Callable[[], None]:
        whole = self._at(url)
        aside = self.part(whole.name, ids.hex_id())
        with contextlib.suppress(FileNotFoundError):
            whole.rename(aside)
            os.utime(aside, (0, 0))  # nobody is about to lock it
        return partial(aside.unlink, missing_ok=True)

    def leftover(self, image_id: str) -> Callable[[], None]:
        return self.retire(self.url(image_id))

    def lives(self, image_id: str, token: str) -> bool:
        return not _take(self.part(image_id, token), remove=False)

    def properties(self) -> dict[str, Any]:
        return {"data_dir": str(self.folder), "chunk_size": 65536, "thin_provisioning": False}

    def sweep(self) -> list[str]:
        """Removes parts whose uploader is dead (a minute old at least: a new one may not be locked yet). The ids of files that look like
        whole images, for the caller to compare with its rows. Other files are left alone."""
        whole = []
        for entry in list(self.folder.iterdir()):
            if _PART.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime > _SETTLE:
                        _take(entry, remove=True)
            elif _WHOLE.fullmatch(entry.name):
                whole.append(entry.name)
        return whole

    def strange(self) -> set[str]:
        """Everything here that is neither a folder nor on its way in."""
        return {entry.name for entry in self.folder.iterdir() if not entry.name.endswith(".part") and not entry.is_dir()}


def _take(part: Path, *, remove: bool) -> bool:
    """True when nobody holds the part (or it is not there)."""
    try:
        fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            part.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
