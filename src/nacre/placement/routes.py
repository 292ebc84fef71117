"""The Placement API as a table. Rule names and defaults are upstream's."""

from nacre.core.http import PUBLIC, Route, Service
from nacre.core.versions import Body
from nacre.placement import api, bodies

_RP = "placement:resource_providers"
_SYSTEM = "rule:admin_or_service_api"
RULES: dict[str, str] = {
    "admin_api": "role:admin",
    "service_api": "role:service",
    "admin_or_service_api": "role:admin or role:service",
    "project_reader_api": "role:reader and project_id:%(project_id)s",
    "admin_or_project_reader_or_service_api": "role:admin or rule:project_reader_api or role:service",
    **{f"{_RP}:{verb}": _SYSTEM for verb in ("list", "create", "show", "update", "delete")},
    **{f"{_RP}:inventories:{verb}": _SYSTEM for verb in ("list", "create", "show", "update", "delete")},
    **{f"{_RP}:aggregates:{verb}": _SYSTEM for verb in ("list", "update")},
    **{f"{_RP}:traits:{verb}": _SYSTEM for verb in ("list", "update", "delete")},
    f"{_RP}:usages": _SYSTEM,
    f"{_RP}:allocations:list": _SYSTEM,
    "placement:usages": "rule:admin_or_project_reader_or_service_api",
    **{f"placement:resource_classes:{verb}": _SYSTEM for verb in ("list", "create", "show", "update", "delete")},
    **{f"placement:traits:{verb}": _SYSTEM for verb in ("list", "show", "update", "delete")},
    **{f"placement:allocations:{verb}": _SYSTEM for verb in ("list", "manage", "update", "delete")},
    "placement:allocation_candidates:list": _SYSTEM,
}

_ONE = "/resource_providers/{uuid}"
_INVENTORY = f"{_ONE}/inventories/{{resource_class}}"
_CLASS = "/resource_classes/{name}"
_CLASSES, _TRAITS, _ALLOCATIONS = "placement:resource_classes", "placement:traits", "placement:allocations"
ROUTES: tuple[Route, ...] = (
    Route("GET", "/", api.versions, PUBLIC),
    Route("GET", "/resource_providers", api.list_providers, f"{_RP}:list"),
    Route("POST", "/resource_providers", api.create_provider, f"{_RP}:create", body=Body(None, bodies.NewProvider)),
    Route("GET", _ONE, api.show_provider, f"{_RP}:show"),
    Route("PUT", _ONE, api.update_provider, f"{_RP}:update", body=Body(None, bodies.ChangedProvider)),
    Route("DELETE", _ONE, api.delete_provider, f"{_RP}:delete", status=204),
    Route("GET", f"{_ONE}/inventories", api.list_inventories, f"{_RP}:inventories:list"),
    Route("POST", f"{_ONE}/inventories", api.create_inventory, f"{_RP}:inventories:create", body=Body(None, bodies.NewInventory)),
    Route("PUT", f"{_ONE}/inventories", api.replace_inventories, f"{_RP}:inventories:update", body=Body(None, bodies.Inventories)),
    Route("DELETE", f"{_ONE}/inventories", api.delete_inventories, f"{_RP}:inventories:delete", status=204, since=(1, 5)),
    Route("GET", _INVENTORY, api.show_inventory, f"{_RP}:inventories:show"),
    Route("PUT", _INVENTORY, api.update_inventory, f"{_RP}:inventories:update", body=Body(None, bodies.ChangedInventory)),
    Route("DELETE", _INVENTORY, api.delete_inventory, f"{_RP}:inventories:delete", status=204),
    Route("GET", f"{_ONE}/usages", api.provider_usages, f"{_RP}:usages"),
    Route("GET", f"{_ONE}/allocations", api.provider_allocations, f"{_RP}:allocations:list"),
    Route("GET", f"{_ONE}/aggregates", api.list_aggregates, f"{_RP}:aggregates:list", since=(1, 1)),
    Route("PUT", f"{_ONE}/aggregates", api.replace_aggregates, f"{_RP}:aggregates:update", body=bodies.OLD_AGGREGATES, since=(1, 1), until=(1, 18)),
    Route("PUT", f"{_ONE}/aggregates", api.replace_aggregates, f"{_RP}:aggregates:update", body=Body(None, bodies.Aggregates), since=(1, 19)),
    Route("GET", f"{_ONE}/traits", api.provider_traits, f"{_RP}:traits:list", since=(1, 6)),
    Route("PUT", f"{_ONE}/traits", api.replace_traits, f"{_RP}:traits:update", body=Body(None, bodies.Traits), since=(1, 6)),
    Route("DELETE", f"{_ONE}/traits", api.delete_traits, f"{_RP}:traits:delete", status=204, since=(1, 6)),
    Route("GET", "/usages", api.usages, "placement:usages", since=(1, 9)),
    Route("GET", "/resource_classes", api.list_classes, f"{_CLASSES}:list", since=(1, 2)),
    Route("POST", "/resource_classes", api.create_class, f"{_CLASSES}:create", body=Body(None, bodies.NamedClass), since=(1, 2)),
    Route("GET", _CLASS, api.show_class, f"{_CLASSES}:show", since=(1, 2)),
    Route("PUT", _CLASS, api.rename_class, f"{_CLASSES}:update", body=Body(None, bodies.NamedClass), since=(1, 2), until=(1, 6)),
    Route("PUT", _CLASS, api.put_class, f"{_CLASSES}:update", since=(1, 7)),
    Route("DELETE", _CLASS, api.delete_class, f"{_CLASSES}:delete", status=204, since=(1, 2)),
    Route("GET", "/traits", api.list_traits, f"{_TRAITS}:list", since=(1, 6)),
    Route("GET", "/traits/{name}", api.show_trait, f"{_TRAITS}:show", since=(1, 6)),
    Route("PUT", "/traits/{name}", api.put_trait, f"{_TRAITS}:update", since=(1, 6)),
    Route("DELETE", "/traits/{name}", api.delete_trait, f"{_TRAITS}:delete", status=204, since=(1, 6)),
    Route("POST", "/allocations", api.post_allocations, f"{_ALLOCATIONS}:manage", body=bodies.MANY_ALLOCATIONS, status=204, since=(1, 13)),
    Route("GET", "/allocations/{consumer_uuid}", api.show_allocations, f"{_ALLOCATIONS}:list"),
    Route("PUT", "/allocations/{consumer_uuid}", api.put_allocations, f"{_ALLOCATIONS}:update", body=bodies.ALLOCATION, status=204),
    Route("DELETE", "/allocations/{consumer_uuid}", api.delete_allocations, f"{_ALLOCATIONS}:delete", status=204),
    Route("GET", "/allocation_candidates", api.allocation_candidates, "placement:allocation_candidates:list", since=(1, 10)),
)  # fmt: skip
SERVICE = Service(name="placement", type="placement", prefix="/placement", routes=ROUTES, rules=RULES, render_error=api.error,
                  microversions=api.MICROVERSIONS, title="placement")  # fmt: skip
