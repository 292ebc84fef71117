"""JSON that was rendered before.

A page of a list shows mostly what it showed a second ago, and to compare what a resource is made of with what it was costs a fiftieth of
rendering it. `Rendered.json(key, made_of, render)` gives the JSON of `render(made_of)`, remembered by `key` for as long as `made_of` is equal:
what is shown is always made of what was just read, so nothing has to be told that it changed. `render` may use nothing but
`made_of` and what `key` says; `made_of` must not change later (rows, frozen structures).

Races: two threads may render the same and keep the later one's; each answers with its own. The oldest go when there are too many; what is
large is not remembered, since a client has a say in the size (the Host header is in every link).
"""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
_LARGE = 32 << 10


class Rendered(Generic[T]):
    """`most`: how many are remembered."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: dict[Hashable, tuple[T, msgspec.Raw]] = {}
        self._lock = threading.Lock()

    def json(self, key: Hashable, made_of: T, render: Callable[[T], object]) -> msgspec.Raw:
        """To be put where an answer has the resource."""
        known = self._known.get(key)
        if known is not None and known[0] == made_of:
            return known[1]
        fresh = msgspec.json.encode(render(made_of))
        if len(fresh) <= _LARGE:
            with self._lock:
                self._known[key] = made_of, msgspec.Raw(fresh)
                if len(self._known) > self.most:
                    del self._known[next(iter(self._known))]
        return msgspec.Raw(fresh)
