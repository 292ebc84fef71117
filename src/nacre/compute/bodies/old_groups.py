"""Security groups on compute's wire, until 2.35."""

from typing import Annotated, Any

import msgspec

from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\S")]

UUID = r"^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$"


class Group:
    name: Text
    description: Annotated[str, msgspec.Meta(max_length=255)]


class Rule:
    parent_group_id: Annotated[str, msgspec.Meta(pattern=UUID)]
    ip_protocol: str | UnsetType | None = UNSET
    from_port: int | UnsetType | None = UNSET
    to_port: int | UnsetType | None = UNSET
    cidr: str | UnsetType | None = UNSET
    group_id: str | UnsetType | None = UNSET


GROUP, RULE = Body("security_group", Group), Body("security_group_rule", Rule)


def wanted(body: Any) -> dict[str, Any]:
    """The rule in the network's words: -1 is any type of ICMP, an absent range is everywhere. Raises BadRequest."""
    if body.group_id and body.cidr:
        raise BadRequest("A rule is for a cidr or for a group_id, not for both.")
    if body.ip_protocol is UNSET and not body.group_id:
        raise BadRequest("Invalid input for field/attribute security_group_rule. 'ip_protocol' is a required property")
    low, high = (None if port in (UNSET, -1) else port for port in (body.from_port, body.to_port))
    said = {"protocol": body.ip_protocol, "remote_ip_prefix": body.cidr, "remote_group_id": body.group_id}
    return {name: value for name, value in said.items() if value not in (UNSET, None, "")} | {"port_range_min": low, "port_range_max": high}
