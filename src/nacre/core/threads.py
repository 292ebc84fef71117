"""A bounded pool of threads for an event loop: `await threads.run(work)`.

Threads are made as they are needed and never end; they are daemons, because one that hangs in a database must not keep the process from
ending. Each piece of work runs in the context (`contextvars`) of who asked for it.

Races: of `idle` permits there may be one too many for a moment, never one too few: then work waits for the next thread that is done
although another one could have been made, or the other way round.
"""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    def __init__(self, most: int, name: str) -> None:
        self.most, self.name, self.made = most, name, 0
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Called in the loop's own thread."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        context = contextvars.copy_context()
        self._work.put((lambda: context.run(work), future))
        if not self._idle.acquire(blocking=False) and self.made < self.most:
            self.made += 1
            threading.Thread(target=self._serve, name=f"{self.name}-{self.made}", daemon=True).start()
        return future

    def _serve(self) -> None:
        while True:
            try:
                work, future = self._work.get_nowait()
            except queue.Empty:
                self._idle.release()
                work, future = self._work.get()
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_settle, future, result, failure)
            del work, future, result, failure


def _settle(future: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if future.done():  # nobody waits any more
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
