"""A read-only store: images that are at an address of the web and stay there. Nothing is ever written or removed."""

from collections.abc import Callable
from typing import Any

from nacre.core.config import Backend, ImportFiltering
from nacre.core.errors import Error
from nacre.image import fetching
from nacre.image.stores.contract import Part, Reader


class StoreClosed(Error):
    status = 410
    kind = "StoreAddDisabled"


class WebStore:
    kind, read_only = "http", True

    def __init__(self, store_id: str, options: Backend, filtering: ImportFiltering) -> None:
        self.id, self.options, self.filtering = store_id, options, filtering

    def begin(self, image_id: str) -> Part:
        raise StoreClosed("Error in store configuration. Adding images to store is disabled.")

    def open(self, url: str, first: int) -> Reader:
        return fetching.open_url(url, self.filtering, {"range": f"bytes={first}-"} if first else {})

    def retire(self, url: str) -> Callable[[], None]:
        return lambda: None

    def leftover(self, image_id: str) -> Callable[[], None]:
        return lambda: None

    def lives(self, image_id: str, token: str) -> bool:
        return False

    def properties(self) -> dict[str, Any]:
        return {}
