"""What is here: versions, extensions, agents, zones, quotas."""

from collections.abc import Mapping, Sequence
from typing import Any

from nacre.core.errors import BadRequest
from nacre.core.http import Call
from nacre.network.api import filters
from nacre.network.api.routing import ROUTERS
from nacre.network.api.wires import NETWORKS
from nacre.network.bodies import changed
from nacre.network.extensions import EXTENSIONS
from nacre.network.faults import fault
from nacre.network.service import agents, quotas


def versions(call: Call) -> dict[str, Any]:
    link = {"rel": "self", "href": f"{call.url}/v2.0/"}
    return {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]}


def resources(call: Call) -> dict[str, Any]:
    names = ("networks", "subnets", "ports", "routers", "floatingips", "security-groups", "security-group-rules", "quotas", "agents", "extensions")
    return {"resources": [{"name": name.rstrip("s"), "collection": name, "links": [{"rel": "self", "href": f"{call.url}/v2.0/{name}"}]}
                          for name in names]}  # fmt: skip


def extensions(call: Call) -> dict[str, Any]:
    call.caller.require()
    return {"extensions": list(EXTENSIONS.values())}


def extension(call: Call) -> dict[str, Any]:
    call.caller.require()
    found = EXTENSIONS.get(call.path["alias"])
    if found is None:
        raise fault("ExtensionsNotFound", extensions=call.path["alias"])
    return {"extension": found}


def _picked(call: Call, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Filters and fields, for what is few and computed."""
    asked = filters(call)
    for name in asked:
        if found and name not in found[0]:
            raise BadRequest(f"['{name}'] is invalid attribute for filtering", kind="HTTPBadRequest")
    fields = call.query.getlist("fields")
    chosen = [one for one in found if all(str(one[name]).lower() in [value.lower() for value in values] for name, values in asked.items())]
    return [{name: value for name, value in one.items() if not fields or name in fields} for one in chosen]


def list_agents(call: Call) -> dict[str, Any]:
    return {"agents": _picked(call, agents.listed(call.caller))}


def show_agent(call: Call) -> dict[str, Any]:
    return {"agent": agents.show(call.caller, call.path["id"])}


def agents_of_network(call: Call) -> dict[str, Any]:
    return {"agents": _picked(call, agents.of_network(call.caller, call.path["id"]))}


def agents_of_router(call: Call) -> dict[str, Any]:
    return {"agents": _picked(call, agents.of_router(call.caller, call.path["id"]))}


def networks_of_agent(call: Call) -> dict[str, Any]:
    return NETWORKS.many(call, agents.networks_on(call.caller, call.path["id"]))


def routers_of_agent(call: Call) -> dict[str, Any]:
    return ROUTERS.many(call, agents.routers_on(call.caller, call.path["id"]))


def zones(call: Call) -> dict[str, Any]:
    return {"availability_zones": _picked(call, agents.zones(call.caller))}


def service_providers(call: Call) -> dict[str, Any]:
    call.caller.require({})
    return {"service_providers": []}


def list_quotas(call: Call) -> dict[str, Any]:
    return {"quotas": quotas.listed(call.caller)}


def show_quota(call: Call) -> dict[str, Any]:
    return {"quota": quotas.show(call.caller, call.path["id"])}


def default_quota(call: Call) -> dict[str, Any]:
    return {"quota": quotas.default(call.caller, call.path["id"])}


def quota_details(call: Call) -> dict[str, Any]:
    return {"quota": quotas.details(call.caller, call.path["id"])}


def update_quota(call: Call) -> dict[str, Any]:
    wanted = {name: value for name, value in changed(call.body).items() if name not in ("force", "check_limit", "project_id", "tenant_id")}
    return {"quota": quotas.update(call.caller, call.path["id"], wanted, bool(changed(call.body).get("force")))}


def reset_quota(call: Call) -> None:
    quotas.reset(call.caller, call.path["id"])
