"""The Image API v2 as a table. """

from nacre.core.http import PUBLIC, Route, Service
from nacre.image.api import about, cache, images, imports, members, metadefs
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
    Route("POST", f"{_IMAGE}/import", imports.import_image, "modify_image", body=_BODY, status=202),
    Route("POST", f"{_IMAGE}/locations", imports.add_location, "add_image_location", body=_BODY, status=202),
    Route("GET", f"{_IMAGE}/locations", imports.list_locations, "fetch_image_location"),
    Route("GET", f"{_IMAGE}/tasks", imports.tasks_of_image, "get_image"),
    Route("GET", "/v2/tasks", imports.list_tasks, "tasks_api_access"),
    Route("POST", "/v2/tasks", imports.no_new_task, "tasks_api_access", body=_BODY),
    Route("GET", "/v2/tasks/{task_id}", imports.show_task, "tasks_api_access"),
    Route("DELETE", "/v2/tasks/{task_id}", imports.no_end_of_task, "tasks_api_access"),
    Route("GET", "/v2/cache", cache.show, "cache_list"),
    Route("DELETE", "/v2/cache", cache.clear, "cache_delete", status=204),
    Route("PUT", "/v2/cache/{image_id}", cache.queue, "cache_image", status=202),
    Route("DELETE", "/v2/cache/{image_id}", cache.delete, "cache_delete", status=204),
    Route("GET", "/v2/schemas/{name}", about.show_schema, "default"),
    Route("GET", "/v2/info/import", about.info_import, "default"),
    Route("GET", "/v2/info/stores", about.info_stores, "default"),
    Route("GET", "/v2/info/stores/detail", about.info_stores_detail, "stores_info_detail"),
    Route("GET", "/v2/info/usage", about.info_usage, "default"),
    Route("DELETE", "/v2/stores/{store_id}/{image_id}", images.delete_from_store, "delete_image_location", status=204),
    Route("PUT", f"{_IMAGE}/stage", data.stage, "modify_image", status=204, stream=True),
)  # fmt: skip
_SPACES, _SPACE = "/v2/metadefs/namespaces", "/v2/metadefs/namespaces/{namespace}"
_OBJECTS, _PROPERTIES, _TAGS, _TYPES = (f"{_SPACE}/{word}" for word in ("objects", "properties", "tags", "resource_types"))
METADEFS: tuple[Route, ...] = (
    Route("GET", "/v2/schemas/metadefs/{name}", about.show_schema, "default"),
    Route("GET", "/v2/metadefs/resource_types", metadefs.list_resource_types, "list_metadef_resource_types"),
    Route("GET", _SPACES, metadefs.list_namespaces, "get_metadef_namespaces"),
    Route("POST", _SPACES, metadefs.create_namespace, "add_metadef_namespace", body=_BODY, status=201),
    Route("GET", _SPACE, metadefs.show_namespace, "get_metadef_namespace"),
    Route("PUT", _SPACE, metadefs.update_namespace, "modify_metadef_namespace", body=_BODY),
    Route("DELETE", _SPACE, metadefs.delete_namespace, "delete_metadef_namespace", status=204),
    Route("GET", _TYPES, metadefs.list_associations, "list_metadef_resource_types"),
    Route("POST", _TYPES, metadefs.create_association, "add_metadef_resource_type_association", body=_BODY, status=201),
    Route("DELETE", f"{_TYPES}/{{name}}", metadefs.delete_association, "remove_metadef_resource_type_association", status=204),
    Route("GET", _OBJECTS, metadefs.list_entries, "get_metadef_objects"),
    Route("POST", _OBJECTS, metadefs.create_entry, "add_metadef_object", body=_BODY, status=201),
    Route("DELETE", _OBJECTS, metadefs.delete_entry, "delete_metadef_namespace", status=204),
    Route("GET", f"{_OBJECTS}/{{name}}", metadefs.show_entry, "get_metadef_object"),
    Route("PUT", f"{_OBJECTS}/{{name}}", metadefs.update_entry, "modify_metadef_object", body=_BODY),
    Route("DELETE", f"{_OBJECTS}/{{name}}", metadefs.delete_entry, "delete_metadef_object", status=204),
    Route("GET", _PROPERTIES, metadefs.list_properties, "get_metadef_properties"),
    Route("POST", _PROPERTIES, metadefs.create_entry, "add_metadef_property", body=_BODY, status=201),
    Route("DELETE", _PROPERTIES, metadefs.delete_entry, "delete_metadef_namespace", status=204),
    Route("GET", f"{_PROPERTIES}/{{name}}", metadefs.show_entry, "get_metadef_property"),
    Route("PUT", f"{_PROPERTIES}/{{name}}", metadefs.update_entry, "modify_metadef_property", body=_BODY),
    Route("DELETE", f"{_PROPERTIES}/{{name}}", metadefs.delete_entry, "remove_metadef_property", status=204),
    Route("GET", _TAGS, metadefs.list_entries, "get_metadef_tags"),
    Route("POST", _TAGS, metadefs.create_tags, "add_metadef_tags", body=_BODY, status=201),
    Route("DELETE", _TAGS, metadefs.delete_entry, "delete_metadef_tags", status=204),
    Route("GET", f"{_TAGS}/{{name}}", metadefs.show_entry, "get_metadef_tag"),
    Route("POST", f"{_TAGS}/{{name}}", metadefs.create_tag, "add_metadef_tag", status=201),
    Route("PUT", f"{_TAGS}/{{name}}", metadefs.update_entry, "modify_metadef_tag", body=_BODY),
    Route("DELETE", f"{_TAGS}/{{name}}", metadefs.delete_entry, "delete_metadef_tag", status=204),
)  # fmt: skip
SERVICE = Service(name="image", type="image", prefix="/image", routes=ROUTES + METADEFS, rules=RULES, render_error=about.error, title="glance",
                  forbidden="You are not authorized to complete {rule} action.", strict=True)  # fmt: skip
