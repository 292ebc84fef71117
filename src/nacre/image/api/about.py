"""What this service is and offers: versions, schemas, import methods, stores, usage. And how it refuses."""

from http import HTTPStatus
from typing import Any

from nacre.core.errors import Error, NotFound
from nacre.core.http import Call, Reply
from nacre.image import stores
from nacre.image.schema import SCHEMAS
from nacre.image.service import quotas

# Complete up to 2.17. Those of the image cache are offered where there is one, as upstream does; 2.18 (its pruning by hand) is not.
VERSIONS = tuple(f"v2.{minor}" for minor in range(17, -1, -1))
_CACHE = ("v2.16", "v2.14")


def error(error: Error, request_id: str) -> dict[str, Any]:
    title = HTTPStatus(error.code).phrase
    return {"error": {"message": error.message, "code": f"{error.code} {title}", "title": title}}


def versions(call: Call) -> Reply:
    links = [{"rel": "self", "href": f"{call.url}/v2/"}]
    offered = [version for version in VERSIONS if version not in _CACHE or call.cloud.config.DEFAULT.image_cache_dir]
    shown = [{"id": version, "status": "SUPPORTED" if n else "CURRENT", "links": links} for n, version in enumerate(offered)]
    return Reply({"versions": shown}, status=200 if call.request.url.path.rstrip("/").endswith("versions") else 300)


def show_schema(call: Call) -> Any:
    call.caller.require({})
    name = call.route.path.removeprefix("/v2/schemas/").replace("{name}", call.path["name"])
    found = SCHEMAS.get(name)
    if found is None:
        raise NotFound(f"There is no schema {name}")
    return found


def info_import(call: Call) -> dict[str, Any]:
    call.caller.require({})
    methods = {"description": "Import methods available.", "type": "array", "value": list(call.cloud.config.DEFAULT.enabled_import_methods)}
    return {"import-methods": methods}


def info_stores(call: Call) -> dict[str, Any]:
    call.caller.require({})
    return {"stores": [_store(call, store) for store in stores.all_of(call.cloud).values()]}


def info_stores_detail(call: Call) -> dict[str, Any]:
    call.caller.require({})
    every = stores.all_of(call.cloud).values()
    return {"stores": [{**_store(call, each), "type": each.kind, "properties": each.properties(), "weight": each.options.weight} for each in every]}


def _store(call: Call, store: stores.Store) -> dict[str, Any]:
    return {"id": store.id, **({"description": store.options.store_description} if store.options.store_description else {}),
            **({"default": "true"} if store.id == stores.default(call.cloud) else {}), **({"read-only": "true"} if store.read_only else {})}


def info_usage(call: Call) -> dict[str, Any]:
    call.caller.require({})
    return {"usage": quotas.usage(call.caller)}
