"""What the verbs on images take and give."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

WRITABLE = ("name", "visibility", "protected", "os_hidden", "owner", "container_format", "disk_format", "min_ram", "min_disk")


class Location(msgspec.Struct, frozen=True):
    """Data of an image: in which store, and where there."""

    store: str
    url: str


class Image(msgspec.Struct, frozen=True):
    """An image as other services see it. Sizes in bytes, min_disk in GiB, min_ram in MiB. Lists make hundreds, and a structure is made in a
    tenth of the time that a frozen dataclass takes."""

    id: str
    name: str | None
    status: str
    visibility: str
    owner: str | None
    disk_format: str | None
    container_format: str | None
    size: int | None
    virtual_size: int | None
    min_disk: int
    min_ram: int
    checksum: str | None
    hash_algo: str | None
    hash_value: str | None
    protected: bool
    os_hidden: bool
    properties: Mapping[str, str | None]
    tags: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    locations: tuple[Location, ...] = ()

    @property
    def stores(self) -> tuple[str, ...]:
        """Where users see its data; what is merely staged does not count."""
        return tuple(each.store for each in self.locations if not each.store.startswith("os_glance_"))


@dataclass(frozen=True)
class NewImage:
    """`columns`: those of WRITABLE that were said."""

    id: str | None
    columns: Mapping[str, Any]
    properties: Mapping[str, str]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One operation of a patch on one property."""

    op: str
    name: str
    value: Any
    draft: int
