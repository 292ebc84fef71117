"""Custom resource classes and traits: made, listed, and removed when nothing uses them. The standard ones are always there."""

from collections.abc import Sequence

import sqlalchemy as sa

from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict, NotFound
from nacre.placement import names, tables
from nacre.placement.service import providers

_KINDS = {
    "class": (tables.custom_classes, names.RESOURCE_CLASSES, tables.inventories.c.resource_class),
    "trait": (tables.custom_traits, names.TRAITS, tables.provider_traits.c.trait),
}


def list_names(caller: Caller, kind: str, *, prefix: str = "", among: Sequence[str] | None = None, used: bool | None = None) -> list[str]:
    caller.require({})
    table, standard, uses = _KINDS[kind]
    with caller.read() as conn:
        found = providers.all_names(conn, table, standard)
        in_use = set(conn.execute(sa.select(uses).distinct()).scalars()) if used is not None else set()
    found = [name for name in found if name.startswith(prefix) and (among is None or name in among)]
    return [name for name in found if used is None or (name in in_use) == used]


def show_name(caller: Caller, kind: str, name: str) -> str:
    caller.require({})
    table, standard, _ = _KINDS[kind]
    with caller.read() as conn:
        if name not in providers.all_names(conn, table, standard):
            raise NotFound(f"No such {'trait(s)' if kind == 'trait' else 'resource class'}: {name}.")
    return name


def create_name(caller: Caller, kind: str, name: str, *, again: bool) -> bool:
    """Whether it is new. Raises Conflict when it is not and `again` is False."""
    caller.require({})
    if not names.CUSTOM.fullmatch(name):
        what = "trait" if kind == "trait" else "resource class"
        raise BadRequest(f"The {what} name must be CUSTOM_ and capitals, digits and underscores, not '{name}'")
    table = _KINDS[kind][0]
    with caller.write() as tx:
        if tx.first(sa.select(table.c.name).where(table.c.name == name)) is not None:
            if not again:
                raise Conflict(f"Conflicting resource class already exists: {name}")
            return False
        tx.insert(table, name=name, updated_at=tx.now)
        return True


def rename_class(caller: Caller, name: str, new: str) -> None:
    """Up to 1.6."""
    caller.require({})
    with caller.write() as tx:
        if name in names.RESOURCE_CLASSES:
            raise BadRequest(f"Cannot update standard resource class {name}")
        if new != name and tx.first(sa.select(tables.custom_classes.c.name).where(tables.custom_classes.c.name == new)) is not None:
            raise Conflict(f"Resource class already exists: {new}")
        if not tx.update(tables.custom_classes, {"name": name}, name=new, updated_at=tx.now):
            raise NotFound(f"No such resource class: {name}.")
        for table in (tables.inventories, tables.allocations):
            tx.update(table, {"resource_class": name}, resource_class=new)


def delete_name(caller: Caller, kind: str, name: str) -> None:
    caller.require({})
    table, standard, uses = _KINDS[kind]
    if name in standard:
        raise BadRequest(f"Cannot delete standard {'trait' if kind == 'trait' else 'resource class'} {name}.")
    with caller.write() as tx:
        used = tx.first(sa.select(uses.table.c.provider_id).where(uses == name))
        if used is not None:
            raise Conflict(f"{name} is in use by resource provider {used.provider_id}.")
        if not tx.delete(table, name=name):
            raise NotFound(f"No such {'trait' if kind == 'trait' else 'resource class'}: {name}.")
