"""Stores: where the bytes of images are. `enabled_backends` names them; users do not see three more: what was staged for an import, what the
import made of it, and copies that are nearer than where an image is (the image cache).

A row of `image_locations` says that an image's data is in a store, at a `url` that only this store understands. The contract (`Store`)
is made for files and for object stores alike: data on its way in is a `Part`, made durable under a name of its own by `finish`; `publish`
makes it the image's and is instant, for it happens inside the transaction that writes the location. Data goes in the same two steps: the
location becomes a tombstone, and `retire`, instant and again inside a transaction, parts it from the image; what it returns removes it.

Races: a part is alive as long as its uploader (`lives`), which is how another process tells an upload that goes on from one that died.
"""

from nacre.core.cloud import Cloud
from nacre.core.config import Backend
from nacre.image.stores.contract import Gone, Part, Reader, Store
from nacre.image.stores.file import FileStore
from nacre.image.stores.web import WebStore

STAGING, TASKS, CACHE = "os_glance_staging_store", "os_glance_tasks_store", "os_glance_cache"
_NEAREST = 1 << 30


def all_of(cloud: Cloud) -> dict[str, Store]:
    """The stores that users may name, by id."""
    made: dict[str, Store] | None = cloud.memory.get("image stores")
    if made is None:
        made = cloud.memory["image stores"] = {name: _store(cloud, name, kind) for name, kind in cloud.config.backends.items()}
    return made


def _store(cloud: Cloud, name: str, kind: str) -> Store:
    options = cloud.config.stores.get(name, Backend())
    if kind == "http":
        return WebStore(name, options, cloud.config.import_filtering_opts)
    return FileStore(name, options, cloud.home.reach / (options.filesystem_store_datadir or "images"))


def default(cloud: Cloud) -> str:
    return cloud.config.glance_store.default_backend or next(iter(cloud.config.backends))


def files(cloud: Cloud) -> list[FileStore]:
    """Every store of files, those that users do not see last."""
    inner = [STAGING, TASKS, *([CACHE] if cloud.config.DEFAULT.image_cache_dir else [])]
    return [store for store in all_of(cloud).values() if isinstance(store, FileStore)] + [hidden(cloud, each) for each in inner]


def hidden(cloud: Cloud, store_id: str) -> FileStore:
    """A store that users do not see."""
    made: FileStore | None = cloud.memory.get(store_id)
    if made is None:
        folder = {STAGING: "images/staging", TASKS: "images/tasks", CACHE: cloud.config.DEFAULT.image_cache_dir or "images/cache"}[store_id]
        weight = _NEAREST if store_id == CACHE else 0
        made = cloud.memory[store_id] = FileStore(store_id, Backend(weight=weight), cloud.home.reach / folder)
    return made


def named(cloud: Cloud, store_id: str) -> Store | None:
    return hidden(cloud, store_id) if store_id in (STAGING, TASKS, CACHE) else all_of(cloud).get(store_id)


__all__ = ["CACHE", "STAGING", "TASKS", "FileStore", "Gone", "Part", "Reader", "Store", "WebStore", "all_of", "default", "files", "hidden", "named"]
