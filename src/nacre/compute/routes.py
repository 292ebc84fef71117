"""The table of routes of compute."""

from typing import Any

from nacre.compute.api import (
    actions,
    admin,
    aggregates,
    events,
    flavors,
    groups,
    history,
    keypairs,
    life,
    migrations,
    old_addresses,
    old_groups,
    old_hosts,
    old_images,
    quotas,
    servers,
    usage,
    versions,
)
from nacre.compute.bodies import aggregates as aggregate_bodies
from nacre.compute.bodies import events as event_bodies
from nacre.compute.bodies import flavors as flavor_bodies
from nacre.compute.bodies import groups as group_bodies
from nacre.compute.bodies import keypairs as keypair_bodies
from nacre.compute.bodies import life as life_bodies
from nacre.compute.bodies import old_groups as old_group_bodies
from nacre.compute.bodies import servers as bodies
from nacre.compute.bodies.common import ANYTHING
from nacre.compute.rules import RULES
from nacre.core.errors import Error
from nacre.core.http import PUBLIC, Handler, Route, Service
from nacre.core.versions import ALWAYS, Body, Version

_V = "/v2.1"
_SERVER, _FLAVOR = f"{_V}/servers/{{id}}", f"{_V}/flavors/{{id}}"
_AGGREGATE, _IMAGE = f"{_V}/os-aggregates/{{id}}", f"{_V}/images/{{id}}"
_GROUPS, _OLD, _OLD_HOSTS = f"{_V}/os-security-groups", (2, 35), (2, 42)
_P = "os_compute_api:"


def _action(key: str, handler: Handler, rule: str, body: Body = bodies.BARE, status: int = 202, *, until: Version | None = None) -> Route:
    return Route("POST", f"{_SERVER}/action", handler, _P + rule, body=body, status=status, action=key, until=until)


def _get(path: str, handler: Handler, rule: str, since: Version = ALWAYS, until: Version | None = None) -> Route:
    return Route("GET", _V + path, handler, _P + rule, since=since, until=until)


ROUTES = (
    Route("GET", "/", versions.root, PUBLIC),
    Route("GET", "/v2", versions.v2, PUBLIC),
    Route("GET", _V, versions.v21, PUBLIC),
    _get("/extensions", versions.extensions, "extensions"),
    _get("/extensions/{alias}", versions.extension, "extensions"),
    # servers
    _get("/servers", servers.index, "servers:index"),
    _get("/servers/detail", servers.detail, "servers:detail"),
    _get("/servers/{id}", servers.show, "servers:show"),
    Route("POST", f"{_V}/servers", servers.create, f"{_P}servers:create", body=bodies.CREATE, status=202),
    Route("PUT", _SERVER, servers.update, f"{_P}servers:update", body=bodies.UPDATE),
    Route("DELETE", _SERVER, servers.delete, f"{_P}servers:delete", status=204),
    _action("os-start", actions.power("start"), "servers:start"),
    _action("os-stop", actions.power("stop"), "servers:stop"),
    _action("reboot", actions.reboot, "servers:reboot", bodies.REBOOT),
    _action("pause", actions.power("pause"), "os-pause-server:pause"),
    _action("unpause", actions.power("unpause"), "os-pause-server:unpause"),
    _action("suspend", actions.power("suspend"), "os-suspend-server:suspend"),
    _action("resume", actions.power("resume"), "os-suspend-server:resume"),
    _action("createImage", life.create_image, "servers:create_image", life_bodies.CREATE_IMAGE),
    _action("createBackup", life.create_backup, "os-create-backup", life_bodies.CREATE_BACKUP),
    _action("rebuild", life.rebuild, "servers:rebuild", life_bodies.REBUILD),
    _action("resize", life.resize, "servers:resize", life_bodies.RESIZE),
    _action("confirmResize", life.confirm_resize, "servers:confirm_resize", status=204),
    _action("revertResize", life.revert_resize, "servers:revert_resize"),
    _action("rescue", life.rescue, "os-rescue", status=200),
    _action("unrescue", actions.power("unrescue"), "os-unrescue"),
    _action("lock", actions.lock, "os-lock-server:lock"),
    _action("unlock", actions.unlock, "os-lock-server:unlock"),
    _action("forceDelete", actions.force_delete, "os-deferred-delete:force"),
    _action("restore", actions.restore, "os-deferred-delete:restore"),
    _action("injectNetworkInfo", actions.network_again("inject_network_info"), "os-admin-actions:inject_network_info"),
    _action("resetNetwork", actions.network_again("reset_network"), "os-admin-actions:reset_network"),
    _action("os-resetState", actions.reset_state, "os-admin-actions:reset_state", bodies.RESET_STATE),
    _action("addSecurityGroup", actions.add_security_group, "os-security-groups:add", bodies.ADD_GROUP),
    _action("removeSecurityGroup", actions.remove_security_group, "os-security-groups:remove", bodies.REMOVE_GROUP),
    _action("os-getConsoleOutput", actions.console_output, "os-console-output", bodies.CONSOLE_OUTPUT, 200),
    _action("os-getVNCConsole", actions.vnc, "os-remote-consoles", bodies.VNC, 200, until=(2, 5)),
    _action("os-getSPICEConsole", actions.spice, "os-remote-consoles", bodies.SPICE, 200, until=(2, 5)),
    _action("os-getSerialConsole", actions.serial, "os-remote-consoles", bodies.SERIAL, 200, until=(2, 5)),
    _action("addFixedIp", actions.add_fixed_ip, "os-multinic:add", bodies.ADD_FIXED, until=(2, 43)),
    _action("removeFixedIp", actions.remove_fixed_ip, "os-multinic:remove", bodies.REMOVE_FIXED, until=(2, 43)),
    _action("addFloatingIp", actions.add_floating_ip, "os-floating-ips:add", bodies.ADD_FLOATING, until=(2, 43)),
    _action("removeFloatingIp", actions.remove_floating_ip, "os-floating-ips:remove", bodies.REMOVE_FLOATING, until=(2, 43)),
    Route("POST", f"{_SERVER}/remote-consoles", actions.remote_console, f"{_P}os-remote-consoles", body=bodies.REMOTE_CONSOLE, since=(2, 6)),
    _get("/servers/{id}/metadata", servers.metadata, "server-metadata:index"),
    _get("/servers/{id}/metadata/{key}", servers.metadatum, "server-metadata:show"),
    Route("POST", f"{_SERVER}/metadata", servers.add_metadata, f"{_P}server-metadata:create", body=bodies.METADATA),
    Route("PUT", f"{_SERVER}/metadata", servers.replace_metadata, f"{_P}server-metadata:update_all", body=bodies.METADATA),
    Route("PUT", f"{_SERVER}/metadata/{{key}}", servers.set_metadatum, f"{_P}server-metadata:update", body=bodies.META_ITEM),
    Route("DELETE", f"{_SERVER}/metadata/{{key}}", servers.delete_metadatum, f"{_P}server-metadata:delete", status=204),
    _get("/servers/{id}/tags", servers.tags, "os-server-tags:index", (2, 26)),
    Route("GET", f"{_SERVER}/tags/{{tag}}", servers.tag, f"{_P}os-server-tags:show", status=204, since=(2, 26)),
    Route("PUT", f"{_SERVER}/tags", servers.replace_tags, f"{_P}os-server-tags:update_all", body=bodies.TAGS, since=(2, 26)),
    Route("PUT", f"{_SERVER}/tags/{{tag}}", servers.add_tag, f"{_P}os-server-tags:update", status=201, since=(2, 26)),
    Route("DELETE", f"{_SERVER}/tags", servers.delete_tags, f"{_P}os-server-tags:delete_all", status=204, since=(2, 26)),
    Route("DELETE", f"{_SERVER}/tags/{{tag}}", servers.delete_tag, f"{_P}os-server-tags:delete", status=204, since=(2, 26)),
    _get("/servers/{id}/ips", servers.ips, "ips:index"),
    _get("/servers/{id}/ips/{network}", servers.ips_of, "ips:show"),
    _get("/servers/{id}/os-interface", servers.interfaces_of, "os-attach-interfaces:list"),
    _get("/servers/{id}/os-interface/{port}", servers.interface, "os-attach-interfaces:show"),
    Route("POST", f"{_SERVER}/os-interface", life.attach, f"{_P}os-attach-interfaces:create", body=life_bodies.INTERFACE),
    Route("DELETE", f"{_SERVER}/os-interface/{{port}}", life.detach, f"{_P}os-attach-interfaces:delete", status=202),
    _get("/servers/{id}/os-security-groups", servers.security_groups, "os-security-groups:list"),
    _get("/servers/{id}/os-server-password", servers.password, "os-server-password:show"),
    Route("DELETE", f"{_SERVER}/os-server-password", servers.clear_password, f"{_P}os-server-password:clear", status=204),
    _get("/servers/{id}/os-volume_attachments", servers.volume_attachments, "os-volumes-attachments:index"),
    _get("/servers/{id}/os-instance-actions", history.index, "os-instance-actions:list"),
    _get("/servers/{id}/os-instance-actions/{request}", history.show, "os-instance-actions:show"),
    _get("/servers/{id}/diagnostics", actions.diagnostics, "os-server-diagnostics"),
    _get("/servers/{id}/explanation", history.explanation, "servers:explain"),
    Route("POST", f"{_V}/os-server-external-events", events.create, f"{_P}os-server-external-events:create", body=event_bodies.CREATE, status=200),
    _get("/os-migrations", migrations.index, "os-migrations:index"),
    _get("/servers/{id}/migrations", migrations.of_server, "servers:migrations:index", (2, 23)),
    # server groups
    _get("/os-server-groups", groups.index, "os-server-groups:index"),
    _get("/os-server-groups/{id}", groups.show, "os-server-groups:show"),
    Route("POST", f"{_V}/os-server-groups", groups.create, f"{_P}os-server-groups:create", body=group_bodies.CREATE),
    Route("DELETE", f"{_V}/os-server-groups/{{id}}", groups.delete, f"{_P}os-server-groups:delete", status=204),
    # security groups in compute's words
    _get("/os-security-groups", old_groups.index, "os-security-groups:get", until=_OLD),
    _get("/os-security-groups/{id}", old_groups.show, "os-security-groups:show", until=_OLD),
    Route("POST", _GROUPS, old_groups.create, f"{_P}os-security-groups:create", old_group_bodies.GROUP, until=_OLD),
    Route("PUT", f"{_GROUPS}/{{id}}", old_groups.update, f"{_P}os-security-groups:update", old_group_bodies.GROUP, until=_OLD),
    Route("DELETE", f"{_GROUPS}/{{id}}", old_groups.delete, f"{_P}os-security-groups:delete", status=202, until=_OLD),
    Route("POST", f"{_V}/os-security-group-rules", old_groups.create_rule, f"{_P}os-security-groups:rule:create", old_group_bodies.RULE, until=_OLD),
    Route("DELETE", f"{_V}/os-security-group-rules/{{id}}", old_groups.delete_rule, f"{_P}os-security-groups:rule:delete", status=202, until=_OLD),
    # networks, floating IPs and images in compute's words
    _get("/os-networks", old_addresses.networks, "os-networks:list", until=_OLD),
    _get("/os-networks/{id}", old_addresses.network, "os-networks:show", until=_OLD),
    _get("/os-tenant-networks", old_addresses.tenant_networks, "os-tenant-networks:list", until=_OLD),
    _get("/os-tenant-networks/{id}", old_addresses.tenant_network, "os-tenant-networks:show", until=_OLD),
    _get("/os-floating-ip-pools", old_addresses.pools, "os-floating-ip-pools", until=_OLD),
    _get("/os-floating-ips", old_addresses.floating_ips, "os-floating-ips:list", until=_OLD),
    _get("/os-floating-ips/{id}", old_addresses.floating_ip, "os-floating-ips:show", until=_OLD),
    Route("POST", f"{_V}/os-floating-ips", old_addresses.create_floating_ip, f"{_P}os-floating-ips:create", body=ANYTHING, until=_OLD),
    Route("DELETE", f"{_V}/os-floating-ips/{{id}}", old_addresses.delete_floating_ip, f"{_P}os-floating-ips:delete", status=202, until=_OLD),
    _get("/images", old_images.index, "images", until=_OLD),
    _get("/images/detail", old_images.detail, "images", until=_OLD),
    _get("/images/{id}", old_images.show, "images", until=_OLD),
    Route("DELETE", _IMAGE, old_images.delete, f"{_P}images", status=204, until=_OLD),
    _get("/images/{id}/metadata", old_images.metadata, "images", until=(2, 38)),
    _get("/images/{id}/metadata/{key}", old_images.metadatum, "images", until=(2, 38)),
    Route("POST", f"{_IMAGE}/metadata", old_images.add_metadata, f"{_P}images", body=bodies.METADATA, until=(2, 38)),
    Route("PUT", f"{_IMAGE}/metadata", old_images.replace_metadata, f"{_P}images", body=bodies.METADATA, until=(2, 38)),
    Route("PUT", f"{_IMAGE}/metadata/{{key}}", old_images.set_metadatum, f"{_P}images", body=bodies.META_ITEM, until=(2, 38)),
    Route("DELETE", f"{_IMAGE}/metadata/{{key}}", old_images.delete_metadatum, f"{_P}images", status=204, until=(2, 38)),
    # flavors
    _get("/flavors", flavors.index, "flavors"),
    _get("/flavors/detail", flavors.detail, "flavors"),
    _get("/flavors/{id}", flavors.show, "flavors"),
    Route("POST", f"{_V}/flavors", flavors.create, f"{_P}os-flavor-manage:create", body=flavor_bodies.CREATE),
    Route("PUT", _FLAVOR, flavors.update, f"{_P}os-flavor-manage:update", body=flavor_bodies.UPDATE, since=(2, 55)),
    Route("DELETE", _FLAVOR, flavors.delete, f"{_P}os-flavor-manage:delete", status=202),
    _get("/flavors/{id}/os-extra_specs", flavors.show_extra_specs, "os-flavor-extra-specs:index"),
    _get("/flavors/{id}/os-extra_specs/{key}", flavors.extra_spec, "os-flavor-extra-specs:show"),
    Route("POST", f"{_FLAVOR}/os-extra_specs", flavors.set_extra_specs, f"{_P}os-flavor-extra-specs:create", body=flavor_bodies.EXTRA_SPECS),
    Route("PUT", f"{_FLAVOR}/os-extra_specs/{{key}}", flavors.set_extra_spec, f"{_P}os-flavor-extra-specs:update", body=ANYTHING),
    Route("DELETE", f"{_FLAVOR}/os-extra_specs/{{key}}", flavors.delete_extra_spec, f"{_P}os-flavor-extra-specs:delete"),
    _get("/flavors/{id}/os-flavor-access", flavors.access, "os-flavor-access"),
    Route("POST", f"{_FLAVOR}/action", flavors.grant, f"{_P}os-flavor-access:add_tenant_access", body=flavor_bodies.ADD_ACCESS,
          action="addTenantAccess"),
    Route("POST", f"{_FLAVOR}/action", flavors.revoke, f"{_P}os-flavor-access:remove_tenant_access", body=flavor_bodies.REMOVE_ACCESS,
          action="removeTenantAccess"),
    # key pairs
    _get("/os-keypairs", keypairs.index, "os-keypairs:index"),
    _get("/os-keypairs/{name}", keypairs.show, "os-keypairs:show"),
    Route("POST", f"{_V}/os-keypairs", keypairs.create, f"{_P}os-keypairs:create", body=keypair_bodies.CREATE, status=201, until=(2, 91)),
    Route("POST", f"{_V}/os-keypairs", keypairs.create, f"{_P}os-keypairs:create", body=keypair_bodies.CREATE_WITH_KEY, status=201, since=(2, 92)),
    Route("DELETE", f"{_V}/os-keypairs/{{name}}", keypairs.delete, f"{_P}os-keypairs:delete", status=204),
    # quotas
    _get("/limits", quotas.limits, "limits"),
    _get("/os-quota-sets/{project}", quotas.show, "os-quota-sets:show"),
    _get("/os-quota-sets/{project}/defaults", quotas.defaults, "os-quota-sets:defaults"),
    _get("/os-quota-sets/{project}/detail", quotas.detail, "os-quota-sets:detail"),
    Route("PUT", f"{_V}/os-quota-sets/{{project}}", quotas.update, f"{_P}os-quota-sets:update", body=ANYTHING),
    Route("DELETE", f"{_V}/os-quota-sets/{{project}}", quotas.reset, f"{_P}os-quota-sets:delete", status=202),
    _get("/os-quota-class-sets/{id}", quotas.show_class, "os-quota-class-sets:show"),
    Route("PUT", f"{_V}/os-quota-class-sets/{{id}}", quotas.update_class, f"{_P}os-quota-class-sets:update", body=ANYTHING),
    _get("/os-instance_usage_audit_log", usage.audit, "os-instance-usage-audit-log:list"),
    _get("/os-instance_usage_audit_log/{before}", usage.audit_before, "os-instance-usage-audit-log:show"),
    _get("/os-simple-tenant-usage", usage.index, "os-simple-tenant-usage:list"),
    _get("/os-simple-tenant-usage/{project}", usage.show, "os-simple-tenant-usage:show"),
    # hosts
    _get("/os-hosts", old_hosts.index, "os-hosts:list", until=_OLD_HOSTS),
    _get("/os-hosts/{name}", old_hosts.show, "os-hosts:show", until=_OLD_HOSTS),
    Route("PUT", f"{_V}/os-hosts/{{name}}", old_hosts.update, f"{_P}os-hosts:update", body=ANYTHING, until=_OLD_HOSTS),
    _get("/os-hosts/{name}/startup", old_hosts.power, "os-hosts:start", until=_OLD_HOSTS),
    _get("/os-hosts/{name}/shutdown", old_hosts.power, "os-hosts:shutdown", until=_OLD_HOSTS),
    _get("/os-hosts/{name}/reboot", old_hosts.power, "os-hosts:reboot", until=_OLD_HOSTS),
    _get("/os-services", admin.services, "os-services:list"),
    Route("PUT", f"{_V}/os-services/{{id}}", admin.update_service, f"{_P}os-services:update", body=ANYTHING, since=(2, 53)),
    Route("PUT", f"{_V}/os-services/{{verb}}", admin.old_update_service, f"{_P}os-services:update", body=ANYTHING, until=(2, 52)),
    Route("DELETE", f"{_V}/os-services/{{id}}", admin.delete_service, f"{_P}os-services:delete", status=204),
    _get("/os-hypervisors", admin.hypervisors, "os-hypervisors:list"),
    _get("/os-hypervisors/detail", admin.hypervisors_detail, "os-hypervisors:list-detail"),
    _get("/os-hypervisors/statistics", admin.statistics, "os-hypervisors:statistics", until=(2, 87)),
    _get("/os-hypervisors/{id}", admin.hypervisor, "os-hypervisors:show"),
    _get("/os-hypervisors/{id}/uptime", admin.uptime, "os-hypervisors:uptime", until=(2, 87)),
    _get("/os-hypervisors/{id}/search", admin.search, "os-hypervisors:search", until=(2, 52)),
    _get("/os-hypervisors/{id}/servers", admin.servers_on, "os-hypervisors:servers", until=(2, 52)),
    _get("/os-aggregates", aggregates.index, "os-aggregates:index"),
    _get("/os-aggregates/{id}", aggregates.show, "os-aggregates:show"),
    Route("POST", f"{_V}/os-aggregates", aggregates.create, f"{_P}os-aggregates:create", body=aggregate_bodies.CREATE),
    Route("PUT", _AGGREGATE, aggregates.update, f"{_P}os-aggregates:update", body=aggregate_bodies.UPDATE),
    Route("DELETE", _AGGREGATE, aggregates.delete, f"{_P}os-aggregates:delete"),
    Route("POST", f"{_AGGREGATE}/action", aggregates.add_host, f"{_P}os-aggregates:add_host", body=aggregate_bodies.ADD_HOST, action="add_host"),
    Route("POST", f"{_AGGREGATE}/action", aggregates.remove_host, f"{_P}os-aggregates:remove_host", body=aggregate_bodies.REMOVE_HOST,
          action="remove_host"),
    Route("POST", f"{_AGGREGATE}/action", aggregates.set_metadata, f"{_P}os-aggregates:set_metadata", body=aggregate_bodies.SET_METADATA,
          action="set_metadata"),
    _get("/os-availability-zone", admin.zones, "os-availability-zone:list"),
    _get("/os-availability-zone/detail", admin.zones_detail, "os-availability-zone:detail"),
)  # fmt: skip

_NAMES = {400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound", 405: "badMethod", 409: "conflictingRequest",
          413: "overLimit",
          415: "badMediaType", 429: "overLimit", 501: "notImplemented", 503: "serviceUnavailable"}  # fmt: skip


def render_error(error: Error, request_id: str) -> dict[str, Any]:
    return {_NAMES.get(error.code, "computeFault"): {"code": error.code, "message": error.message}}


SERVICE = Service(
    name="compute", type="compute", title="nova", prefix="/compute", endpoint="/v2.1", routes=ROUTES, rules=RULES, render_error=render_error,
    microversions=versions.MICROVERSIONS, aliases={"v2": "v2.1"}, request_id_header="x-compute-request-id",
    forbidden="Policy doesn't allow {rule} to be performed.", strict=True,
)  # fmt: skip
