"""The Image API v2 as a table. """

from nacre.core.http import PUBLIC, Route, Service
from nacre.image.api import about, images, members
from nacre.image.bodies.images import Anything
from nacre.image.rules import RULES
from nacre.image.service import data

_BODY, _PATCH = Anything(), Anything(many=True)
_IMAGE = "/v2/images/{image_id}"
ROUTES: tuple[Route, ...] = (
    Route("GET", "/", about.versions, PUBLIC),
    Route("GET", "/versions", about.versions, PUBLIC),
    Route("POST", "/v2/images", images.create, "add_image", body=_BODY, status=201),
    Route("GET", "/v2/images", images.index, "get_images"),
    Route("GET", _IMAGE, images.show, "get_image"),
    Route("PATCH", _IMAGE, images.update, "modify_image", body=_PATCH),
    Route("DELETE", _IMAGE, images.delete, "delete_image", status=204),
    Route("PUT", f"{_IMAGE}/file", data.put, "upload_image", status=204, stream=True),
    Route("GET", f"{_IMAGE}/file", images.download, "download_image"),
    Route("POST", f"{_IMAGE}/actions/deactivate", images.deactivate, "deactivate", status=204),
    Route("POST", f"{_IMAGE}/actions/reactivate", images.reactivate, "reactivate", status=204),
    Route("PUT", f"{_IMAGE}/tags/{{tag}}", images.add_tag, "modify_image", status=204),
    Route("DELETE", f"{_IMAGE}/tags/{{tag}}", images.remove_tag, "modify_image", status=204),
    Route("POST", f"{_IMAGE}/members", members.create_member, "add_member", body=_BODY),
    Route("GET", f"{_IMAGE}/members", members.list_members, "get_members"),
    Route("GET", f"{_IMAGE}/members/{{member_id}}", members.show_member, "get_member"),
    Route("PUT", f"{_IMAGE}/members/{{member_id}}", members.update_member, "modify_member", body=_BODY),
    Route("DELETE", f"{_IMAGE}/members/{{member_id}}", members.delete_member, "delete_member", status=204),
    Route("GET", "/v2/schemas/{name}", about.show_schema, "default"),
    Route("GET", "/v2/info/import", about.info_import, "default"),
    Route("GET", "/v2/info/stores", about.info_stores, "default"),
    Route("GET", "/v2/info/stores/detail", about.info_stores_detail, "stores_info_detail"),
    Route("GET", "/v2/info/usage", about.info_usage, "default"),
    Route("DELETE", "/v2/stores/{store_id}/{image_id}", images.delete_from_store, "delete_image_location", status=204),
    Route("PUT", f"{_IMAGE}/stage", data.stage, "modify_image", status=204, stream=True),
)  # fmt: skip
SERVICE = Service(name="image", type="image", prefix="/image", routes=ROUTES, rules=RULES, render_error=about.error, title="glance",
                  forbidden="You are not authorized to complete {rule} action.")  # fmt: skip
