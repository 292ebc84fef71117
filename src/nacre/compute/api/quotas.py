"""Handlers of quota sets and limits."""

from typing import Any

from nacre import identity
from nacre.compute.api import common
from nacre.compute.bodies.common import flag
from nacre.compute.service import quotas
from nacre.core.errors import BadRequest
from nacre.core.http import Call
from nacre.core.versions import Version

_NETWORK = {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}
_FILES = {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
_MOST = 2**31 - 1
_ABSOLUTE = {
    "ram": ("maxTotalRAMSize",), "instances": ("maxTotalInstances",), "cores": ("maxTotalCores",), "key_pairs": ("maxTotalKeypairs",),
    "floating_ips": ("maxTotalFloatingIps",), "metadata_items": ("maxServerMeta", "maxImageMeta"), "injected_files": ("maxPersonality",),
    "injected_file_content_bytes": ("maxPersonalitySize",), "security_groups": ("maxSecurityGroups",),
    "security_group_rules": ("maxSecurityGroupRules",), "server_groups": ("maxServerGroups",), "server_group_members": ("maxServerGroupMembers",),
}  # fmt: skip
_USED = {"totalRAMUsed": "ram", "totalCoresUsed": "cores", "totalInstancesUsed": "instances", "totalFloatingIpsUsed": "floating_ips",
         "totalSecurityGroupsUsed": "security_groups", "totalServerGroupsUsed": "server_groups"}  # fmt: skip


def _gone(version: Version) -> set[str]:
    return _NETWORK | _FILES if version >= (2, 57) else _NETWORK if version >= (2, 36) else set()


def _project(call: Call) -> str:
    common.strict_query(call, ("user_id",))
    call.caller.require({"project_id": call.path["project"]})
    with call.caller.read() as conn:
        if not identity.project_exists(conn, call.path["project"]):
            raise BadRequest(f"Project ID {call.path['project']} is not a valid project.")
    return call.path["project"]


def _set(call: Call, values: dict[str, Any], with_id: bool = True) -> dict[str, Any]:
    shown = {name: value for name, value in values.items() if name not in _gone(call.version)}
    return {"quota_set": ({"id": call.path["project"]} if with_id else {}) | shown}


def show(call: Call) -> dict[str, Any]:
    return _set(call, quotas.show(call.caller, _project(call)))


def detail(call: Call) -> dict[str, Any]:
    return _set(call, quotas.detail(call.caller, _project(call)))


def defaults(call: Call) -> dict[str, Any]:
    _project(call)
    return _set(call, quotas.for_everybody(call.caller))


def _wanted(call: Call, word: str, *, beside: str = "") -> tuple[dict[str, int], dict[str, Any]]:
    """(limits that a body sets, the whole of it). Raises BadRequest."""
    wanted = call.body.get(word)
    if not isinstance(wanted, dict) or list(call.body) != [word]:
        raise BadRequest(f"Invalid input for field/attribute body. '{word}' is a required property")
    known = quotas.DEFAULTS.keys() - _gone(call.version)
    values = {}
    for name, value in wanted.items():
        if name == beside:
            continue
        if name not in known:
            raise BadRequest(f"Invalid input for field/attribute {word}. Additional properties are not allowed ('{name}' was unexpected)")
        if isinstance(value, bool) or not str(value).lstrip("-").isdecimal() or not -1 <= int(value) <= _MOST:
            raise BadRequest(f"Invalid input for field/attribute {name}. Value: {value}. an integer from -1 to {_MOST} is expected")
        values[name] = int(value)
    return values, wanted


def update(call: Call) -> dict[str, Any]:
    values, whole = _wanted(call, "quota_set", beside="force")
    force = flag("force", whole.get("force", False))
    return _set(call, quotas.update(call.caller, _project(call), values, force), with_id=False)


def _class(call: Call, values: dict[str, int], with_id: dict[str, Any]) -> dict[str, Any]:
    return {"quota_class_set": with_id | {name: value for name, value in values.items() if name not in _gone(call.version)}}


def show_class(call: Call) -> dict[str, Any]:
    """The class "default" is everybody's; there is no other."""
    return _class(call, quotas.for_everybody(call.caller), {"id": call.path["id"]})


def update_class(call: Call) -> dict[str, Any]:
    values, _ = _wanted(call, "quota_class_set")
    if call.path["id"] != "default":
        call.caller.require({})
        raise BadRequest(f"There is no quota class {call.path['id']} but default.")
    return _class(call, quotas.update_everybody(call.caller, values), {})


def reset(call: Call) -> None:
    quotas.reset(call.caller, _project(call))


def limits(call: Call) -> dict[str, Any]:
    common.strict_query(call, ("tenant_id",))
    allowed, used = quotas.totals(call.caller, call.query.get("tenant_id"))
    gone = _gone(call.version) - {"fixed_ips"}
    absolute = {wire: allowed[name] for name, wires in _ABSOLUTE.items() if name not in gone for wire in wires}
    if call.version >= (2, 39):
        absolute.pop("maxImageMeta")
    absolute |= {wire: used[name] for wire, name in _USED.items() if name not in gone}
    return {"limits": {"rate": [], "absolute": absolute}}
