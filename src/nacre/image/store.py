"""The bytes of images: files in `<home>/images`.

`<id>` is the whole data of an active image. While it arrives it is `<id>.<upload>.part`, locked (flock) by its uploader for as long as
that lives, so that whoever can take the lock knows the uploader is dead, whichever process it was and however it ended. A part becomes
`<id>` by rename, inside the transaction that makes the row active; the data is on disk before. Nothing here opens an image with
anything but `read`; what is in it is judged by the format inspector while it streams.
"""

import errno
import fcntl
import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any

from oslo_utils.imageutils import format_inspector as inspection

from nacre.core import ids
from nacre.core.cloud import Cloud
from nacre.core.errors import TooLarge, UnsupportedMedia

BATCH = 1 << 20
_PART = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9a-f]{32})\.part")
_SETTLE = 60.0


def folder(cloud: Cloud) -> Path:
    return cloud.home.reach / "images"


def path(cloud: Cloud, image_id: str) -> Path:
    return folder(cloud) / image_id


class _Feed:
    """A file of which one chunk is there at a time: what the inspector reads from."""

    def __init__(self) -> None:
        self.chunk = b""

    def read(self, size: int) -> bytes:
        return self.chunk


class Part:
    """Data on its way in: hashed, inspected and written as it comes. `close` in any case; without `publish` nothing stays."""

    def __init__(self, cloud: Cloud, image_id: str, disk_format: str, container_format: str) -> None:
        self.cloud, self.image_id, self.disk_format = cloud, image_id, disk_format
        self.token = ids.hex_id()
        self.path = folder(cloud) / f"{image_id}.{self.token}.part"
        self.size = 0
        self._md5, self._sha512 = hashlib.md5(usedforsecurity=False), hashlib.sha512()
        self._feed = _Feed()
        source: Any = self._feed
        self._inspector = inspection.InspectWrapper(source) if container_format == "bare" else None
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _full(error) from error
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def write(self, data: bytes) -> None:
        """Raises TooLarge when the disk is full."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _full(error) from error
        self.size += len(data)
        self._md5.update(data)
        self._sha512.update(data)
        if self._inspector is not None:
            self._feed.chunk = data
            self._inspector.read(len(data))

    def finish(self) -> dict[str, Any]:
        """Puts the data on disk and judges it; the row's fields. Raises UnsupportedMedia when it is not what it should be, TooLarge."""
        virtual_size = None
        if self._inspector is not None:
            self._inspector.close()
            virtual_size = judge(self._inspector, self.disk_format)
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _full(error) from error
        return {"size": self.size, "virtual_size": virtual_size, "checksum": self._md5.hexdigest(), "os_hash_algo": "sha512",
                "os_hash_value": self._sha512.hexdigest()}  # fmt: skip

    def publish(self) -> None:
        """The part becomes the image's data; called inside the transaction that says so."""
        self.path.rename(path(self.cloud, self.image_id))
        _sync(folder(self.cloud))

    def close(self) -> None:
        """Ends the upload: what was not published is gone."""
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _full(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return TooLarge(f"Image storage media is full: {os.strerror(error.errno)}")
    return error


def judge(seen: Any, disk_format: str) -> int | None:
    """The virtual size in bytes (None: not known) of data that `seen` has inspected to its end and that is said to be `disk_format`.
    Raises UnsupportedMedia when it is something else, several things at once, or fails a safety check (backing file, data file, ...).
    Source: glance, `ImageProxy.set_data`."""
    try:
        matches = {str(each): each for each in seen.formats}
        found = matches["iso"] if matches.keys() == {"iso", "gpt"} else seen.format
        name, virtual_size = str(found), 0
        if name == disk_format:
            virtual_size = found.virtual_size
        elif disk_format == "raw":
            virtual_size = found.actual_size
        elif name != "raw" or disk_format in inspection.ALL_FORMATS:
            raise UnsupportedMedia(f"Image disk_format {disk_format} does not match stream data {name}", kind="InvalidImageData")
        found.safety_check()
    except inspection.ImageFormatError as error:
        raise UnsupportedMedia(str(error), kind="InvalidImageData") from error
    except inspection.SafetyCheckFailed as error:
        failed = ", ".join(sorted(error.failures))
        raise UnsupportedMedia(f"Image failed safety checks: {failed}", kind="InvalidImageData") from error
    except UnsupportedMedia:
        raise
    except Exception as error:
        raise UnsupportedMedia("Image format inspection failed", kind="InvalidImageData") from error
    return virtual_size or None


def uploader_lives(cloud: Cloud, image_id: str, token: str) -> bool:
    """Whether somebody still holds the part file of this upload."""
    return not _take(folder(cloud) / f"{image_id}.{token}.part", remove=False)


def sweep(cloud: Cloud) -> list[str]:
    """Removes parts whose uploader is dead (a minute old at least: a new one may not be locked yet). The ids of files that look like
    whole images, for the caller to compare with its rows. Other files are left alone."""
    whole = []
    for entry in list(folder(cloud).iterdir()):
        if _PART.fullmatch(entry.name):
            try:
                if time.time() - entry.stat().st_mtime > _SETTLE:
                    _take(entry, remove=True)
            except FileNotFoundError:
                pass
        elif re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", entry.name):
            whole.append(entry.name)
    return whole


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


def set_aside(cloud: Cloud, image_id: str) -> Path:
    """Makes whole data that no row vouches for into a part again (instant, for inside a transaction); the part, to be removed."""
    aside = folder(cloud) / f"{image_id}.{ids.hex_id()}.part"
    path(cloud, image_id).rename(aside)
    return aside


def drop(cloud: Cloud, image_id: str) -> None:
    """Removes the data of an image whose row says that it is deleted (or has no data)."""
    path(cloud, image_id).unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
