"""Policy rules of the Image API: upstream's names and defaults. Source: glance, `policies`."""

_ADMIN = "rule:context_is_admin"
_MEMBER = f"{_ADMIN} or (role:member and project_id:%(project_id)s)"
_READER = f"{_ADMIN} or (role:reader and project_id:%(project_id)s)"
_SEEN = "(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s)"
_SHARED_READER = f"{_ADMIN} or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"
_NAMESPACE_READER = f"{_ADMIN} or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"

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
    "copy_image": _ADMIN,
    "delete_image_location": _ADMIN,
    "get_image_location": _READER,
    "set_image_location": _MEMBER,
    "add_image_location": "rule:service_api or (role:member and project_id:%(project_id)s and project_id:%(owner)s)",
    "fetch_image_location": "rule:service_api",
    "tasks_api_access": _ADMIN,
    "stores_info_detail": f"{_ADMIN} or rule:service_api",
    "cache_image": _ADMIN,
    "cache_list": _ADMIN,
    "cache_delete": _ADMIN,
    "metadef_default": "",
    "metadef_admin": _ADMIN,
    "get_metadef_namespaces": _READER,
    **dict.fromkeys(("get_metadef_namespace", "get_metadef_object", "get_metadef_objects", "list_metadef_resource_types", "get_metadef_resource_type",
                     "get_metadef_property", "get_metadef_properties", "get_metadef_tag", "get_metadef_tags"), _NAMESPACE_READER),
    **dict.fromkeys(("modify_metadef_namespace", "add_metadef_namespace", "delete_metadef_namespace", "modify_metadef_object", "add_metadef_object",
                     "delete_metadef_object", "add_metadef_resource_type_association", "remove_metadef_resource_type_association",
                     "modify_metadef_property", "add_metadef_property", "remove_metadef_property", "add_metadef_tag", "add_metadef_tags",
                     "modify_metadef_tag", "delete_metadef_tag", "delete_metadef_tags"), "rule:metadef_admin"),
}  # fmt: skip
