"""Credentials: secrets that users leave here, sealed by a key that is rotated (`service.keys`). A blob is shown to who may see it, never logged."""

import hashlib
import json
from collections.abc import Mapping

import sqlalchemy as sa
from cryptography.fernet import MultiFernet

from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.cloud import Cloud
from nacre.core.errors import BadRequest, Conflict
from nacre.identity import tables
from nacre.identity.service import delegation, directory
from nacre.identity.service.auth import memory_of
from nacre.identity.service.delegation import APPLICATION
from nacre.identity.service.directory import Kind, Record, Wanted

CREDENTIALS = Kind("credential", tables.credentials, ("user_id", "type"), fixed=("user_id", "project_id", "type"))


_BINDS = ("trust_id", "app_cred_id", "access_token_id")
_WHAT = "The credential"


def create(caller: Caller, wanted: Wanted) -> Record:
    """Raises BadRequest, Conflict (an EC2 access key that is taken), Forbidden."""
    said = {"user_id": caller.user_id, "project_id": None, **wanted}
    caller.require(CREDENTIALS.target(said))
    delegation.refuse_elsewhere(caller, said["project_id"], _WHAT)
    blob, row_id = said.pop("blob"), ""
    if said["type"] == "ec2":
        delegation.refuse_restricted(caller, "additional credentials")
        blob = _key(said["project_id"], blob, bound(caller))
        row_id = id_of(blob["access"])
    said["sealed"] = sealed(caller.cloud, blob)
    with caller.write() as tx:
        if row_id and tables.by_id(tx, tables.credentials, row_id) is not None:
            raise Conflict(f"Conflict occurred attempting to store credential - Duplicate entry found with ID {row_id}.")
        return _opened(caller, directory.insert(tx, CREDENTIALS, said, row_id))


def id_of(access: str) -> str:
    """An EC2 credential is found by its access key."""
    return hashlib.sha256(access.encode("utf-8", "surrogatepass")).hexdigest()


def bound(caller: Caller) -> dict[str, str]:
    """The delegation that the caller came by: what an access key is made with, it is worth no more than."""
    found = {"trust_id": caller.extra.get("trust"), "app_cred_id": caller.extra.get(APPLICATION)}
    return {name: delegated["id"] for name, delegated in found.items() if delegated is not None}


def _key(project_id: str | None, text: str, binds: Mapping[str, str]) -> Record:
    """What the blob of an EC2 credential says. Raises BadRequest, also when it claims a delegation that is not `binds`."""
    try:
        said = json.loads(text)
        access = said["access"]
    except (ValueError, TypeError, KeyError):
        raise _wrong("blob", "It is to be JSON with access and secret.") from None
    if not isinstance(access, str):
        raise _wrong("blob", "access is to be a string.")
    if not project_id:
        raise _wrong("project_id", "An ec2 credential needs one.")
    for name in _BINDS:
        if said.get(name, binds.get(name)) != binds.get(name):
            raise _wrong("blob", f"{name} is not for anybody to say.")
    return {**said, **binds}


def _wrong(field: str, why: str) -> BadRequest:
    return BadRequest(f"Invalid input for field/attribute {field}. {why}", kind="ValidationError")


def sealed(cloud: Cloud, blob: str | Record) -> str:
    return _seals(cloud).encrypt((blob if isinstance(blob, str) else json.dumps(blob)).encode()).decode()


def unsealed(cloud: Cloud, text: str) -> str:
    return _seals(cloud).decrypt(text.encode()).decode()


def _seals(cloud: Cloud) -> MultiFernet:
    with cloud.db.read() as conn:
        return memory_of(cloud, conn).seals


def blob_of(cloud: Cloud, text: str) -> Record:
    """What an EC2 credential says."""
    found: Record = json.loads(unsealed(cloud, text))
    return found


def _opened(caller: Caller, record: Record) -> Record:
    shown = dict(record)
    shown["blob"] = unsealed(caller.cloud, shown.pop("sealed"))
    return shown


def _load(conn: db.Conn, caller: Caller, row_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    found = directory.load(conn, caller, CREDENTIALS, row_id)
    delegation.refuse_elsewhere(caller, found["project_id"], _WHAT)
    return found


def find(caller: Caller, row_id: str) -> Record:
    """Raises Forbidden, NotFound."""
    with caller.read() as conn:
        return _opened(caller, _load(conn, caller, row_id))


def listed(caller: Caller, asked: Mapping[str, str]) -> list[Record]:
    """Those that the caller may see: all, or the caller's own."""
    caller.require(CREDENTIALS.target({"user_id": asked.get("user_id", caller.user_id)}))
    query = sa.select(tables.credentials).order_by(tables.credentials.c.id)
    for name in CREDENTIALS.filters:
        if name in asked:
            query = query.where(tables.credentials.c[name] == asked[name])
    with caller.read() as conn:
        found = [directory.record(row) for row in conn.execute(query)]
    seen = (one for one in found if caller.allowed("identity:get_credential", CREDENTIALS.target(one)))
    return [_opened(caller, one) for one in seen if delegation.reaches(caller, one["project_id"])]


def update(caller: Caller, row_id: str, wanted: Wanted) -> Record:
    """Only the blob changes, and of that no delegation; what else is to differ is another credential. Raises BadRequest."""
    said = dict(wanted)
    with caller.write() as tx:
        before = _load(tx, caller, row_id)
        if "blob" in said:
            blob = said.pop("blob")
            if before["type"] == "ec2":
                old = blob_of(caller.cloud, before["sealed"])
                blob = _key(before["project_id"], blob, {name: old[name] for name in _BINDS if name in old})
            said["sealed"] = sealed(caller.cloud, blob)
        return _opened(caller, directory.update(tx, CREDENTIALS, before, said))


def delete(caller: Caller, row_id: str) -> None:
    with caller.write() as tx:
        _load(tx, caller, row_id)
        directory.delete(tx, CREDENTIALS, row_id)
