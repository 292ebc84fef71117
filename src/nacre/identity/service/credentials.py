"""Credentials: secrets that users leave here, sealed by the cloud's master key file. What is in a blob is shown to who may see it, never logged."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from nacre.core.caller import Caller
from nacre.core.errors import BadRequest, Conflict
from nacre.identity import tables, tokens
from nacre.identity.service import directory
from nacre.identity.service.directory import Kind, Record, Wanted

CREDENTIALS = Kind("credential", tables.credentials, ("user_id", "type"), fixed=("user_id", "project_id", "type"))


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises BadRequest, Conflict (an EC2 access key that is taken)."""
    said = {"user_id": caller.user_id, "project_id": None, **wanted}
    caller.require(CREDENTIALS.target(said))
    row_id = _ec2_id(said) if said["type"] == "ec2" else ""
    said["sealed"] = _sealed(caller, said.pop("blob"))
    with caller.write() as tx:
        if row_id and tables.by_id(tx, tables.credentials, row_id) is not None:
            raise Conflict(f"Conflict occurred attempting to store credential - Duplicate entry found with ID {row_id}.")
        return _opened(caller, directory.insert(tx, CREDENTIALS, said, row_id))


def _ec2_id(said: Mapping[str, Any]) -> str:
    """An EC2 credential is found by its access key. Raises BadRequest."""
    try:
        access = json.loads(said["blob"])["access"]
    except (ValueError, TypeError, KeyError):
        raise BadRequest("Invalid input for field/attribute blob. It is to be JSON with access and secret.", kind="ValidationError") from None
    if not said["project_id"]:
        raise BadRequest("Invalid input for field/attribute project_id. An ec2 credential needs one.", kind="ValidationError")
    return hashlib.sha256(str(access).encode()).hexdigest()


def _sealed(caller: Caller, blob: str) -> str:
    return tokens.master_key(caller.cloud).encrypt(blob.encode()).decode()


def _opened(caller: Caller, record: Record) -> Record:
    shown = dict(record)
    shown["blob"] = tokens.master_key(caller.cloud).decrypt(shown.pop("sealed").encode()).decode()
    return shown


def find(caller: Caller, row_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    return _opened(caller, directory.find(caller, CREDENTIALS, row_id))


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """Those that the caller may see: all, or the caller's own."""
    caller.require(CREDENTIALS.target({"user_id": asked.get("user_id", caller.user_id)}))
    query = sa.select(tables.credentials).order_by(tables.credentials.c.id)
    for name in CREDENTIALS.filters:
        if name in asked:
            query = query.where(tables.credentials.c[name] == asked[name])
    with caller.read() as conn:
        found = [directory.record(row) for row in conn.execute(query)]
    return [_opened(caller, one) for one in found if caller.allowed("identity:get_credential", CREDENTIALS.target(one))]


def update(caller: Caller, row_id: str, wanted: Wanted) -> Record:
    """Only the blob changes; what else is to differ is another credential. Raises BadRequest."""
    said = dict(wanted)
    if "blob" in said:
        said["sealed"] = _sealed(caller, said.pop("blob"))
    with caller.write() as tx:
        before = directory.load(tx, caller, CREDENTIALS, row_id)
        if before["type"] == "ec2" and "blob" in wanted:
            _ec2_id({"project_id": before["project_id"], "blob": wanted["blob"]})
        return _opened(caller, directory.update(tx, CREDENTIALS, before, said))


def delete(caller: Caller, row_id: str) -> None:
    with caller.write() as tx:
        directory.load(tx, caller, CREDENTIALS, row_id)
        directory.delete(tx, CREDENTIALS, row_id)
