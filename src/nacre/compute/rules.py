"""Policy rules of compute under upstream's names and defaults (nova/policies)."""

_ADMIN, _MEMBER, _READER, _ANY = "rule:context_is_admin", "rule:project_member_or_admin", "rule:project_reader_or_admin", "@"


def _many(prefix: str, default: str, *names: str) -> dict[str, str]:
    return {f"os_compute_api:{prefix}{name}": default for name in names}


RULES: dict[str, str] = {
    "context_is_admin": "role:admin",
    "admin_or_owner": "is_admin:True or project_id:%(project_id)s",
    "admin_api": "is_admin:True",
    "project_manager_api": "role:manager and project_id:%(project_id)s",
    "project_member_api": "role:member and project_id:%(project_id)s",
    "project_reader_api": "role:reader and project_id:%(project_id)s",
    "service_api": "role:service",
    "project_manager_or_admin": "rule:project_manager_api or rule:context_is_admin",
    "project_member_or_admin": "rule:project_member_api or rule:context_is_admin",
    "project_reader_or_admin": "rule:project_reader_api or rule:context_is_admin",
    "service_or_admin": "rule:service_api or rule:context_is_admin",
    **_many("servers:", _READER, "index", "detail", "show", "show:flavor-extra-specs"),
    **_many("servers:", _ADMIN, "index:get_all_tenants", "detail:get_all_tenants", "allow_all_filters", "show:host_status",
            "show:host_status:unknown-only", "create:forced_host", "create:zero_disk_flavor"),
    **_many("servers:", _MEMBER, "create", "create:attach_volume", "create:attach_network", "create:trusted_certs", "update", "delete", "reboot",
            "start", "stop", "create_image", "rebuild", "rebuild:trusted_certs", "resize", "confirm_resize", "revert_resize"),
    "compute:servers:create:requested_destination": _ADMIN,
    **_many("", _ADMIN, "os-extended-server-attributes", "os-admin-actions:reset_state", "os-lock-server:unlock:unlock_override"),
    **_many("", _MEMBER, "os-deferred-delete:force", "os-lock-server:lock", "os-lock-server:unlock", "os-pause-server:pause",
            "os-pause-server:unpause", "os-suspend-server:suspend", "os-suspend-server:resume", "os-rescue", "os-unrescue",
            "os-attach-interfaces:create", "os-attach-interfaces:delete",
            "os-console-output", "os-remote-consoles", "os-security-groups:add", "os-security-groups:remove"),
    **_many("", _MEMBER, "os-floating-ips:add", "os-floating-ips:remove", "os-multinic:add", "os-multinic:remove"),
    **_many("", _READER, "os-security-groups:list", "os-attach-interfaces:list", "os-attach-interfaces:show", "os-volumes-attachments:index",
            "ips:index", "ips:show"),
    **_many("server-metadata:", _READER, "index", "show"),
    **_many("server-metadata:", _MEMBER, "create", "update_all", "update", "delete"),
    **_many("os-server-tags:", _READER, "index", "show"),
    **_many("os-server-tags:", _MEMBER, "update", "update_all", "delete", "delete_all"),
    **_many("os-instance-actions:", _READER, "list", "show"),
    **_many("os-instance-actions:", _ADMIN, "events", "events:details"),
    "os_compute_api:os-simple-tenant-usage:list": _ADMIN,
    "os_compute_api:os-simple-tenant-usage:show": _READER,
    **_many("os-server-groups:", _READER, "index", "show"),
    **_many("os-server-groups:", _MEMBER, "create", "delete"),
    "os_compute_api:os-server-groups:index:all_projects": _ADMIN,
    **_many("os-flavor-manage:", _ADMIN, "create", "update", "delete"),
    **_many("os-flavor-extra-specs:", _READER, "index", "show"),
    **_many("os-flavor-extra-specs:", _ADMIN, "create", "update", "delete"),
    **_many("os-flavor-access", _ADMIN, "", ":add_tenant_access", ":remove_tenant_access"),
    "os_compute_api:flavors": _ANY,
    **_many("os-keypairs:", "(rule:context_is_admin) or user_id:%(user_id)s", "index", "show", "create", "delete"),
    **_many("", _ANY, "limits", "extensions", "os-availability-zone:list", "os-quota-sets:defaults"),
    **_many("", _ADMIN, "limits:other_project", "os-availability-zone:detail", "os-quota-sets:update", "os-quota-sets:delete"),
    **_many("os-quota-sets:", _READER, "show", "detail"),
    "os_compute_api:os-aggregates:index": _ADMIN,
    **_many("os-services:", _ADMIN, "list", "update", "delete"),
    **_many("os-hypervisors:", _ADMIN, "list", "list-detail", "show", "statistics", "uptime", "search", "servers"),
}  # fmt: skip
