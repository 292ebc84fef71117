"""Quotas on the wire."""

from typing import Annotated

import msgspec

from nacre.core.versions import UNSET, Body, UnsetType
from nacre.network.bodies import Ref, Tags, change

Limit = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]


class QuotaChange(msgspec.Struct, forbid_unknown_fields=True):
    network: Limit | UnsetType = UNSET
    subnet: Limit | UnsetType = UNSET
    port: Limit | UnsetType = UNSET
    router: Limit | UnsetType = UNSET
    floatingip: Limit | UnsetType = UNSET
    security_group: Limit | UnsetType = UNSET
    security_group_rule: Limit | UnsetType = UNSET
    force: bool | UnsetType = UNSET
    check_limit: bool | UnsetType = UNSET
    project_id: Ref | UnsetType = UNSET
    tenant_id: Ref | UnsetType = UNSET


CHANGE_QUOTA = change("quota", QuotaChange)
SET_TAGS = Body(None, Tags)
