"""What went wrong in one apply, by document; each is logged when it begins or changes, and when it is over, not at every attempt."""

import contextlib
import logging
from collections.abc import Iterator

from nacre.node.wires.openflow import Owner

log = logging.getLogger(__name__)


class Failures:
    def __init__(self) -> None:
        self._now: dict[Owner, str] = {}
        self._before: dict[Owner, str] = {}

    def all(self) -> list[tuple[Owner, str]]:
        return sorted(self._now.items())

    def __contains__(self, owner: Owner) -> bool:
        return owner in self._now

    def begin(self) -> None:
        self._before, self._now = self._now, {}

    def add(self, owner: Owner, cause: str | Exception) -> None:
        text = f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else cause
        self._now.setdefault(owner, text)
        if self._before.get(owner) != self._now[owner]:
            trace = cause if isinstance(cause, Exception) and not isinstance(cause, OSError) else None
            log.error("%s %s: %s", *owner, text, exc_info=trace if log.isEnabledFor(logging.DEBUG) else None)
            self._before[owner] = self._now[owner]

    def end(self) -> None:
        for owner in self._before.keys() - self._now.keys():
            log.info("%s %s: as it should be again", *owner)

    @contextlib.contextmanager
    def of(self, owner: Owner) -> Iterator[None]:
        """What is raised inside is this document's failure and goes no further."""
        try:
            yield
        except Exception as error:
            self.add(owner, error)
