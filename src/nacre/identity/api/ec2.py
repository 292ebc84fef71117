"""Handlers of access keys, and of requests that were signed by one."""

from typing import Any

from nacre.core.errors import BadRequest
from nacre.core.http import Call, Reply
from nacre.identity import bodies
from nacre.identity.api.auth import catalog_of
from nacre.identity.api.directory import collection
from nacre.identity.bodies.ec2 import Asked, shown
from nacre.identity.service import ec2
from nacre.identity.signatures import Signed

Answer = dict[str, Any]


def listed(call: Call) -> Answer:
    return collection(call, "credentials", [shown(key, call.url) for key in ec2.listed(call.caller, call.path["user_id"])])


def create(call: Call) -> Answer:
    return {"credential": shown(ec2.create(call.caller, call.path["user_id"], call.body.tenant_id), call.url)}


def show(call: Call) -> Answer:
    return {"credential": shown(ec2.find(call.caller, call.path["user_id"], call.path["access"]), call.url)}


def delete(call: Call) -> None:
    ec2.delete(call.caller, call.path["user_id"], call.path["access"])


def token(call: Call) -> Reply:
    """For who signed a request to EC2."""
    holder = ec2.authenticate(call.caller, _signed(call), of_text=False)
    return Reply(bodies.token(holder, catalog_of(call, holder)), headers={"x-subject-token": holder.token})


def token_of_text(call: Call) -> Answer:
    """For who signed a request to S3: what the token would say, not the token."""
    holder = ec2.authenticate(call.caller, _signed(call), of_text=True)
    return bodies.token(holder, catalog_of(call, holder))


def _signed(call: Call) -> Signed:
    """Raises BadRequest for a body that says nothing."""
    body: Asked = call.body
    found = body.credentials or body.credential or body.ec2Credentials
    if found is None:
        raise BadRequest("Expecting to find credentials in the request body.", kind="ValidationError")
    return found
