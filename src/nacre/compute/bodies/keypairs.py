"""Wire shapes of key pairs."""

from typing import Annotated, Any, Literal

import msgspec

from nacre.compute.bodies.common import micro
from nacre.core import db
from nacre.core.versions import Body, Version, since

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class CreateKeypair:
    name: _Name
    public_key: str | None = None
    type: Annotated[Literal["ssh", "x509"], since(2, 2)] = "ssh"
    user_id: Annotated[str | None, since(2, 10)] = None


class CreateKeypairWithKey:
    """From 2.92 on nothing is generated."""

    name: _Name
    public_key: str
    type: Literal["ssh", "x509"] = "ssh"
    user_id: str | None = None


CREATE, CREATE_WITH_KEY = Body("keypair", CreateKeypair), Body("keypair", CreateKeypairWithKey)


def shown(row: db.Row, version: Version) -> dict[str, Any]:
    found = {"name": row.name, "public_key": row.public_key, "fingerprint": row.fingerprint}
    return found | ({"type": row.type} if version >= (2, 2) else {})


def made(row: db.Row, private: str | None, version: Version) -> dict[str, Any]:
    return shown(row, version) | {"user_id": row.user_id} | ({"private_key": private} if private is not None else {})


def detail(row: db.Row, version: Version) -> dict[str, Any]:
    return shown(row, version) | {"user_id": row.user_id, "created_at": micro(row.created_at), "deleted": False, "deleted_at": None, "id": row.id,
                                  "updated_at": None}  # fmt: skip
