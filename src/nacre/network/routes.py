"""The table of routes of the network service."""

from collections.abc import Iterator

from nacre.core.http import PUBLIC, Route, Service
from nacre.core.versions import Body
from nacre.network.api import Wire, about, pools, routing, security, wires
from nacre.network.api.pools import POOLS
from nacre.network.api.routing import FLOATING_IPS, ROUTERS
from nacre.network.api.security import GROUPS
from nacre.network.api.security import RULES as GROUP_RULES
from nacre.network.api.wires import NETWORKS, PORTS, SUBNETS
from nacre.network.bodies import pools as pool_bodies
from nacre.network.bodies import quotas as quota_bodies
from nacre.network.bodies import routing as routing_bodies
from nacre.network.bodies import security as security_bodies
from nacre.network.bodies import wires as wire_bodies
from nacre.network.faults import rendered
from nacre.network.rules import RULES as DEFAULTS

RULES = DEFAULTS
_INTERFACE: Body = routing_bodies.INTERFACE


def _read(wire: Wire) -> Iterator[Route]:
    yield Route("GET", wire.address, wire.list, f"get_{wire.singular}")
    yield Route("GET", f"{wire.address}/{{id}}", wire.show, f"get_{wire.singular}")


def _tags(wire: Wire) -> Iterator[Route]:
    tags, name = f"{wire.address}/{{id}}/tags", wire.singular
    yield Route("GET", tags, wire.tags, f"get_{name}:tags")
    yield Route("PUT", tags, wire.set_tags, f"update_{name}:tags", quota_bodies.SET_TAGS)
    yield Route("DELETE", tags, wire.remove_tag, f"delete_{name}:tags", status=204)
    yield Route("GET", f"{tags}/{{tag}}", wire.has_tag, f"get_{name}:tags", status=204)
    yield Route("PUT", f"{tags}/{{tag}}", wire.add_tag, f"update_{name}:tags", status=201)
    yield Route("DELETE", f"{tags}/{{tag}}", wire.remove_tag, f"delete_{name}:tags", status=204)


ROUTES = (
    Route("GET", "/", about.versions, PUBLIC),
    Route("GET", "/v2.0", about.resources, PUBLIC),
    Route("GET", "/v2.0/extensions", about.extensions, "regular_user"),
    Route("GET", "/v2.0/extensions/{alias}", about.extension, "regular_user"),
    Route("POST", "/v2.0/networks", wires.create_networks, "create_network", wire_bodies.NEW_NETWORK, 201),
    Route("PUT", "/v2.0/networks/{id}", wires.update_network, "update_network", wire_bodies.CHANGE_NETWORK),
    Route("DELETE", "/v2.0/networks/{id}", wires.delete_network, "delete_network", status=204),
    Route("GET", "/v2.0/networks/{id}/dhcp-agents", about.agents_of_network, "get_dhcp-agents"),
    Route("POST", "/v2.0/subnets", wires.create_subnets, "create_subnet", wire_bodies.NEW_SUBNET, 201),
    Route("PUT", "/v2.0/subnets/{id}", wires.update_subnet, "update_subnet", wire_bodies.CHANGE_SUBNET),
    Route("DELETE", "/v2.0/subnets/{id}", wires.delete_subnet, "delete_subnet", status=204),
    Route("POST", "/v2.0/subnetpools", pools.create_pools, "create_subnetpool", pool_bodies.NEW_POOL, 201),
    Route("PUT", "/v2.0/subnetpools/{id}", pools.update_pool, "update_subnetpool", pool_bodies.CHANGE_POOL),
    Route("DELETE", "/v2.0/subnetpools/{id}", pools.delete_pool, "delete_subnetpool", status=204),
    Route("POST", "/v2.0/ports", wires.create_ports, "create_port", wire_bodies.NEW_PORT, 201),
    Route("PUT", "/v2.0/ports/{id}", wires.update_port, "update_port", wire_bodies.CHANGE_PORT),
    Route("DELETE", "/v2.0/ports/{id}", wires.delete_port, "delete_port", status=204),
    Route("POST", "/v2.0/routers", routing.create_routers, "create_router", routing_bodies.NEW_ROUTER, 201),
    Route("PUT", "/v2.0/routers/{id}", routing.update_router, "update_router", routing_bodies.CHANGE_ROUTER),
    Route("DELETE", "/v2.0/routers/{id}", routing.delete_router, "delete_router", status=204),
    Route("PUT", "/v2.0/routers/{id}/add_router_interface", routing.add_interface, "add_router_interface", _INTERFACE),
    Route("PUT", "/v2.0/routers/{id}/remove_router_interface", routing.remove_interface, "remove_router_interface", _INTERFACE),
    Route("GET", "/v2.0/routers/{id}/l3-agents", about.agents_of_router, "get_l3-agents"),
    Route("POST", "/v2.0/floatingips", routing.create_floating_ips, "create_floatingip", routing_bodies.NEW_FLOATING, 201),
    Route("PUT", "/v2.0/floatingips/{id}", routing.update_floating_ip, "update_floatingip", routing_bodies.CHANGE_FLOATING),
    Route("DELETE", "/v2.0/floatingips/{id}", routing.delete_floating_ip, "delete_floatingip", status=204),
    Route("GET", "/v2.0/security-groups", security.list_groups, "get_security_group"),
    Route("GET", "/v2.0/security-groups/{id}", GROUPS.show, "get_security_group"),
    Route("POST", "/v2.0/security-groups", security.create_groups, "create_security_group", security_bodies.NEW_GROUP, 201),
    Route("PUT", "/v2.0/security-groups/{id}", security.update_group, "update_security_group", security_bodies.CHANGE_GROUP),
    Route("DELETE", "/v2.0/security-groups/{id}", security.delete_group, "delete_security_group", status=204),
    Route("POST", "/v2.0/security-group-rules", security.create_rules, "create_security_group_rule", security_bodies.NEW_RULE, 201),
    Route("DELETE", "/v2.0/security-group-rules/{id}", security.delete_rule, "delete_security_group_rule", status=204),
    *(route for wire in (NETWORKS, SUBNETS, POOLS, PORTS, ROUTERS, FLOATING_IPS, GROUP_RULES) for route in _read(wire)),
    *(route for wire in (NETWORKS, SUBNETS, POOLS, PORTS, ROUTERS, FLOATING_IPS, GROUPS) for route in _tags(wire)),
    Route("GET", "/v2.0/agents", about.list_agents, "get_agent"),
    Route("GET", "/v2.0/agents/{id}", about.show_agent, "get_agent"),
    Route("GET", "/v2.0/agents/{id}/dhcp-networks", about.networks_of_agent, "get_dhcp-networks"),
    Route("GET", "/v2.0/agents/{id}/l3-routers", about.routers_of_agent, "get_l3-routers"),
    Route("GET", "/v2.0/availability_zones", about.zones, "get_availability_zone"),
    Route("GET", "/v2.0/service-providers", about.service_providers, "get_service_provider"),
    Route("GET", "/v2.0/quotas", about.list_quotas, "get_quota"),
    Route("GET", "/v2.0/quotas/{id}", about.show_quota, "get_quota"),
    Route("GET", "/v2.0/quotas/{id}/default", about.default_quota, "get_quota"),
    Route("GET", "/v2.0/quotas/{id}/details.json", about.quota_details, "get_quota"),
    Route("GET", "/v2.0/quotas/{id}/details", about.quota_details, "get_quota"),
    Route("PUT", "/v2.0/quotas/{id}", about.update_quota, "update_quota", quota_bodies.CHANGE_QUOTA),
    Route("DELETE", "/v2.0/quotas/{id}", about.reset_quota, "delete_quota", status=204),
)
SERVICE = Service(name="network", type="network", prefix="/network", routes=ROUTES, rules=RULES, render_error=rendered, title="Networking",
                  forbidden="rule:{rule} is disallowed by policy")  # fmt: skip
