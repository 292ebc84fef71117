"""What a user sends to change what a server is made of."""

from typing import Annotated, Any, Literal

import msgspec

from nacre.compute.bodies.servers import Metadata, Tag, _Text, check_hostname, plain_user_data
from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType, Version, since


class CreateImage:
    name: _Text
    metadata: Metadata = {}


class RebuildServer:
    imageRef: str
    name: _Text | UnsetType = UNSET
    adminPass: str | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    preserve_ephemeral: bool = False
    accessIPv4: str | UnsetType = UNSET
    accessIPv6: str | UnsetType = UNSET
    disk_config: Literal["AUTO", "MANUAL"] | UnsetType = UNSET
    personality: Annotated[list[Any] | UnsetType, since(0, 0, (2, 56))] = UNSET
    description: Annotated[str | UnsetType | None, since(2, 19)] = UNSET
    key_name: Annotated[str | UnsetType | None, since(2, 54)] = UNSET
    user_data: Annotated[Annotated[str, msgspec.Meta(max_length=65535)] | UnsetType | None, since(2, 57)] = UNSET
    trusted_image_certificates: Annotated[list[str] | UnsetType | None, since(2, 63)] = UNSET
    hostname: Annotated[_Text | UnsetType, since(2, 90)] = UNSET

    __rename__ = {"disk_config": "OS-DCF:diskConfig"}


class Resize:
    flavorRef: str | int
    disk_config: Literal["AUTO", "MANUAL"] | UnsetType = UNSET

    __rename__ = {"disk_config": "OS-DCF:diskConfig"}


class FixedIp(msgspec.Struct, forbid_unknown_fields=True):
    ip_address: str


class Interface:
    port_id: str | UnsetType = UNSET
    net_id: str | UnsetType = UNSET
    fixed_ips: list[FixedIp] | UnsetType = UNSET
    tag: Annotated[Tag | UnsetType, since(2, 49)] = UNSET


CREATE_IMAGE, REBUILD, RESIZE = Body("createImage", CreateImage), Body("rebuild", RebuildServer), Body("resize", Resize)
INTERFACE = Body("interfaceAttachment", Interface)


def rebuilt(body: Any, version: Version) -> tuple[str, dict[str, Any]]:
    """(image id, columns) of a rebuild."""
    wires = {"name": "name", "accessIPv4": "access_ip_v4", "accessIPv6": "access_ip_v6", "disk_config": "disk_config", "metadata": "meta",
             "description": "description", "key_name": "key_name", "user_data": "user_data", "hostname": "hostname"}  # fmt: skip
    values = {column: getattr(body, wire, UNSET) for wire, column in wires.items()}
    found = {column: value for column, value in values.items() if value is not UNSET}
    if "hostname" in found:
        check_hostname(found["hostname"], version)
    if found.get("user_data"):
        plain_user_data(found["user_data"])
    return body.imageRef.rpartition("/")[2], found


def requested(body: Any) -> list[dict[str, Any]] | None:
    """What a new interface is to be, in the words of a create's networks; None: not said. Raises BadRequest."""
    if body.port_id is not UNSET and body.net_id is not UNSET:
        raise BadRequest("Must not input both network_id and port_id")
    if body.fixed_ips is not UNSET and (body.net_id is UNSET or len(body.fixed_ips) > 1):
        raise BadRequest("Must input network_id when request IP address" if body.net_id is UNSET else "One fixed IP can be given.")
    if body.port_id is not UNSET:
        return [{"port": body.port_id}]
    if body.net_id is UNSET:
        return None
    return [{"uuid": body.net_id} | ({"fixed_ip": body.fixed_ips[0].ip_address} if body.fixed_ips else {})]
