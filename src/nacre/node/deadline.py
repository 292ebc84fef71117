"""How long one call may take, and whether anybody still wants it.

A thread cannot be stopped from outside, so whatever a call does in a loop (waiting for a guest to shut down, reading an image) asks
its Deadline at every turn; `cancel` and the end of the time surface there. What blocks without asking (libvirtd) is bounded by the
driver's own limits, and the agent answers for it when the time is over.
"""

import threading
import time


class NodeError(Exception):
    """A call failed. `str` is the one sentence for the user, `detail` what the operator needs (stderr, cause)."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class Unreachable(NodeError):
    """What the call needs on this machine went away and comes back by itself: the same call may succeed a moment later."""


class Deadline:
    """`seconds` from now on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self._cancelled = threading.Event()
        self._reason = ""

    def left(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.end - time.monotonic())

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def cancel(self, reason: str) -> None:
        """Nobody wants the result any more; the call ends at its next `check` or `sleep`."""
        self._reason = reason
        self._cancelled.set()

    def check(self) -> None:
        """Raises NodeError if the call was cancelled or its time is over."""
        if self._cancelled.is_set():
            raise NodeError(self._reason)
        if self.over():
            raise NodeError("deadline exceeded")

    def sleep(self, seconds: float) -> None:
        """Waits at most `seconds`, less when the call is cancelled or its time is over, which raises NodeError."""
        self._cancelled.wait(min(seconds, self.left()))
        self.check()
