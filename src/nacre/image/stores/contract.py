"""What a store can do (theory: the package)."""

from collections.abc import Callable
from typing import Any, Protocol

from nacre.core.config import Backend
from nacre.core.errors import NotFound


class Gone(NotFound):
    """The data is not where its location says."""

    kind = "NotFound"


class Part(Protocol):
    """Data on its way into a store. `close` in any case: what was not published is gone then."""

    token: str

    def write(self, data: bytes) -> None:
        """Raises TooLarge when the store is full, Unavailable when it takes nothing for another reason."""

    def finish(self) -> None:
        """The data is durable under a name of its own. Raises TooLarge."""

    def publish(self) -> str:
        """The data is the image's; its location. Instant, and harmless when repeated."""

    def close(self) -> None: ...


class Reader(Protocol):
    """The bytes of an image from some point on. It goes on to the end when the image is deleted meanwhile."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Store(Protocol):
    id: str
    kind: str
    read_only: bool
    options: Backend

    def begin(self, image_id: str) -> Part:
        """Raises StoreClosed when nothing can be written here."""

    def open(self, url: str, first: int) -> Reader:
        """Raises Gone."""

    def retire(self, url: str) -> Callable[[], None]:
        """The data at `url` are not their image's any more; instant. What is returned removes them; if it is never called, the store
        finds them by itself, later."""

    def leftover(self, image_id: str) -> Callable[[], None]:
        """`retire` for data of the image that came here and of which no location was ever written."""

    def lives(self, image_id: str, token: str) -> bool:
        """Whether somebody still writes that part."""

    def properties(self) -> dict[str, Any]:
        """What an administrator may know of it."""
