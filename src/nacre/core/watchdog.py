"""Says when an event loop stands still, and which line holds it.

Everything a loop serves waits while one of its callbacks does not return: a read that blocks, a lock, a computation. A thread asks the
loop for a turn twice a second; when none comes it logs the loop's stack, and how long it was when one comes.
"""

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator

_log = logging.getLogger("nacre.watchdog")
_LOOK = 0.5


@contextlib.contextmanager
def watching(loop: asyncio.AbstractEventLoop, patience: float = 1.0) -> Iterator[None]:
    """Watches `loop`, which this thread runs in the block."""
    ended, mine = threading.Event(), threading.get_ident()

    def look() -> None:
        while not ended.wait(_LOOK):
            asked, turned = time.monotonic(), threading.Event()
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(turned.set)
            if turned.wait(patience) or ended.is_set():
                continue
            if (frame := sys._current_frames().get(mine)) is not None:
                _log.error("the event loop stands still in\n%s", "".join(traceback.format_stack(frame)))
            while not turned.wait(_LOOK) and not ended.is_set():
                pass
            _log.error("the event loop stood still for %.1f s", time.monotonic() - asked)

    threading.Thread(target=look, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
