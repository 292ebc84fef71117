"""Servers: create, read, change, delete. What takes more than one step is a task (compute/tasks.py); what power a guest has is told by
its host (loops).

`create` decides everything in one transaction: quota, flavor, image, key, ports with addresses, rows, journal lines and tasks. Races: a
verb holds the server's row (`tables.locked`) while it decides; a task that ends meanwhile waits for that or wins, and `move` proves the
generation either way.
"""

import base64
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from nacre import image as images
from nacre import network
from nacre.compute import states, tables
from nacre.compute.service import flavors, groups, keypairs, quotas
from nacre.compute.tables import servers
from nacre.core import db, ids, journal, nodes, tasks
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, NotFound

CREATE = "os_compute_api:servers:create"
MAX_TAGS = 50


@dataclass(frozen=True)
class Order:
    """What a create asks for. `networks`: "auto", "none", None or a list (docs/fronts.md)."""

    name: str
    flavor_id: str
    image_id: str
    networks: Any = None
    security_groups: Sequence[str] = ()
    key_name: str | None = None
    user_data: str | None = None
    config_drive: bool = False
    root_tag: str | None = None
    files: Sequence[quotas.InjectedFile] = ()
    certificates: Sequence[str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    hostname: str | None = None
    tags: Sequence[str] = ()
    hints: Mapping[str, Any] = field(default_factory=dict)
    zone: str | None = None
    host: str | None = None
    disk_config: str = "MANUAL"
    access: tuple[str | None, str | None] = (None, None)
    counts: tuple[int, int] = (1, 1)


def target(row: db.Row) -> dict[str, Any]:
    return {"project_id": row.project_id, "user_id": row.user_id}


def visible(conn: db.Conn, caller: Caller, server_id: str, *, deleted: bool = False, lock: bool = False) -> db.Row:
    """The server, if the caller may do what the route does: who is of another project and not allowed does not see it (NotFound), who is
    of the project and not allowed is refused (Forbidden)."""
    row = tables.locked(conn, server_id) if lock and isinstance(conn, db.Tx) else tables.by_id(conn, server_id, deleted=deleted)
    if row is None or (row.project_id != caller.project_id and not caller.allowed(caller.rule, target(row))):
        caller.asked.add(caller.rule)
        raise NotFound(f"Instance {server_id} could not be found.")
    caller.require(target(row))
    return row


def project_of(conn: db.Conn, server_id: str) -> str:
    """Whose quota counts it; "" when it is gone."""
    return str(conn.execute(sa.select(servers.c.project_id).where(servers.c.id == server_id)).scalar() or "")


def check_lock(caller: Caller, row: db.Row) -> None:
    if row.locked_by and not caller.is_admin:
        raise Conflict(f"Instance {row.id} is locked", kind="InstanceIsLocked")


def create(caller: Caller, order: Order) -> tuple[list[str], str]:
    """(ids of the new servers, their reservation id)."""
    mine = {"project_id": caller.project_id, "user_id": caller.user_id}
    caller.require(mine)
    if order.networks not in (None, "none"):
        caller.require(mine, rule=f"{CREATE}:attach_network")
    if order.host is not None:
        caller.require(mine, rule=f"{CREATE}:forced_host")
    if order.certificates is not None:
        caller.require(mine, rule=f"{CREATE}:trusted_certs")
    project = caller.project_id or ""
    with caller.write() as tx:
        if not project:
            raise BadRequest("A server belongs to a project: the token has none.")
        flavor = _flavor(tx, caller, order.flavor_id)
        each = {"instances": 1, "cores": flavor.vcpus, "ram": flavor.memory_mb}
        count = quotas.fitting(tx, project, *order.counts, each)
        quotas.check_metadata(tx, project, order.metadata)
        quotas.check_files(tx, project, order.files)
        shared = {"flavor": flavors.snapshot(flavor), "image": image_of(tx, caller, order.image_id, flavor),
                  "key": _key(tx, caller, order.key_name),
                  "group_id": groups.joining(tx, caller, order.hints.get("group"), count)}  # fmt: skip
        _check_place(tx, order)
        reservation = "r-" + ids.hex_id()[:8]
        made = [_make(tx, caller, order, shared, (reservation, index, count)) for index in range(count)]
    return made, reservation


def _make(tx: db.Tx, caller: Caller, order: Order, shared: Mapping[str, Any], place: tuple[str, int, int]) -> str:
    server_id, (reservation, index, count) = ids.uuid(), place
    flavor, image, key = shared["flavor"], shared["image"], shared["key"]
    task_id = tasks.start(tx, "compute.create_server", f"server:{server_id}", {"server_id": server_id})
    name = order.name if count == 1 else f"{order.name}-{index + 1}"
    tx.insert(
        servers, id=server_id, project_id=caller.project_id, user_id=caller.user_id, name=name, description=order.description,
        hostname=order.hostname or hostname(name, server_id), reservation_id=reservation, launch_index=index,
        flavor_id=flavor["id"], flavor=flavor, vcpus=flavor["vcpus"], memory_mb=flavor["memory_mb"],
        image_id=order.image_id, image=image, key_name=order.key_name, key=key, user_data=order.user_data, seed=secrets.token_hex(32),
        injected_files=kept(order.files),
        trusted_image_certificates=order.certificates,
        config_drive=config_drive(caller, image, asked=order.config_drive), meta=dict(order.metadata), hints=dict(order.hints),
        pinned_availability_zone=order.zone, wanted_host=order.host, access_ip_v4=order.access[0], access_ip_v6=order.access[1],
        group_id=shared["group_id"], disk_config=order.disk_config, root_device_name="/dev/vda", root_device_tag=order.root_tag,
        vm_state=states.BUILDING, task_state="scheduling", task_id=task_id, generation=0, moved_at=tx.now, moved_after=0,
        created_at=tx.now, updated_at=tx.now, **tables.next_number(tx),
    )  # fmt: skip
    tables.set_tags(tx, server_id, order.tags)
    network.ports_for_server(tx, caller, server_id, order.networks, list(order.security_groups), order.hostname or hostname(name, server_id))
    journal.changed(tx, "server", server_id, "create", ("name", "flavor_id", "image_id", "vm_state"), {"name": name})
    return server_id


def kept(files: Sequence[quotas.InjectedFile]) -> list[dict[str, str]] | None:
    """The column."""
    return [{"path": file.path, "contents": base64.b64encode(file.content).decode()} for file in files] or None


def config_drive(caller: Caller, image: Mapping[str, Any], *, asked: bool) -> str:
    """The column of a server of that image: a drive comes when asked for, by the image's property, or always."""
    mandatory = image.get("properties", {}).get("img_config_drive") == "mandatory"
    return "True" if asked or mandatory or caller.cloud.config.DEFAULT.force_config_drive else ""


def hostname(name: str, server_id: str) -> str:
    """What upstream makes of a display name: ASCII letters, digits and hyphens, at most 63."""
    plain = re.sub(r"[^\w.-]+", "", re.sub(r"[ _]", "-", name), flags=re.ASCII).lower().replace(".", "-").strip("-")[:63].strip("-")
    return plain or f"Server-{server_id}"


def _flavor(tx: db.Tx, caller: Caller, flavor_id: str) -> db.Row:
    try:
        flavor = flavors.visible(tx, caller, flavor_id)
    except NotFound as error:
        raise BadRequest(error.message) from error
    if flavor.root_gb == 0 and not caller.allowed(f"{CREATE}:zero_disk_flavor"):
        caller.require(rule=f"{CREATE}:zero_disk_flavor")
    return flavor


def image_of(tx: db.Tx, caller: Caller, image_id: str, flavor: db.Row) -> dict[str, Any]:
    """The copy of the image that the server keeps. Raises BadRequest in upstream's words."""
    try:
        # the image's rules decide on images, not this route's service
        image = images.visible(tx, replace(caller, service="image", asked=set()), image_id)
    except NotFound as error:
        raise BadRequest(f"Image {image_id} could not be found.") from error
    if image.status != "active":
        raise BadRequest(f"Image {image_id} is not active.")
    if flavor.memory_mb < image.min_ram:
        raise BadRequest("Flavor's memory is too small for requested image.")
    room = flavor.root_gb << 30
    if room and (flavor.root_gb < image.min_disk or room < max(image.size or 0, image.virtual_size or 0)):
        raise BadRequest(f"Flavor's disk is too small for requested image. Flavor disk is {room} bytes, "
                         f"image is {max(image.size or 0, image.virtual_size or 0, image.min_disk << 30)} bytes.")  # fmt: skip
    return {"image_id": image.id, "disk_format": image.disk_format, "size": image.size, "hash_algo": image.hash_algo, "hash_value": image.hash_value,
            "name": image.name, "properties": dict(image.properties)}  # fmt: skip


def _key(tx: db.Tx, caller: Caller, name: str | None) -> dict[str, str] | None:
    if name is None:
        return None
    row = keypairs.named(tx, caller.user_id, name)
    if row is None:
        raise BadRequest("Invalid key_name provided.")
    return {"name": row.name, "type": row.type, "data": row.public_key}


def _check_place(tx: db.Tx, order: Order) -> None:
    if order.zone not in (None, tables.ZONE) and order.zone not in tables.zones(tx).values():
        raise BadRequest("The requested availability zone is not available")
    if order.host is not None and nodes.host_named(tx, order.host) is None:
        raise BadRequest(f"Compute host {order.host} could not be found.")


def update(caller: Caller, server_id: str, values: Mapping[str, Any]) -> db.Row:
    """`values`: columns name, description, hostname, access_ip_v4, access_ip_v6, disk_config."""
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        tx.update(servers, {"id": row.id}, **values, updated_at=tx.now)
        journal.changed(tx, "server", row.id, "update", values)
        return tables.by_id(tx, server_id) or row


def delete(caller: Caller, server_id: str) -> None:
    """Begins the end of a server, whatever is being done to it; harmless when it has begun."""
    resource = f"server:{server_id}"
    with caller.write() as tx:
        tasks.held(tx, resource)
        row = visible(tx, caller, server_id, lock=True)
        check_lock(caller, row)
        if row.task_state == "deleting":
            return
        tasks.cancel(tx, resource)
        task_id = tasks.start(tx, "compute.delete_server", resource, {"server_id": row.id})
        tables.move(tx, row, row.vm_state, "deleting", task_id=task_id)
        journal.changed(tx, "server", row.id, "delete", ("task_state",))


def nowhere(row: db.Row) -> Conflict:
    return Conflict(f"Instance {row.id} is not on a host.", kind="InstanceNotReady")


def begin(caller: Caller, server_id: str, method: str, task: str, args: Mapping[str, Any] | None = None) -> None:
    """The verb `method` of the states table, carried out by `task`."""
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        check_lock(caller, row)
        verb = states.check(row.id, method, row.vm_state, row.task_state)
        if row.host is None:
            raise nowhere(row)
        task_id = tasks.start(tx, task, f"server:{row.id}", {"server_id": row.id, "before": row.vm_state, **(args or {})})
        tables.move(tx, row, row.vm_state, verb.during, task_id=task_id)
        journal.changed(tx, "server", row.id, method, ("task_state",))


def hosts_of(caller: Caller, server_ids: Collection[str]) -> dict[str, str | None]:
    """server -> its host, of those that there are."""
    caller.require({})
    with caller.read() as conn:
        query = sa.select(servers.c.id, servers.c.host).where(servers.c.id.in_(sorted(server_ids)), servers.c.deleted_at.is_(None))
        return {row.id: row.host for row in conn.execute(query)}


def check(caller: Caller, server_id: str, method: str) -> None:
    """Whether the verb `method`, which changes nothing, may be done now. Raises Conflict."""
    with caller.read() as conn:
        row = visible(conn, caller, server_id)
    check_lock(caller, row)
    states.check(row.id, method, row.vm_state, row.task_state)


def lock(caller: Caller, server_id: str, reason: str | None) -> None:
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        by = "owner" if row.project_id == caller.project_id and not caller.is_admin else "admin"
        tx.update(servers, {"id": row.id}, locked_by=by, locked_reason=reason, updated_at=tx.now)
        journal.changed(tx, "server", row.id, "lock", ("locked",))


def unlock(caller: Caller, server_id: str) -> None:
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        if row.locked_by == "admin":
            caller.require(target(row), rule="os_compute_api:os-lock-server:unlock:unlock_override")
        tx.update(servers, {"id": row.id}, locked_by=None, locked_reason=None, updated_at=tx.now)
        journal.changed(tx, "server", row.id, "unlock", ("locked",))


def reset_state(caller: Caller, server_id: str, state: str) -> None:
    """Abandons whatever is being done (law 3) and sets the state an administrator says, which is not ACTIVE for a server that is nowhere."""
    with caller.write() as tx:
        tasks.held(tx, f"server:{server_id}")
        row = visible(tx, caller, server_id, lock=True)
        abandoned = tasks.cancel(tx, f"server:{row.id}")
        if state == states.ACTIVE and row.host is None and not abandoned:
            raise nowhere(row)
        tables.move(tx, row, state, None)
        journal.changed(tx, "server", row.id, "resetState", ("vm_state", "task_state"), {"vm_state": state})


def security_group(caller: Caller, server_id: str, name: str, add: bool) -> None:
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        check_lock(caller, row)
        states.check(row.id, "add_security_group", row.vm_state, row.task_state)
        (network.add_security_group if add else network.remove_security_group)(tx, caller, row.id, name)
        journal.changed(tx, "server", row.id, "addSecurityGroup" if add else "removeSecurityGroup", ("security_groups",))


def set_metadata(caller: Caller, server_id: str, items: Mapping[str, str], *, replace: bool) -> dict[str, str]:
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        check_lock(caller, row)
        states.check(row.id, "update_instance_metadata", row.vm_state, row.task_state)
        whole = dict(items) if replace else {**row.meta, **items}
        quotas.check_metadata(tx, row.project_id, whole)
        return _write_metadata(tx, row, whole)


def delete_metadata(caller: Caller, server_id: str, key: str) -> None:
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        check_lock(caller, row)
        if key not in row.meta:
            raise NotFound("Metadata item was not found")
        states.check(row.id, "delete_instance_metadata", row.vm_state, row.task_state)
        _write_metadata(tx, row, {name: value for name, value in row.meta.items() if name != key})


def _write_metadata(tx: db.Tx, row: db.Row, whole: dict[str, str]) -> dict[str, str]:
    tx.update(servers, {"id": row.id}, meta=whole, updated_at=tx.now)
    journal.changed(tx, "server", row.id, "update", ("metadata",))
    return whole


def show(caller: Caller, server_id: str) -> db.Row:
    with caller.read() as conn:
        return visible(conn, caller, server_id)


def tags(caller: Caller, server_id: str) -> list[str]:
    with caller.read() as conn:
        row = visible(conn, caller, server_id)
        return tables.tags_of(conn, [row.id]).get(row.id, [])


def change_tags(caller: Caller, server_id: str, *, add: Sequence[str] = (), keep: Sequence[str] | None = None,
                drop: str | None = None) -> tuple[list[str], bool]:  # fmt: skip
    """The tags after the change, and whether one of `add` is new. `keep`: replaces all; `drop`: must be there (NotFound)."""
    with caller.write() as tx:
        row = visible(tx, caller, server_id, lock=True)
        before = tables.tags_of(tx, [row.id]).get(row.id, [])
        if drop is not None and drop not in before:
            raise NotFound(f"Tag '{drop}' could not be found on server {row.id}.")
        after = sorted({*(before if keep is None else keep), *add} - {drop})
        if len(after) > MAX_TAGS:
            raise BadRequest(f"The number of tags exceeded the per-server limit {MAX_TAGS}")
        tables.set_tags(tx, row.id, after)
        tx.update(servers, {"id": row.id}, updated_at=tx.now)
        journal.changed(tx, "server", row.id, "update", ("tags",))
    return after, bool(set(add) - set(before))
