"""Handlers of flavors, their extra specs and access."""

import re
from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies import extra_specs
from nacre.compute.bodies import flavors as bodies
from nacre.compute.service import flavors
from nacre.core import paging
from nacre.core.errors import BadRequest, NotFound
from nacre.core.http import Call

_QUERY = ("limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir")
_KEY = re.compile(r"[a-zA-Z0-9-_:. ]{1,255}")


def _specs(call: Call) -> bool:
    return call.version >= (2, 61) and call.caller.allowed("os_compute_api:os-flavor-extra-specs:index")


def _number(call: Call, name: str) -> int | None:
    text = call.query.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise BadRequest(f"Invalid {name} filter [{text}]")
    return int(text)


def _listed(call: Call, kind: str) -> tuple[Any, str | None]:
    common.strict_query(call, _QUERY)
    for way in call.query.getlist("sort_dir"):
        if way not in ("asc", "desc"):
            raise BadRequest(f"Invalid input for query parameters sort_dir. Value: {way}. '{way}' is not one of ['asc', 'desc']")
    page = paging.page_of(call.query, most=1000, keys=(("id", "asc"),), sortable=flavors.SORTABLE)
    public = call.query.get("is_public")
    wanted = True if public is None else None if public.lower() == "none" else call.flag("is_public")
    rows, more = flavors.listed(call.caller, page, {"is_public": wanted, "min_ram": _number(call, "minRam"), "min_disk": _number(call, "minDisk")})
    return rows, paging.link(f"{call.url}/v2.1/{kind}", call.query, rows[-1].id) if more else None


def index(call: Call) -> dict[str, Any]:
    rows, following = _listed(call, "flavors")
    return common.page("flavors", [bodies.basic(row, call.url, call.version) for row in rows], following)


def detail(call: Call) -> dict[str, Any]:
    rows, following = _listed(call, "flavors/detail")
    specs = _specs(call)
    return common.page("flavors", [bodies.detail(row, call.url, call.version, specs) for row in rows], following)


def show(call: Call) -> dict[str, Any]:
    return {"flavor": bodies.detail(flavors.show(call.caller, call.path["id"]), call.url, call.version, _specs(call))}


def create(call: Call) -> dict[str, Any]:
    return {"flavor": bodies.detail(flavors.create(call.caller, bodies.values(call.body)), call.url, call.version, _specs(call))}


def update(call: Call) -> dict[str, Any]:
    return {"flavor": bodies.detail(flavors.update(call.caller, call.path["id"], call.body.description), call.url, call.version, _specs(call))}


def delete(call: Call) -> None:
    flavors.delete(call.caller, call.path["id"])


def _checked(call: Call, specs: dict[str, Any]) -> dict[str, str]:
    for key, value in specs.items():
        if not _KEY.fullmatch(key):
            raise BadRequest(f"Invalid input for field/attribute extra_specs. '{key}' does not match the regex: '^[a-zA-Z0-9-_:. ]{{1,255}}$'")
        if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > 255:
            raise BadRequest(f"Invalid input for field/attribute {key}. Value: {value}. A string of at most 255 characters or a number is expected")
    plain = {key: str(value) for key, value in specs.items()}
    if call.version >= (2, 86):
        extra_specs.check(plain)
    return plain


def show_extra_specs(call: Call) -> dict[str, Any]:
    return {"extra_specs": flavors.show(call.caller, call.path["id"]).extra_specs}


def set_extra_specs(call: Call) -> dict[str, Any]:
    flavors.set_extra_specs(call.caller, call.path["id"], _checked(call, call.body.extra_specs))
    return {"extra_specs": call.body.extra_specs}


def extra_spec(call: Call) -> dict[str, Any]:
    specs, key = flavors.show(call.caller, call.path["id"]).extra_specs, call.path["key"]
    if key not in specs:
        raise NotFound(f"Flavor {call.path['id']} has no extra specs with key {key}.")
    return {key: specs[key]}


def set_extra_spec(call: Call) -> dict[str, Any]:
    one, key = call.body, call.path["key"]
    if list(one) != [key]:
        raise BadRequest("Invalid body format: the key of the body and of the address differ.")
    flavors.set_extra_specs(call.caller, call.path["id"], _checked(call, one))
    return dict(one)


def delete_extra_spec(call: Call) -> None:
    flavors.delete_extra_spec(call.caller, call.path["id"], call.path["key"])


def _access(flavor_id: str, projects: list[str]) -> dict[str, Any]:
    return {"flavor_access": [{"flavor_id": flavor_id, "tenant_id": project} for project in projects]}


def access(call: Call) -> dict[str, Any]:
    return _access(call.path["id"], flavors.access(call.caller, call.path["id"]))


def grant(call: Call) -> dict[str, Any]:
    return _access(call.path["id"], flavors.grant(call.caller, call.path["id"], call.body.tenant, call.version >= (2, 7)))


def revoke(call: Call) -> dict[str, Any]:
    return _access(call.path["id"], flavors.revoke(call.caller, call.path["id"], call.body.tenant))
