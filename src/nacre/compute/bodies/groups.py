"""Server groups on the wire. From 2.64 on one `policy` with `rules`; before, a list of one policy, and an empty `metadata`."""

from typing import Annotated, Any, Literal

import msgspec

from nacre.compute.service.groups import Group
from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType, Version, since

Hard = Literal["anti-affinity", "affinity"]
Any4 = Literal["anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity"]


class Rules(msgspec.Struct, forbid_unknown_fields=True):
    max_server_per_host: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET


class CreateGroup:
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    policies: Annotated[Annotated[list[Any4], msgspec.Meta(min_length=1, max_length=1)], since(0, 0, (2, 63))]
    policy: Annotated[Any4, since(2, 64)]
    rules: Annotated[Rules | None, since(2, 64)] = None


CREATE = Body("server_group", CreateGroup)


def wanted(body: Any, version: Version) -> tuple[str, str, dict[str, Any]]:
    """(name, policy, rules). Raises BadRequest."""
    policy = body.policy if version >= (2, 64) else body.policies[0]
    if version < (2, 15) and policy.startswith("soft-"):
        raise BadRequest(f"Invalid input for field/attribute policies. Value: {policy}. It is not one of ['anti-affinity', 'affinity']")
    rules = getattr(body, "rules", None)
    said = rules is not None and rules.max_server_per_host is not UNSET
    if said and policy != "anti-affinity":
        raise BadRequest("Only anti-affinity policy supports rules.")
    return body.name, policy, {"max_server_per_host": rules.max_server_per_host} if rules is not None and said else {}


def view(group: Group, version: Version) -> dict[str, Any]:
    row = group.row
    shown: dict[str, Any] = {"id": row.id, "name": row.name, "members": list(group.members)}
    shown |= {"policy": row.policy, "rules": row.rules} if version >= (2, 64) else {"policies": [row.policy], "metadata": {}}
    return shown | ({"project_id": row.project_id, "user_id": row.user_id} if version >= (2, 13) else {})
