"""Who is asking. A caller is made once a request from its token and carries what policy needs.

`require` is how a verb checks its route's rule against the target it has loaded (law 8): first load what the caller may see (else
404), then `caller.require(target)` (else 403 naming the rule). The request kit refuses to answer a route whose rule was never asked.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from nacre.core.cloud import Cloud
from nacre.core.db import Tx
from nacre.core.errors import Forbidden

FORBIDDEN = "You are not authorized to perform the requested action: {rule}."


@dataclass(frozen=True)
class System:
    """Acts in nobody's name: loops, tasks after the request, bootstrap."""

    request_id: str
    user_id: str | None = None
    project_id: str | None = None


@dataclass
class Caller:
    """An authenticated (or, on public routes, anonymous) caller. `roles` are names, in lower case."""

    cloud: Cloud
    request_id: str
    user_id: str | None = None
    user_name: str | None = None
    user_domain_id: str | None = None
    user_domain_name: str | None = None
    project_id: str | None = None
    project_name: str | None = None
    project_domain_id: str | None = None
    project_domain_name: str | None = None
    domain_id: str | None = None
    domain_name: str | None = None
    system_scope: str | None = None
    roles: frozenset[str] = frozenset()
    methods: tuple[str, ...] = ()
    audit_ids: tuple[str, ...] = ()
    expires_at: datetime | None = None
    issued_at: datetime | None = None
    token: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    service: str = ""
    rule: str = ""
    forbidden: str = FORBIDDEN
    asked: set[str] = field(default_factory=set)

    def anew(self, request_id: str) -> "Caller":
        """The same caller in another request."""
        same = object.__new__(Caller)
        same.__dict__.update(self.__dict__, request_id=request_id, asked=set())
        return same

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @cached_property
    def credentials(self) -> dict[str, Any]:
        """What rules call `role:`, `user_id:`, ... with the attribute names of oslo.context."""
        return {
            "user_id": self.user_id, "project_id": self.project_id, "tenant_id": self.project_id, "domain_id": self.domain_id,
            "user_domain_id": self.user_domain_id, "project_domain_id": self.project_domain_id, "system_scope": self.system_scope,
            "roles": sorted(self.roles), "is_admin": self.is_admin, "is_admin_project": True,
            "token": {"project": {"id": self.project_id, "domain": {"id": self.project_domain_id}}, "domain": {"id": self.domain_id},
                      "user": {"id": self.user_id}},
        }  # fmt: skip

    def allowed(self, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        whole = {"project_id": self.project_id, "user_id": self.user_id, "tenant_id": self.project_id} if target is None else target
        known = {name: value for name, value in whole.items() if value is not None}  # an absent owner matches nobody, not everybody
        return self.cloud.policies[self.service].check(rule, known, self.credentials)

    def require(self, target: Mapping[str, Any] | None = None, rule: str = "") -> None:
        """Refuse unless the route's rule (or `rule`) allows it on `target`. Raises Forbidden naming the rule."""
        name = rule or self.rule
        self.asked.add(name)
        if not self.allowed(name, target):
            raise Forbidden(self.forbidden.format(rule=name), kind="PolicyNotAuthorized")

    def write(self) -> AbstractContextManager[Tx]:
        return self.cloud.db.write(self)

    def read(self) -> AbstractContextManager[sa.Connection]:
        return self.cloud.db.read()
