"""Wire shapes of access keys. Source: Identity API v2 extensions OS-EC2, OS-KSEC2 and OS-KSS3, as v3 has them."""

from typing import Any

import msgspec

from nacre.core.versions import Body
from nacre.identity.bodies import Id
from nacre.identity.service.directory import Record
from nacre.identity.signatures import Signed


class NewKey(msgspec.Struct, kw_only=True):
    tenant_id: Id


class Asked(msgspec.Struct, kw_only=True):
    """Under one of three names."""

    credentials: Signed | None = None
    credential: Signed | None = None
    ec2Credentials: Signed | None = None


NEW, ASKED = Body(None, NewKey, extra=True), Body(None, Asked, extra=True)


def shown(key: Record, url: str) -> dict[str, Any]:
    return {**key, "links": {"self": f"{url}/v3/users/{key['user_id']}/credentials/OS-EC2/{key['access']}"}}
