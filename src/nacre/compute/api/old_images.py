"""Handlers of images (until 2.35) and their metadata (until 2.38): the image service's in compute's words."""

from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies import old_images as bodies
from nacre.compute.bodies.common import metadata as checked
from nacre.compute.service import old_images
from nacre.core import paging
from nacre.core.http import Call


def _listed(call: Call, kind: str) -> tuple[Any, str | None]:
    found, more = old_images.listed(call.caller, bodies.asked(dict(call.query)))
    return found, paging.link(f"{call.url}/v2.1/{kind}", call.query, found[-1].id) if more else None


def index(call: Call) -> dict[str, Any]:
    found, following = _listed(call, "images")
    return common.page("images", [bodies.basic(image, call.url) for image in found], following)


def detail(call: Call) -> dict[str, Any]:
    found, following = _listed(call, "images/detail")
    return common.page("images", [bodies.detail(image, call.url) for image in found], following)


def show(call: Call) -> dict[str, Any]:
    return {"image": bodies.detail(old_images.show(call.caller, call.path["id"]), call.url)}


def delete(call: Call) -> None:
    old_images.delete(call.caller, call.path["id"])


def metadata(call: Call) -> dict[str, Any]:
    return {"metadata": dict(old_images.show(call.caller, call.path["id"]).properties)}


def metadatum(call: Call) -> dict[str, Any]:
    return {"meta": old_images.metadatum(call.caller, call.path["id"], call.path["key"])}


def _set(call: Call, replace: bool) -> dict[str, Any]:
    return {"metadata": dict(old_images.set_metadata(call.caller, call.path["id"], checked(call.body.metadata), replace=replace))}


def add_metadata(call: Call) -> dict[str, Any]:
    return _set(call, False)


def replace_metadata(call: Call) -> dict[str, Any]:
    return _set(call, True)


def set_metadatum(call: Call) -> dict[str, Any]:
    item = bodies.one_item(checked(call.body.meta), call.path["key"])
    old_images.set_metadata(call.caller, call.path["id"], item, replace=False)
    return {"meta": item}


def delete_metadatum(call: Call) -> None:
    old_images.delete_metadatum(call.caller, call.path["id"], call.path["key"])
