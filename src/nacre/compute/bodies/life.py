"""What a user sends to change what a server is made of."""

from typing import Annotated, Any, Literal

import msgspec

from nacre.compute.bodies import common
from nacre.compute.bodies.common import Flag, Metadata
from nacre.compute.bodies.servers import (
    Certificates,
    Description,
    File,
    Tag,
    UserData,
    _Text,
    access,
    certificates,
    check_hostname,
    injected,
    plain_user_data,
)
from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType, Version, since


class CreateImage:
    name: _Text
    metadata: Metadata = {}


class CreateBackup:
    name: _Text
    backup_type: Annotated[str, msgspec.Meta(max_length=255)]
    rotation: Annotated[int, msgspec.Meta(ge=0)]
    metadata: Metadata = {}


class RebuildServer:
    imageRef: str
    name: _Text | UnsetType = UNSET
    adminPass: str | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    preserve_ephemeral: Flag = False
    accessIPv4: str | UnsetType = UNSET
    accessIPv6: str | UnsetType = UNSET
    disk_config: Literal["AUTO", "MANUAL"] | UnsetType = UNSET
    personality: Annotated[list[File] | UnsetType, since(0, 0, (2, 56))] = UNSET
    description: Annotated[Description | UnsetType | None, since(2, 19)] = UNSET
    key_name: Annotated[_Text | UnsetType | None, since(2, 54)] = UNSET
    user_data: Annotated[UserData | UnsetType | None, since(2, 57)] = UNSET
    trusted_image_certificates: Annotated[Certificates | UnsetType | None, since(2, 63)] = UNSET
    hostname: Annotated[_Text | UnsetType, since(2, 90)] = UNSET

    __rename__ = {"disk_config": "OS-DCF:diskConfig"}


class Resize:
    flavorRef: Annotated[str, msgspec.Meta(min_length=1)] | int
    disk_config: Literal["AUTO", "MANUAL"] | UnsetType = UNSET

    __rename__ = {"disk_config": "OS-DCF:diskConfig"}


class FixedIp(msgspec.Struct, forbid_unknown_fields=True):
    ip_address: str


class Interface:
    port_id: str | UnsetType = UNSET
    net_id: str | UnsetType = UNSET
    fixed_ips: Annotated[list[FixedIp], msgspec.Meta(min_length=1, max_length=1)] | UnsetType = UNSET
    tag: Annotated[Tag | UnsetType, since(2, 49)] = UNSET


CREATE_BACKUP = Body("createBackup", CreateBackup)
CREATE_IMAGE, REBUILD, RESIZE = Body("createImage", CreateImage), Body("rebuild", RebuildServer), Body("resize", Resize)
INTERFACE = Body("interfaceAttachment", Interface)


def rebuilt(body: Any, version: Version) -> tuple[str, dict[str, Any]]:
    """(image id, columns) of a rebuild."""
    columns = ("name", "disk_config", "description", "key_name", "user_data", "trusted_image_certificates", "hostname")
    found = {column: value for column in columns if (value := getattr(body, column, UNSET)) is not UNSET} | access(body)
    if body.metadata is not UNSET:
        found["meta"] = common.metadata(body.metadata)
    if "hostname" in found:
        check_hostname(found["hostname"], version)
    found["files"] = injected(body)
    certificates(found.get("trusted_image_certificates"))
    if found.get("user_data"):
        plain_user_data(found["user_data"])
    return body.imageRef.rpartition("/")[2], found


def requested(body: Any) -> list[dict[str, Any]]:
    """What a new interface is to be, in the words of a create's networks. Raises BadRequest."""
    if body.port_id is not UNSET and body.net_id is not UNSET:
        raise BadRequest("Must not input both network_id and port_id")
    if body.fixed_ips is not UNSET:
        common.address("ip_address", body.fixed_ips[0].ip_address)
        if body.net_id is UNSET:
            raise BadRequest("Must input network_id when request IP address")
    address = body.fixed_ips[0].ip_address if body.fixed_ips is not UNSET else UNSET
    said = {"port": body.port_id, "uuid": body.net_id, "fixed_ip": address, "tag": getattr(body, "tag", UNSET)}
    return [{name: value for name, value in said.items() if value is not UNSET}]
