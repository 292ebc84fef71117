"""Images in compute's words (until 2.35, their metadata until 2.38): compute's rule first, then the image service's own."""

from collections.abc import Mapping
from typing import Any

from nacre import image as images
from nacre.compute.service import quotas
from nacre.core.caller import Caller
from nacre.core.errors import NotFound


def listed(caller: Caller, query: Mapping[str, str]) -> tuple[list[images.Image], bool]:
    caller.require()
    return images.old_images.list_images(caller, query)


def show(caller: Caller, image_id: str) -> images.Image:
    caller.require()
    return images.old_images.show_image(caller, image_id)


def delete(caller: Caller, image_id: str) -> None:
    caller.require()
    images.old_images.delete_image(caller, image_id)


def metadatum(caller: Caller, image_id: str, key: str) -> dict[str, Any]:
    found = show(caller, image_id).properties
    if key not in found:
        raise NotFound("Metadata item was not found")
    return {key: found[key]}


def set_metadata(caller: Caller, image_id: str, items: Mapping[str, str], *, replace: bool) -> Mapping[str, Any]:
    """The metadata after the change. Raises OverQuota."""
    before = show(caller, image_id).properties
    with caller.read() as conn:
        quotas.check_metadata(conn, caller.project_id or "", items if replace else {**before, **items})  # type: ignore[dict-item]
    gone = frozenset(before.keys() - items.keys()) if replace else frozenset[str]()
    return images.old_images.set_properties(caller, image_id, items, gone).properties


def delete_metadatum(caller: Caller, image_id: str, key: str) -> None:
    metadatum(caller, image_id, key)
    images.old_images.set_properties(caller, image_id, {}, frozenset({key}))
