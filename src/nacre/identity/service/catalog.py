"""What the catalog is made of: regions, services, endpoints; and the policies that upstream keeps for others beside it."""

from typing import Any

import sqlalchemy as sa

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict
from nacre.identity import tables
from nacre.identity.service import directory
from nacre.identity.service.directory import ENDPOINTS, POLICIES, REGIONS, SERVICES, Kind, Record, Wanted


def create_region(caller: Caller, wanted: Wanted) -> Record:
    """Raises Conflict, NotFound (parent)."""
    caller.require(REGIONS.target(wanted))
    with caller.write() as tx:
        return _region(tx, wanted)


def _region(tx: db.Tx, wanted: Wanted) -> Record:
    _parent(tx, wanted)
    region_id = wanted.get("id") or ""
    if region_id and tables.by_id(tx, tables.regions, region_id) is not None:
        raise Conflict(f"Conflict occurred attempting to store region - Duplicate ID, {region_id}.")
    return _make(tx, REGIONS, {"description": "", "parent_region_id": None, **wanted}, region_id)


def _parent(tx: db.Tx, wanted: Wanted, region_id: str = "") -> None:
    """A region is below none of those below it. Raises NotFound, BadRequest."""
    above = wanted.get("parent_region_id")
    while above:
        if above == region_id:
            raise BadRequest(f"Invalid input for field/attribute parent_region_id. {above} would be above itself.", kind="ValidationError")
        row = tables.by_id(tx, tables.regions, above)
        if row is None:
            raise directory.missing(REGIONS, above)
        above = row.parent_region_id


def _make(tx: db.Tx, kind: Kind, said: Wanted, row_id: str = "") -> Record:
    made = directory.insert(tx, kind, said, row_id)
    tables.bump_epoch(tx)
    return made


def put_region(caller: Caller, region_id: str, wanted: Wanted) -> Record:
    """A region of that id. Raises BadRequest when the body names another."""
    if wanted.get("id", region_id) != region_id:
        raise BadRequest("The region ID in the body is not that of the address.", kind="ValidationError")
    return create_region(caller, {**wanted, "id": region_id})


def update_region(caller: Caller, region_id: str, wanted: Wanted) -> Record:
    """Raises NotFound (parent), BadRequest."""
    with caller.write() as tx:
        before = directory.load(tx, caller, REGIONS, region_id)
        _parent(tx, wanted, region_id)
        return directory.update(tx, REGIONS, before, wanted)


def delete_region(caller: Caller, region_id: str) -> None:
    """With the regions below it. Raises Conflict while endpoints are in one of them."""
    with caller.write() as tx:
        directory.load(tx, caller, REGIONS, region_id)
        gone, below = [region_id], [region_id]
        while below:
            below = [row.id for row in tx.all(sa.select(tables.regions.c.id).where(tables.regions.c.parent_region_id.in_(below)))]
            gone += below
        used = tx.first(sa.select(tables.endpoints).where(tables.endpoints.c.region_id.in_(gone)).limit(1))
        if used is not None:
            raise Conflict(f"Unable to delete region {used.region_id} because endpoint {used.id} is in it.")
        for row_id in reversed(gone):
            directory.delete(tx, REGIONS, row_id)


def create_service(caller: Caller, wanted: Wanted) -> Record:
    caller.require(SERVICES.target(wanted))
    with caller.write() as tx:
        return _make(tx, SERVICES, {"name": "", "description": "", "enabled": True, **wanted})


def create_endpoint(caller: Caller, wanted: Wanted) -> Record:
    """Raises BadRequest (service)."""
    caller.require(ENDPOINTS.target(wanted))
    with caller.write() as tx:
        said = _placed(tx, {"enabled": True, "region_id": None, **wanted})
        return _make(tx, ENDPOINTS, said)


def _placed(tx: db.Tx, wanted: Wanted) -> dict[str, Any]:
    """An endpoint's service must be there; its region comes to be, under its old name `region` too."""
    said = dict(wanted)
    region = said.pop("region", None)
    if region is not None and not said.get("region_id"):
        said["region_id"] = region
    if said.get("region_id") and tables.by_id(tx, tables.regions, said["region_id"]) is None:
        _region(tx, {"id": said["region_id"]})
    if "service_id" in said and tables.by_id(tx, tables.services, said["service_id"]) is None:
        raise BadRequest(f"Invalid input for field/attribute service_id. There is no service {said['service_id']}.", kind="ValidationError")
    return said


def update_endpoint(caller: Caller, endpoint_id: str, wanted: Wanted) -> Record:
    """Raises BadRequest (service)."""
    with caller.write() as tx:
        before = directory.load(tx, caller, ENDPOINTS, endpoint_id)
        return directory.update(tx, ENDPOINTS, before, _placed(tx, wanted))


def create_policy(caller: Caller, wanted: Wanted) -> Record:
    caller.require(POLICIES.target(wanted))
    with caller.write() as tx:
        return directory.insert(tx, POLICIES, wanted)


def update(caller: Caller, kind: Kind, row_id: str, wanted: Wanted) -> Record:
    """Of a service or policy."""
    with caller.write() as tx:
        return directory.update(tx, kind, directory.load(tx, caller, kind, row_id), wanted)


def delete(caller: Caller, kind: Kind, row_id: str) -> None:
    """Of a service (with its endpoints), endpoint or policy."""
    with caller.write() as tx:
        directory.load(tx, caller, kind, row_id)
        directory.delete(tx, kind, row_id)
