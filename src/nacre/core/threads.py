"""A bounded pool of threads for an event loop: `await threads.run(work)`.

Threads are made as they are needed and never end; they are daemons, because one that hangs in a database must not keep the process from
ending. Each piece of work runs in the context (`contextvars`) of who asked for it.
Of a pool with `usual` threads no more are made as long as these take work: where it is the interpreter that work waits for, more threads
make everybody slower. When none was taken for STUCK, more help, up to `most`, and end when nothing waits any more.

Races: of `idle` permits there may be one too many for a moment, never one too few: then work waits for the next thread that is done
although another one could have been made, or the other way round.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
STUCK = 0.1


class Threads:
    """All but the work itself is called in the loop's own thread."""

    def __init__(self, most: int, name: str, usual: int | None = None) -> None:
        self.most, self.name, self.usual, self.made = most, name, usual or most, 0
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._helpers, self._taken, self._watched = 0, 0.0, False

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        self._work.put((lambda: context.run(work), future))
        if not self._idle.acquire(blocking=False):
            if self.made < self.usual:
                self.made += 1
                threading.Thread(target=self._serve, name=f"{self.name}-{self.made}", daemon=True).start()
            elif self.usual < self.most and not self._watched:
                self._watched = True
                loop.call_later(STUCK, self._watch, loop)
        return future

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._work.empty():
            self._watched = False
            return
        if time.monotonic() - self._taken > STUCK and self._helpers < self.most - self.usual:
            self._helpers += 1
            threading.Thread(target=self._help, args=(loop,), name=f"{self.name}-helper", daemon=True).start()
        loop.call_later(STUCK, self._watch, loop)

    def _serve(self) -> None:
        while True:
            try:
                one = self._work.get_nowait()
            except queue.Empty:
                self._idle.release()
                one = self._work.get()
            self._do(*one)
            del one

    def _help(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._do(*self._work.get_nowait())
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._helped)

    def _helped(self) -> None:
        self._helpers -= 1

    def _do(self, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self._taken = time.monotonic()
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(_settle, future, result, failure)


def _settle(future: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if future.done():  # nobody waits any more
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
