"""The Image API v2 as a table. Rule names and defaults are upstream's."""

from nacre.core.http import PUBLIC, Route, Service
from nacre.image import api
from nacre.image.bodies import Anything
from nacre.image.service import data

_ADMIN = "rule:context_is_admin"
_MEMBER = f"{_ADMIN} or (role:member and project_id:%(project_id)s)"
_READER = f"{_ADMIN} or (role:reader and project_id:%(project_id)s)"
_SEEN = "(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s)"
_SHARED_READER = f"{_ADMIN} or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"

RULES: dict[str, str] = {
    "default": "",
    "context_is_admin": "role:admin",
    "service_api": "role:service or role:admin",
    "add_image": f"{_ADMIN} or (role:member and project_id:%(project_id)s and project_id:%(owner)s)",
    "delete_image": _MEMBER,
    "get_image": f"{_ADMIN} or (role:reader and {_SEEN})",
    "get_images": _READER,
    "modify_image": _MEMBER,
    "publicize_image": _ADMIN,
    "communitize_image": _MEMBER,
    "download_image": f"{_ADMIN} or (role:member and {_SEEN})",
    "upload_image": _MEMBER,
    "add_member": _MEMBER,
    "delete_member": _MEMBER,
    "get_member": _SHARED_READER,
    "get_members": _SHARED_READER,
    "modify_member": f"{_ADMIN} or (role:member and project_id:%(member_id)s)",
    "deactivate": _MEMBER,
    "reactivate": _MEMBER,
}

_BODY, _PATCH = Anything(), Anything(many=True)
_IMAGE = "/v2/images/{image_id}"
ROUTES: tuple[Route, ...] = (
    Route("GET", "/", api.versions, PUBLIC),
    Route("GET", "/versions", api.versions, PUBLIC),
    Route("POST", "/v2/images", api.create, "add_image", body=_BODY, status=201),
    Route("GET", "/v2/images", api.index, "get_images"),
    Route("GET", _IMAGE, api.show, "get_image"),
    Route("PATCH", _IMAGE, api.update, "modify_image", body=_PATCH),
    Route("DELETE", _IMAGE, api.delete, "delete_image", status=204),
    Route("PUT", f"{_IMAGE}/file", data.put, "upload_image", status=204, stream=True),
    Route("GET", f"{_IMAGE}/file", api.download, "download_image"),
    Route("POST", f"{_IMAGE}/actions/deactivate", api.deactivate, "deactivate", status=204),
    Route("POST", f"{_IMAGE}/actions/reactivate", api.reactivate, "reactivate", status=204),
    Route("PUT", f"{_IMAGE}/tags/{{tag}}", api.add_tag, "modify_image", status=204),
    Route("DELETE", f"{_IMAGE}/tags/{{tag}}", api.remove_tag, "modify_image", status=204),
    Route("POST", f"{_IMAGE}/members", api.create_member, "add_member", body=_BODY),
    Route("GET", f"{_IMAGE}/members", api.list_members, "get_members"),
    Route("GET", f"{_IMAGE}/members/{{member_id}}", api.show_member, "get_member"),
    Route("PUT", f"{_IMAGE}/members/{{member_id}}", api.update_member, "modify_member", body=_BODY),
    Route("DELETE", f"{_IMAGE}/members/{{member_id}}", api.delete_member, "delete_member", status=204),
    Route("GET", "/v2/schemas/{name}", api.show_schema, "default"),
    Route("GET", "/v2/info/import", api.info_import, "default"),
    Route("GET", "/v2/info/stores", api.info_stores, "default"),
)  # fmt: skip
SERVICE = Service(name="image", type="image", prefix="/image", routes=ROUTES, rules=RULES, render_error=api.error, title="glance",
                  forbidden="You are not authorized to complete {rule} action.")  # fmt: skip
