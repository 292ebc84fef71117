"""Data on its way into a store: written, hashed twice and looked into as it passes, once, side by side.

Each batch goes to four lanes (the store, md5, sha512, the format inspector), which a pool of threads takes at the same time; a lane has its
batches in order because the next one is handed out only when all have done with the last. So two batches an upload are in memory, one
being worked on, one coming. What the data is, is judged at the end: it must be what its owner says, and nothing that would make a program
that opens it read another file.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import md5, sha512
from typing import Any

from oslo_utils.imageutils import format_inspector as inspection

from nacre.core.errors import TooLarge, UnsupportedMedia
from nacre.image.stores import Part

BATCH = 1 << 20
_lanes = ThreadPoolExecutor(8, "images")


class _Feed:
    """A file of which one chunk is there at a time: what the inspector reads from."""

    def __init__(self) -> None:
        self.chunk = b""

    def read(self, size: int) -> bytes:
        return self.chunk


class Intake:
    """`close` in any case. `formats`: (disk, container) as the owner says; None: it is kept for later, neither hashed nor looked into.
    `most`: bytes."""

    def __init__(self, part: Part, image_id: str, formats: tuple[str | None, str | None] | None, most: int) -> None:
        self.part, self.image_id, self.most, self.size, self.formats = part, image_id, most, 0, formats
        self._md5, self._sha512 = md5(usedforsecurity=False), sha512()
        self._feed = _Feed()
        source: Any = self._feed
        self._inspector = inspection.InspectWrapper(source) if formats is not None and formats[1] == "bare" else None
        self._work: list[Callable[[bytes], object]] = [part.write]
        if formats is not None:
            self._work += [self._md5.update, self._sha512.update]
        if self._inspector is not None:
            self._work.append(self._inspect)

    @property
    def token(self) -> str:
        return self.part.token

    def take(self, batch: bytes) -> "list[Future[object]]":
        """Begins work on a batch; all of it must be done before the next. Raises TooLarge."""
        self.size += len(batch)
        if self.size > self.most:
            raise TooLarge(f"The incoming image is too large: at most {self.most} bytes are taken")
        return [_lanes.submit(work, batch) for work in self._work]

    def write(self, batch: bytes) -> None:
        """A batch from begin to end. Raises TooLarge."""
        begun = self.take(batch)
        failures = [each.exception() for each in begun]
        for failure in failures:
            if failure is not None:
                raise failure

    def _inspect(self, batch: bytes) -> None:
        assert self._inspector is not None
        self._feed.chunk = batch
        self._inspector.read(len(batch))

    def finish(self) -> dict[str, Any]:
        """Puts the data on disk and judges it; the row's fields. Raises UnsupportedMedia when it is not what it should be, TooLarge."""
        virtual_size = None
        if self._inspector is not None:
            self._inspector.close()
            virtual_size = judge(self._inspector, (self.formats or ("",))[0] or "")
        self.part.finish()
        if self.formats is None:
            return {"size": self.size}
        return {"size": self.size, "virtual_size": virtual_size, "checksum": self._md5.hexdigest(), "os_hash_algo": "sha512",
                "os_hash_value": self._sha512.hexdigest()}  # fmt: skip

    def close(self) -> None:
        self.part.close()


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
