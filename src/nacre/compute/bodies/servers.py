"""What a user sends about servers."""

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from nacre.compute.bodies import common
from nacre.compute.bodies.common import Anything, Flag, Metadata, truth
from nacre.compute.service.quotas import InjectedFile
from nacre.compute.service.servers import Order
from nacre.core.errors import BadRequest
from nacre.core.versions import UNSET, Body, UnsetType, Version, since, versioned

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=60, pattern="^[^,/]*$")]
Description = Annotated[str, msgspec.Meta(max_length=255)]
UserData = Annotated[str, msgspec.Meta(max_length=65535)]
Certificates = Annotated[list[_Text], msgspec.Meta(min_length=1, max_length=50)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@versioned
class Nic:
    uuid: str | UnsetType | None = UNSET
    port: str | UnsetType | None = UNSET
    fixed_ip: str | UnsetType | None = UNSET
    tag: Annotated[Tag | UnsetType, since(2, 32)] = UNSET


class File(msgspec.Struct, forbid_unknown_fields=True):
    path: Annotated[str, msgspec.Meta(min_length=1)]
    contents: str


class Group(msgspec.Struct, forbid_unknown_fields=True):
    name: _Text


@versioned
class CreateServer:
    name: _Text
    flavorRef: str | int
    imageRef: str | UnsetType = UNSET
    networks: list[Nic] | Literal["auto", "none"] | UnsetType = UNSET
    adminPass: str | UnsetType = UNSET
    metadata: Metadata = {}
    accessIPv4: str | UnsetType = UNSET
    accessIPv6: str | UnsetType = UNSET
    disk_config: Literal["AUTO", "MANUAL"] = "MANUAL"
    personality: Annotated[list[File] | UnsetType, since(0, 0, (2, 56))] = UNSET
    availability_zone: _Text | UnsetType = UNSET
    block_device_mapping: list[dict[str, Any]] | UnsetType = UNSET
    block_device_mapping_v2: list[dict[str, Any]] | UnsetType = UNSET
    config_drive: Flag = False
    key_name: _Text | UnsetType = UNSET
    min_count: _Count | UnsetType = UNSET
    max_count: _Count | UnsetType = UNSET
    return_reservation_id: Flag = False
    security_groups: list[Group] | UnsetType = UNSET
    user_data: UserData | UnsetType = UNSET
    description: Annotated[Description | None, since(2, 19)] = None
    tags: Annotated[Annotated[list[Tag], msgspec.Meta(max_length=50)], since(2, 52)] = []
    trusted_image_certificates: Annotated[Certificates | None, since(2, 63)] = None
    host: Annotated[_Text | UnsetType, since(2, 74)] = UNSET
    hypervisor_hostname: Annotated[_Text | UnsetType, since(2, 74)] = UNSET
    hostname: Annotated[_Text | UnsetType, since(2, 90)] = UNSET

    __rename__ = {"disk_config": "OS-DCF:diskConfig"}


class Create:
    server: CreateServer
    hints: dict[str, Any] = {}
    old_hints: dict[str, Any] = {}

    __rename__ = {"hints": "os:scheduler_hints", "old_hints": "OS-SCH-HNT:scheduler_hints"}


class UpdateServer:
    name: _Text | UnsetType = UNSET
    accessIPv4: str | UnsetType = UNSET
    accessIPv6: str | UnsetType = UNSET
    disk_config: Literal["AUTO", "MANUAL"] | UnsetType = UNSET
    description: Annotated[Description | UnsetType | None, since(2, 19)] = UNSET
    hostname: Annotated[_Text | UnsetType, since(2, 90)] = UNSET

    __rename__ = {"disk_config": "OS-DCF:diskConfig"}


CREATE, UPDATE = Body(None, Create), Body("server", UpdateServer)


class MetadataItems:
    metadata: Metadata


class MetaItem:
    meta: Metadata


class Tags:
    tags: Annotated[list[Tag], msgspec.Meta(max_length=50)]


METADATA, META_ITEM, TAGS = Body(None, MetadataItems), Body(None, MetaItem), Body(None, Tags)


class Reboot:
    type: Literal["SOFT", "HARD", "soft", "hard", "Soft", "Hard"]


class ResetState:
    state: Literal["active", "error"]


class GroupName:
    name: Annotated[str, msgspec.Meta(min_length=1)]


class NewFixedIp:
    networkId: Annotated[str, msgspec.Meta(min_length=1, max_length=36)] | int


class Address:
    address: str


class NewFloatingIp:
    address: str
    fixed_address: str | UnsetType = UNSET


class ConsoleOutput:
    length: Annotated[int, msgspec.Meta(ge=-1)] | None = None


class VncConsole:
    type: Literal["novnc", "xvpvnc"]


class SpiceConsole:
    type: Literal["spice-html5"]


class SerialConsole:
    type: Literal["serial"]


class RemoteConsole:
    protocol: Literal["vnc", "spice", "rdp", "serial", "mks"]
    type: Literal["novnc", "xvpvnc", "spice-html5", "rdp-html5", "serial", "webmks"]


class Bare(Anything):
    """An action whose value means nothing."""


REBOOT, RESET_STATE, CONSOLE_OUTPUT = Body("reboot", Reboot), Body("os-resetState", ResetState), Body("os-getConsoleOutput", ConsoleOutput)
ADD_GROUP, REMOVE_GROUP = Body("addSecurityGroup", GroupName), Body("removeSecurityGroup", GroupName)
ADD_FIXED, REMOVE_FIXED = Body("addFixedIp", NewFixedIp), Body("removeFixedIp", Address)
ADD_FLOATING, REMOVE_FLOATING = Body("addFloatingIp", NewFloatingIp), Body("removeFloatingIp", Address)
REMOTE_CONSOLE, BARE = Body("remote_console", RemoteConsole), Bare()
VNC, SPICE, SERIAL = Body("os-getVNCConsole", VncConsole), Body("os-getSPICEConsole", SpiceConsole), Body("os-getSerialConsole", SerialConsole)


def lock_reason(value: Any) -> str | None:
    """Raises BadRequest."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() - {"locked_reason"}:
        unknown = ", ".join(sorted(value)) if isinstance(value, dict) else value
        raise BadRequest(f"Invalid input for field/attribute lock. Additional properties are not allowed ({unknown!r} was unexpected)")
    reason = value.get("locked_reason", "-")
    if not isinstance(reason, str) or not 1 <= len(reason) <= 255:
        raise BadRequest(f"Invalid input for field/attribute locked_reason. Value: {reason}. A string of 1 to 255 characters is expected")
    return value.get("locked_reason")


def order(body: Any, version: Version) -> Order:
    """A create body in domain words. Raises BadRequest for what shapes cannot say."""
    server = body.server
    least = 1 if server.min_count is UNSET else server.min_count
    most = least if server.max_count is UNSET else server.max_count
    if least > most:
        raise BadRequest("min_count must be <= max_count")
    zone, host = _place(server)
    groups = () if server.security_groups is UNSET else tuple(dict.fromkeys(group.name for group in server.security_groups))
    hostname = getattr(server, "hostname", UNSET)
    if hostname is not UNSET:
        check_hostname(hostname, version)
        if most > 1:
            raise BadRequest("hostname can not be given when several servers are made at once.")
    return Order(
        name=_named(server.name), flavor_id=str(server.flavorRef).rpartition("/")[2], image_id=_image(server, version),
        networks=_networks(server, version), root_tag=_root_tag(server),
        security_groups=groups, key_name=given(server.key_name), user_data=plain_user_data(given(server.user_data)),
        config_drive=truth(server.config_drive), files=injected(server), metadata=common.metadata(server.metadata),
        description=_description(server, version), hostname=None if hostname is UNSET else hostname,
        certificates=certificates(getattr(server, "trusted_image_certificates", None)),
        tags=getattr(server, "tags", ()), hints=body.hints or body.old_hints, zone=zone, host=host, disk_config=server.disk_config,
        access=(access(server).get(ACCESS[0]), access(server).get(ACCESS[1])), counts=(least, most),
    )  # fmt: skip


def certificates(ids: list[str] | None) -> list[str] | None:
    if ids is not None and len(set(ids)) < len(ids):
        raise BadRequest(f"Invalid input for field/attribute trusted_image_certificates. Value: {ids}. {ids} has non-unique elements")
    return ids


def given(value: Any) -> Any:
    return None if value is UNSET else value


ACCESS = ("access_ip_v4", "access_ip_v6")


def access(body: Any) -> dict[str, str]:
    """The addresses that a body says a server is reached by, by column."""
    told = zip(ACCESS, (("accessIPv4", 4), ("accessIPv6", 6)), strict=True)
    return {column: common.address(wire, getattr(body, wire), version) for column, (wire, version) in told if getattr(body, wire) is not UNSET}


def _named(name: str) -> str:
    if not name.strip():
        raise BadRequest("Invalid input for field/attribute name. Value: ' '. It is too short.")
    return name.strip()


def _description(server: Any, version: Version) -> str | None:
    """Before 2.19 the description is the name."""
    found: str | None = server.description if version >= (2, 19) else server.name
    return found


def _place(server: Any) -> tuple[str | None, str | None]:
    """(zone, host): of `zone`, `zone:host`, `zone::node`, or the fields of 2.74."""
    zone = None if server.availability_zone is UNSET else server.availability_zone
    parts = (zone or "").split(":")
    if len(parts) > 3:
        raise BadRequest("Invalid input received: Unable to parse availability_zone")
    named = [getattr(server, "host", UNSET), getattr(server, "hypervisor_hostname", UNSET)]
    given = next((name for name in named if name is not UNSET), None)
    forced = next((part for part in parts[1:] if part), None)
    if given and forced:
        raise BadRequest("Unable to specify the field 'host' and 'hypervisor_hostname' with an availability zone that names a host.")
    return parts[0] or None, given or forced


_DEVICE = {"boot_index", "uuid", "source_type", "destination_type", "device_name", "device_type", "disk_bus", "guest_format", "volume_size",
           "delete_on_termination", "no_device", "connection_info", "snapshot_id", "volume_id", "image_id", "virtual_name"}  # fmt: skip


def _check_devices(server: Any, version: Version) -> None:
    tagged, typed = version == (2, 32) or version >= (2, 42), version >= (2, 67)
    known = _DEVICE | ({"tag"} if tagged else set()) | ({"volume_type"} if typed else set())
    for device in [] if server.block_device_mapping_v2 is UNSET else server.block_device_mapping_v2:
        for name in device.keys() - known:
            raise BadRequest("Invalid input for field/attribute block_device_mapping_v2. "
                             f"Additional properties are not allowed ('{name}' was unexpected)")  # fmt: skip
        if "tag" in device and (not isinstance(device["tag"], str) or not re.fullmatch("[^,/]{1,60}", device["tag"])):
            raise BadRequest(f"Invalid input for field/attribute block_device_mapping_v2.tag. Value: {device['tag']}. "
                             "A string of 1 to 60 characters without ',' and '/' is expected")  # fmt: skip


def _root_tag(server: Any) -> str | None:
    devices = [] if server.block_device_mapping_v2 is UNSET else server.block_device_mapping_v2
    return next((device["tag"] for device in devices if "tag" in device), None)


def _image(server: Any, version: Version) -> str:
    _check_devices(server, version)
    for name in ("block_device_mapping", "block_device_mapping_v2"):
        for device in [] if getattr(server, name) is UNSET else getattr(server, name):
            if device.get("source_type") != "image" or device.get("destination_type") != "local":
                raise BadRequest(f"Invalid input for field/attribute {name}. Booting from volumes is not offered by this cloud yet.")
            server.imageRef = server.imageRef or device.get("uuid", "")
    if server.imageRef is UNSET or not server.imageRef:
        raise BadRequest("Block Device Mapping is Invalid: no image was given.")
    image_id: str = server.imageRef.rpartition("/")[2]
    if not _UUID.fullmatch(image_id):
        raise BadRequest(f"Invalid imageRef provided: '{server.imageRef}' is not a 'uuid'")
    return image_id


def _networks(server: Any, version: Version) -> Any:
    if server.networks is UNSET:
        if version >= (2, 37):
            raise BadRequest("Invalid input for field/attribute server. 'networks' is a required property")
        return None
    if isinstance(server.networks, str):
        if version < (2, 37):
            raise BadRequest("Invalid input for field/attribute networks. A list is expected before microversion 2.37.")
        return server.networks
    if (2, 37) <= version <= (2, 41) and any(nic.tag is not UNSET for nic in server.networks):  # left out by mistake
        raise BadRequest("Invalid input for field/attribute networks. Additional properties are not allowed ('tag' was unexpected)")
    for nic in server.networks:
        if nic.fixed_ip not in (UNSET, None):
            common.address("fixed_ip", nic.fixed_ip)
    nics = [{name: value for name in ("uuid", "port", "fixed_ip", "tag") if (value := getattr(nic, name, None)) not in (UNSET, None)}
            for nic in server.networks]
    if any(not nic.get("uuid") and not nic.get("port") for nic in nics):
        raise BadRequest("Bad networks format: network uuid is not in proper format ()")
    return nics or None


def plain_user_data(text: str | None) -> str | None:
    try:
        _bytes_of(text or "")
    except ValueError as error:
        raise BadRequest("Invalid input for field/attribute user_data. It is not a 'base64'") from error
    return text


def _bytes_of(text: str) -> bytes:
    """Raises ValueError for what is no base64."""
    return base64.b64decode("".join(text.split()), validate=True)


def injected(body: Any) -> tuple[InjectedFile, ...]:
    """The files of a `personality`. Raises BadRequest."""
    try:
        return tuple(InjectedFile(file.path, _bytes_of(file.contents)) for file in given(getattr(body, "personality", UNSET)) or ())
    except ValueError as error:
        raise BadRequest("Invalid input for field/attribute personality.contents. It is not a 'base64'") from error


def check_hostname(name: str, version: Version) -> None:
    """An RFC 952 name of at least two letters; a domain name from 2.94 on. Raises BadRequest."""
    if not re.fullmatch(r"[a-zA-Z0-9-._]{1,255}" if version >= (2, 94) else r"[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]", name):
        raise BadRequest(f"Invalid input for field/attribute hostname. Value: {name}. '{name}' does not match a host name")


def changes(body: Any, version: Version) -> dict[str, Any]:
    """Columns of an update."""
    values: Mapping[str, Any] = {column: getattr(body, column, UNSET) for column in ("name", "disk_config", "description", "hostname")}
    found = {column: value for column, value in values.items() if value is not UNSET} | access(body)
    if "hostname" in found:
        check_hostname(found["hostname"], version)
    if "name" in found:
        found["name"] = _named(found["name"])
    return found
