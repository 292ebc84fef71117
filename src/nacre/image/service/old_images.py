"""Images as compute shows them until 2.35 (their properties, as metadata, until 2.38): for the user, under the image service's own rules."""

from collections.abc import Mapping
from dataclasses import replace

from starlette.datastructures import QueryParams

from nacre.core.caller import Caller
from nacre.core.errors import NotFound
from nacre.image.domain import Change, Image
from nacre.image.service import images


def _as_user(caller: Caller, rule: str) -> Caller:
    return replace(caller, service="image", rule=rule, asked=set())


def list_images(caller: Caller, query: Mapping[str, str]) -> tuple[list[Image], bool]:
    """`query`: as a list of images is asked for. The page, and whether more follow. Raises BadRequest."""
    return images.list_images(_as_user(caller, "get_images"), QueryParams(query))


def show_image(caller: Caller, image_id: str) -> Image:
    try:
        return images.show_image(_as_user(caller, "get_image"), image_id)
    except NotFound as error:
        raise NotFound("Image not found.", kind="ImageNotFound") from error


def delete_image(caller: Caller, image_id: str) -> None:
    images.delete_image(_as_user(caller, "delete_image"), image_id)


def set_properties(caller: Caller, image_id: str, items: Mapping[str, str], gone: frozenset[str] = frozenset()) -> Image:
    """`gone`: those that go, if they are there."""
    there = show_image(caller, image_id).properties
    changes = [Change("remove", name, None, 10) for name in gone if name in there and name not in items]
    changes += [Change("add", name, value, 10) for name, value in items.items()]
    return images.update_image(_as_user(caller, "modify_image"), image_id, changes)
