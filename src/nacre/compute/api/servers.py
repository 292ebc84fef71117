"""Handlers of servers, their metadata, tags, addresses and interfaces."""

from typing import Any

from nacre.compute import states
from nacre.compute.api import common
from nacre.compute.bodies import server_view as view
from nacre.compute.bodies import servers as bodies
from nacre.compute.bodies.common import metadata as metadata_of
from nacre.compute.bodies.common import truth
from nacre.compute.service import interfaces, listing, passwords, servers
from nacre.core import paging
from nacre.core.db import Row
from nacre.core.errors import BadRequest, NotFound
from nacre.core.http import Call, Reply

_EVERYBODY = {"reservation_id": (2, 1), "name": (2, 1), "status": (2, 1), "image": (2, 1), "flavor": (2, 1), "ip": (2, 1), "changes-since": (2, 1),
              "ip6": (2, 5), "tags": (2, 26), "tags-any": (2, 26), "not-tags": (2, 26), "not-tags-any": (2, 26), "changes-before": (2, 66),
              "locked": (2, 73), "availability_zone": (2, 83), "config_drive": (2, 83), "key_name": (2, 83), "created_at": (2, 83),
              "launched_at": (2, 83), "terminated_at": (2, 83), "power_state": (2, 83), "task_state": (2, 83), "vm_state": (2, 83),
              "progress": (2, 83), "user_id": (2, 83)}  # fmt: skip
_ADMINS = ("deleted", "display_name", "description", "display_description", "host", "node", "hostname", "launch_index", "locked_by", "project_id",
           "tenant_id",
           "root_device_name", "uuid", "metadata", "system_metadata", "kernel_id", "ramdisk_id", "access_ip_v4", "access_ip_v6", "auto_disk_config",
           "cell_name", "image_ref", "instance_type_id", "soft_deleted", "updated_at", "user_data", "disable_terminate", "ephemeral_gb",
           "internal_id", "memory_mb", "vcpus", "root_gb", "default_ephemeral_device", "default_swap_device", "architecture",
           "vm_mode", "shutdown_terminate", "cleaned")  # fmt: skip
_ALL = ("limit", "marker", "sort_key", "sort_dir", "all_tenants", *_EVERYBODY, *_ADMINS)
_MOMENTS = ("changes-since", "changes-before", "created_at", "launched_at", "terminated_at")
_RULES = {view.EXTENDED: "os_compute_api:os-extended-server-attributes", view.HOST_STATUS: "os_compute_api:servers:show:host_status",
          view.HOST_UNKNOWN: "os_compute_api:servers:show:host_status:unknown-only",
          view.SPECS: "os_compute_api:servers:show:flavor-extra-specs"}  # fmt: skip


def _may(call: Call, row: Row | None = None) -> set[str]:
    target = servers.target(row) if row is not None else None
    return {name for name, rule in _RULES.items() if call.caller.allowed(rule, target)}


def _filters(call: Call) -> tuple[dict[str, Any], bool]:
    """What is asked for that the caller may ask for, decoded; and whether of all projects. Upstream ignores what one may not ask."""
    common.strict_query(call, _ALL)
    all_projects = call.flag("all_tenants") if "all_tenants" in call.query else False
    more = call.caller.allowed("os_compute_api:servers:allow_all_filters", {})
    found: dict[str, Any] = {}
    for name in call.query:
        if call.version >= _EVERYBODY.get(name, (9, 9)) or (more and name in (*_EVERYBODY, *_ADMINS)):
            wire = "project_id" if name == "tenant_id" else name
            if wire != "project_id" or all_projects:
                found[wire] = _decoded(call, name)
    return found, all_projects


def _decoded(call: Call, name: str) -> Any:
    text = call.query[name]
    if name == "status":
        pairs = states.having_status(call.query.getlist(name))
        if not pairs and call.version >= (2, 38):
            raise BadRequest("Invalid status value")
        return pairs
    if name in _MOMENTS:
        return common.moment(call, name)
    if name in ("deleted", "locked", "config_drive"):
        return text.lower() in ("1", "true", "yes", "on", "t", "y") if name != "locked" else call.flag(name)
    if name in ("launch_index", "power_state", "progress"):
        if not text.isdecimal():
            raise BadRequest(f"Invalid input for query parameters {name}. Value: {text}. '{text}' is not a number")
        return int(text)
    if "tags" in name:
        return text.split(",")
    return text


def _asked(call: Call) -> tuple[paging.Page, dict[str, Any], bool] | None:
    """Which servers: page, filters, whether of all projects; None when no server can be among them."""
    filters, all_projects = _filters(call)
    if "changes-since" in filters and "changes-before" in filters and filters["changes-before"] < filters["changes-since"]:
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    if "status" in filters and not filters["status"]:
        call.caller.require({"project_id": call.caller.project_id, "user_id": call.caller.user_id})
        return None
    page = paging.page_of(call.query, most=1000, keys=(("created_at", "desc"), ("number", "desc")), sortable=listing.SORTABLE)
    return page, filters, all_projects


def _following(call: Call, kind: str, last: str) -> str:
    return paging.link(f"{call.url}/v2.1/{kind}", call.query, last)


def index(call: Call) -> dict[str, Any]:
    asked = _asked(call)
    rows, more = listing.listed(call.caller, *asked) if asked else ([], False)
    return common.page("servers", [view.basic(row, call.url) for row in rows], _following(call, "servers", rows[-1].id) if more and rows else None)


def detail(call: Call) -> dict[str, Any]:
    may, asked = _may(call), _asked(call)
    found, more = listing.detailed(call.caller, *asked, view.columns(call.version, may)) if asked else ([], False)
    following = _following(call, "servers/detail", found[-1].row.id) if more and found else None
    return common.page("servers", view.listed(found, call.url, call.version, may), following)


def show(call: Call) -> dict[str, Any]:
    return {"server": whole(call, listing.detail(call.caller, call.path["id"]))}


def whole(call: Call, found: listing.Detail) -> dict[str, Any]:
    return view.detail(found, call.url, call.version, _may(call, found.row))


def create(call: Call) -> Reply:
    order = bodies.order(call.body, call.version)
    made, reservation = servers.create(call.caller, order)
    if truth(call.body.server.return_reservation_id):
        return Reply({"reservation_id": reservation}, 202)
    links = view.links(call.url, made[0])
    server: dict[str, Any] = {"id": made[0], "links": links, "OS-DCF:diskConfig": order.disk_config}
    server["security_groups"] = [{"name": name} for name in order.security_groups or ("default",)]
    server |= common.admin_password(call, call.body.server.adminPass)
    return Reply({"server": server}, 202, {"location": links[0]["href"]})


def update(call: Call) -> dict[str, Any]:
    servers.update(call.caller, call.path["id"], bodies.changes(call.body, call.version))
    return {"server": view.changed(whole(call, listing.detail(call.caller, call.path["id"])), call.version)}


def delete(call: Call) -> None:
    servers.delete(call.caller, call.path["id"])


def metadata(call: Call) -> dict[str, Any]:
    return {"metadata": servers.show(call.caller, call.path["id"]).meta}


def metadatum(call: Call) -> dict[str, Any]:
    whole = servers.show(call.caller, call.path["id"]).meta
    if call.path["key"] not in whole:
        raise NotFound("Metadata item was not found")
    return {"meta": {call.path["key"]: whole[call.path["key"]]}}


def add_metadata(call: Call) -> dict[str, Any]:
    return {"metadata": servers.set_metadata(call.caller, call.path["id"], metadata_of(call.body.metadata), replace=False)}


def replace_metadata(call: Call) -> dict[str, Any]:
    return {"metadata": servers.set_metadata(call.caller, call.path["id"], metadata_of(call.body.metadata), replace=True)}


def set_metadatum(call: Call) -> dict[str, Any]:
    if list(call.body.meta) != [call.path["key"]]:
        raise BadRequest("Request body and URI mismatch" if len(call.body.meta) == 1 else "Request body contains too many items")
    servers.set_metadata(call.caller, call.path["id"], metadata_of(call.body.meta), replace=False)
    return {"meta": call.body.meta}


def delete_metadatum(call: Call) -> None:
    servers.delete_metadata(call.caller, call.path["id"], call.path["key"])


def tags(call: Call) -> dict[str, Any]:
    return {"tags": servers.tags(call.caller, call.path["id"])}


def tag(call: Call) -> None:
    if call.path["tag"] not in servers.tags(call.caller, call.path["id"]):
        raise NotFound(f"Server {call.path['id']} has no tag '{call.path['tag']}'")


def replace_tags(call: Call) -> dict[str, Any]:
    return {"tags": servers.change_tags(call.caller, call.path["id"], keep=call.body.tags)[0]}


def add_tag(call: Call) -> Reply:
    name = call.path["tag"]
    if not 0 < len(name) <= 60 or "," in name or "/" in name:
        raise BadRequest(f"Tag '{name}' is invalid. It must be a string without characters '/' and ','. Maximum length is 60.")
    new = servers.change_tags(call.caller, call.path["id"], add=[name])[1]
    href = f"{call.url}/v2.1/servers/{call.path['id']}/tags/{name}"
    return Reply(None, 201 if new else 204, {"location": href} if new else {})


def delete_tag(call: Call) -> None:
    servers.change_tags(call.caller, call.path["id"], drop=call.path["tag"])


def delete_tags(call: Call) -> None:
    servers.change_tags(call.caller, call.path["id"], keep=[])


def _addresses(call: Call) -> dict[str, Any]:
    return view.plain_addresses(view.addresses(listing.detail(call.caller, call.path["id"])))


def ips(call: Call) -> dict[str, Any]:
    return {"addresses": _addresses(call)}


def ips_of(call: Call) -> dict[str, Any]:
    found = _addresses(call)
    if call.path["network"] not in found:
        raise NotFound("Instance is not a member of specified network")
    return {call.path["network"]: found[call.path["network"]]}


def volume_attachments(call: Call) -> dict[str, Any]:
    servers.show(call.caller, call.path["id"])
    return {"volumeAttachments": []}


def attachment(port: Any, call: Call) -> dict[str, Any]:
    shown = {"port_id": port.id, "net_id": port.network_id, "mac_addr": port.mac_address, "port_state": port.status,
             "fixed_ips": [{"ip_address": fixed["ip_address"], "subnet_id": fixed["subnet_id"]} for fixed in port.fixed_ips]}  # fmt: skip
    return shown | ({"tag": port.device_tag} if call.version >= (2, 70) else {})


def interfaces_of(call: Call) -> dict[str, Any]:
    return {"interfaceAttachments": [attachment(port, call) for port in interfaces.listed(call.caller, call.path["id"])]}


def interface(call: Call) -> dict[str, Any]:
    port = next((port for port in interfaces.listed(call.caller, call.path["id"]) if port.id == call.path["port"]), None)
    if port is None:
        raise NotFound(f"Port {call.path['port']} is not attached to instance {call.path['id']}")
    return {"interfaceAttachment": attachment(port, call)}


def security_groups(call: Call) -> dict[str, Any]:
    return {"security_groups": interfaces.security_groups(call.caller, call.path["id"])}


def password(call: Call) -> dict[str, Any]:
    return {"password": passwords.show(call.caller, call.path["id"])}


def clear_password(call: Call) -> None:
    passwords.clear(call.caller, call.path["id"])
