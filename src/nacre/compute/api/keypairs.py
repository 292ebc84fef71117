"""Handlers of key pairs."""

import re
from typing import Any

from nacre.compute.api import common
from nacre.compute.bodies import keypairs as bodies
from nacre.compute.service import keypairs
from nacre.core import paging
from nacre.core.errors import BadRequest
from nacre.core.http import Call, Reply


def _user(call: Call) -> str | None:
    common.strict_query(call, ("user_id", "limit", "marker"))
    return call.query.get("user_id") if call.version >= (2, 10) else None


def index(call: Call) -> dict[str, Any]:
    paged = call.version >= (2, 35)
    page = paging.Page(paging.limit_of(call.query, 1000) if paged else None, call.query.get("marker") if paged else None, ())
    rows, more = keypairs.listed(call.caller, _user(call), page)
    following = paging.link(f"{call.url}/v2.1/os-keypairs", call.query, rows[-1].name) if more else None
    return common.page("keypairs", [{"keypair": bodies.shown(row, call.version)} for row in rows], following)


def create(call: Call) -> Reply:
    body = call.body
    allowed = r"[a-zA-Z0-9 _@.-]+" if call.version >= (2, 92) else r"[a-zA-Z0-9 _-]+"
    if not re.fullmatch(allowed, body.name):
        raise BadRequest(f"Invalid input for field/attribute name. Value: {body.name}. '{body.name}' does not match '^{allowed}$'")
    row, private = keypairs.create(call.caller, body.name, body.public_key, getattr(body, "type", "ssh"), getattr(body, "user_id", None))
    return Reply({"keypair": bodies.made(row, private, call.version)}, 201 if call.version >= (2, 2) else 200)


def show(call: Call) -> dict[str, Any]:
    return {"keypair": bodies.detail(keypairs.show(call.caller, call.path["name"], _user(call)), call.version)}


def delete(call: Call) -> Reply:
    keypairs.delete(call.caller, call.path["name"], _user(call))
    return Reply(None, 204 if call.version >= (2, 2) else 202)
