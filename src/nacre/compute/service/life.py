"""Verbs that change what a server is made of; tasks carry them out (compute/changes.py).

A rebuild writes the new image into the row at once, as upstream does: what follows, a boot of the host too, is of that image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from nacre import image as images
from nacre import network
from nacre.compute import states, tables
from nacre.compute.service import flavors, keypairs, quotas, servers
from nacre.core import db, ids, journal, nodes, quota, tasks
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, NotFound

_INHERITED_NOT = ("base_image_ref", "image_type", "instance_uuid", "user_id", "owner_id", "image_location", "image_state")


@dataclass(frozen=True)
class Backup:
    name: str
    kind: str
    rotation: int


def _begin(tx: db.Tx, caller: Caller, server_id: str, method: str) -> db.Row:
    """The locked row of a server on a host, if `method` may begin."""
    row = servers.visible(tx, caller, server_id, lock=True)
    servers.check_lock(caller, row)
    states.check(row.id, method, row.vm_state, row.task_state)
    if row.host is None:
        raise servers.nowhere(row)
    return row


def _go(tx: db.Tx, row: db.Row, method: str, args: Mapping[str, Any], **values: Any) -> None:
    kind = f"compute.{method}" + ("" if method.endswith("_resize") else "_server")
    task_id = tasks.start(tx, kind, f"server:{row.id}", {"server_id": row.id, "before": row.vm_state, **args})
    tables.move(tx, row, row.vm_state, states.VERBS[method].during, task_id=task_id, **values)
    journal.changed(tx, "server", row.id, method, ("task_state", *values))


def snapshot(caller: Caller, server_id: str, name: str, metadata: Mapping[str, str]) -> str:
    """The id of the image that is being made of the server."""
    with caller.write() as tx:
        quota.lock(tx, caller.project_id or "")
        row = _begin(tx, caller, server_id, "snapshot")
        image_id = _image_of(tx, caller, row, name, {"image_type": "snapshot", **metadata})
        _go(tx, row, "snapshot", {"image_id": image_id})
    return image_id


def backup(caller: Caller, server_id: str, wanted: Backup, metadata: Mapping[str, str]) -> str:
    """The same; once it is made only so many of its kind stay, the newest."""
    with caller.write() as tx:
        quota.lock(tx, caller.project_id or "")
        row = _begin(tx, caller, server_id, "backup")
        image_id = _image_of(tx, caller, row, wanted.name, {**metadata, "image_type": "backup", "backup_type": wanted.kind})
        kept = {"rotation": wanted.rotation, "backup_type": wanted.kind, "project_id": caller.project_id}
        _go(tx, row, "backup", {"image_id": image_id, **kept})
    return image_id


def _image_of(tx: db.Tx, caller: Caller, row: db.Row, name: str, said: Mapping[str, str]) -> str:
    quotas.check_metadata(tx, row.project_id, said)
    base = images.by_id(tx, row.image_id) if row.image_id else None
    kept = {key: value for key, value in row.image.get("properties", {}).items() if value is not None and key not in _INHERITED_NOT}
    properties = {**kept, **said, "base_image_ref": row.image_id or "", "instance_uuid": row.id, "user_id": caller.user_id or "",
                  "owner_id": row.project_id, "image_location": "snapshot", "image_state": "available"}  # fmt: skip
    least = {"min_disk": row.flavor["root_gb"] or (base.min_disk if base else 0), "min_ram": base.min_ram if base else 0}
    return images.begin_snapshot(tx, caller, name, least, properties)


def rebuild(caller: Caller, server_id: str, image_id: str, values: Mapping[str, Any]) -> None:
    """`values`: columns name, description, hostname, access_ip_v4, access_ip_v6, disk_config, meta, user_data, key_name,
    trusted_image_certificates; and `files`, which take the place of those there were."""
    with caller.write() as tx:
        row = _begin(tx, caller, server_id, "rebuild")
        changed = dict(values)
        files = changed.pop("files", ())
        quotas.check_files(tx, row.project_id, files)
        changed["injected_files"] = servers.kept(files)
        if "trusted_image_certificates" in changed:
            caller.require(servers.target(row), rule="os_compute_api:servers:rebuild:trusted_certs")
        if "meta" in changed:
            quotas.check_metadata(tx, row.project_id, changed["meta"])
        if "key_name" in changed:
            changed["key"] = _key(tx, row, changed["key_name"])
        image = servers.image_of(tx, caller, image_id, _flavor(row))
        drive = servers.config_drive(caller, image, asked=bool(row.config_drive))
        changed |= {"image": image, "image_id": image_id, "config_drive": drive}
        nodes.bump(tx, "server", row.id)
        _go(tx, row, "rebuild", {}, **changed)


def _flavor(row: db.Row) -> Any:
    return SimpleNamespace(**row.flavor)


def _key(tx: db.Tx, row: db.Row, name: str | None) -> dict[str, str] | None:
    if name is None:
        return None
    found = keypairs.named(tx, row.user_id, name)
    if found is None:
        raise BadRequest("Invalid key_name provided.")
    return {"name": found.name, "type": found.type, "data": found.public_key}


def resize(caller: Caller, server_id: str, flavor_id: str, disk_config: str | None) -> None:
    with caller.write() as tx:
        quota.lock(tx, servers.project_of(tx, server_id))
        row = _begin(tx, caller, server_id, "resize")
        try:
            flavor = flavors.visible(tx, caller, flavor_id)
        except NotFound as error:
            raise BadRequest("Unable to locate requested flavor.") from error
        if flavor.id == row.flavor_id:
            raise BadRequest("When resizing, instances must change flavor!", kind="CannotResizeToSameFlavor")
        if flavor.root_gb < row.flavor["root_gb"] or flavor.ephemeral_gb < row.flavor["ephemeral_gb"]:
            raise BadRequest("Resize error: Unable to resize disk down.", kind="ResizeError")
        more = {"cores": max(0, flavor.vcpus - row.vcpus), "ram": max(0, flavor.memory_mb - row.memory_mb)}
        quotas.fitting(tx, row.project_id, 1, 1, more)
        tx.insert(tables.server_migrations, id=ids.uuid(), server_id=row.id, project_id=row.project_id, user_id=caller.user_id, kind="resize",
                  status="migrating", source=row.host, target=row.host, created_at=tx.now)  # fmt: skip
        values = {"disk_config": disk_config} if disk_config is not None else {}
        _go(tx, row, "resize", {"flavor": flavors.snapshot(flavor)}, **values)


def confirm_resize(caller: Caller, server_id: str) -> None:
    with caller.write() as tx:
        _go(tx, _resized(tx, caller, server_id, "confirm_resize"), "confirm_resize", {})


def revert_resize(caller: Caller, server_id: str) -> None:
    with caller.write() as tx:
        row = _resized(tx, caller, server_id, "revert_resize")
        _go(tx, row, "revert_resize", {"resized_from": row.resized_from})


def _resized(tx: db.Tx, caller: Caller, server_id: str, method: str) -> db.Row:
    row = _begin(tx, caller, server_id, method)
    if row.resized_from is None:
        raise BadRequest("Instance has not been resized.", kind="MigrationNotFound")
    return row


def rescue(caller: Caller, server_id: str, image_id: str | None) -> None:
    """The rescue guest is entered by the server's key."""
    with caller.write() as tx:
        row = _begin(tx, caller, server_id, "rescue")
        image = servers.image_of(tx, caller, image_id, _flavor(row)) if image_id else row.image
        _go(tx, row, "rescue", {"image": image})


def attach(caller: Caller, server_id: str, wanted: Sequence[Mapping[str, Any]]) -> network.Port:
    """Makes or takes a port for the server, on its host's wires at once; the guest sees it when its task is done."""
    with caller.write() as tx:
        quota.lock(tx, caller.project_id or "")
        row = _begin(tx, caller, server_id, "attach_interface")
        made = network.ports_for_server(tx, caller, row.id, wanted, [], row.hostname)
        if len(made) != 1:
            raise BadRequest("No network was given, and the project has none that could be meant.")
        network.bind_ports(tx, row.id, row.host)
        nodes.bump(tx, "server", row.id)
        journal.changed(tx, "server", row.id, "attach_interface", ("ports",))
        _plug(tx, row, "attach_interface", made[0])
        return network.ports_of(tx, [row.id])[row.id][-1]


def detach(caller: Caller, server_id: str, port_id: str) -> None:
    with caller.write() as tx:
        row = _begin(tx, caller, server_id, "detach_interface")
        port = next((port for port in network.ports_of(tx, [row.id])[row.id] if port.id == port_id), None)
        if port is None:
            raise NotFound(f"Port {port_id} is not attached to instance {row.id}")
        _plug(tx, row, "detach_interface", port)


def _plug(tx: db.Tx, row: db.Row, kind: str, port: network.Port) -> None:
    spec = {"id": port.id, "mac_address": port.mac_address, "tap": port.tap, "mtu": port.mtu}
    tasks.start(tx, f"compute.{kind}", f"server:{row.id}", {"server_id": row.id, "host": row.host, "port": spec})
