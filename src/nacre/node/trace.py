"""What one call did on this machine and how long each thing took; told to the control plane with the call's result (`nacre why`).

A verb runs in one thread, and what it does is noted by whoever does it (`noted`: host commands, libvirt, images on their way), without
being told for whom. Nothing is noted outside of a call. It is bounded: the first `_MOST` things, each with the beginning of its text.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_MOST, _LONGEST = 40, 300


class Trace:
    """`waited`: seconds that the call lay here before it began."""

    def __init__(self, waited: float) -> None:
        self.at, self.waited, self._began = time.time(), waited, time.monotonic()
        self._done: list[list[Any]] = []
        self._more = 0

    def add(self, what: str, began: float, ok: bool) -> None:
        if len(self._done) >= _MOST:
            self._more += 1
            return
        text = what if len(what) <= _LONGEST else what[: _LONGEST - 3] + "..."
        self._done.append([_ms(began - self._began), _ms(time.monotonic() - began), text, ok])

    def told(self) -> dict[str, Any]:
        """`timing` of docs/node-contract.md."""
        ended = {"at": self.at, "waited_ms": _ms(self.waited), "ms": _ms(time.monotonic() - self._began), "commands": self._done}
        return ended | ({"more": self._more} if self._more else {})


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 2)


@contextmanager
def recording(waited: float) -> Iterator[Trace]:
    """What this thread does inside is noted."""
    trace = Trace(waited)
    held = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(held)


@contextmanager
def noted(what: str) -> Iterator[None]:
    """Something that takes time; one that raises is noted as failed."""
    trace = _current.get()
    if trace is None:
        yield
        return
    began, ok = time.monotonic(), False
    try:
        yield
        ok = True
    finally:
        trace.add(what, began, ok)
