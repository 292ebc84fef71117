"""Deletions that take much with them: of a project, a domain, a user, a role. When a process dies in one there is all of it or nothing: no row
says of what is gone, and whatever is asked of the rest is answered."""

import time
from typing import Any

import sqlalchemy as sa

from crash.cloud import HISTORY, Cloud, Lost
from nacre.core import db

V3, NAME = "/identity/v3", "made"
# Keeps the number of a role that is gone, so that the credential is worth nothing, not less.
_KEPT = {"app_credential_roles.role_id"}


class Directory:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.goes: dict[str, list[str]] = {}  # what is deleted -> its id, and those of what goes with it

    def _made(self, word: str, path: str = "", token: str = "", **said: Any) -> Any:
        status, answer = self.cloud.ask("POST", f"{V3}/{path or word + 's'}", {word: said}, token)
        assert status == 201, answer
        return answer[word]

    def _put(self, path: str, method: str = "PUT", body: Any = None) -> None:
        status, answer = self.cloud.ask(method, f"{V3}/{path}", body)
        assert status < 300, (path, answer)

    def prepare(self) -> str:
        home = {"domain_id": self._made("domain", name=NAME)["id"]}
        above, group = self._made("project", name=f"{NAME}-above", **home)["id"], self._made("group", name=NAME, **home)["id"]
        project = self._made("project", name=NAME, parent_id=above, tags=["a", "b"], **home)["id"]
        user = self._made("user", name=NAME, password="secret", default_project_id=project, **home)["id"]
        role, own = self._made("role", name=NAME)["id"], self._made("role", name=NAME, **home)["id"]
        self._put(f"groups/{group}/users/{user}")
        for path in (f"projects/{project}/users/{user}", f"domains/{home['domain_id']}/groups/{group}", f"system/users/{user}"):
            self._put(f"{path}/roles/{role}")
        self._put(f"OS-INHERIT/domains/{home['domain_id']}/groups/{group}/roles/{role}/inherited_to_projects")
        self._put(f"OS-INHERIT/projects/{above}/users/{user}/roles/{role}/inherited_to_projects")
        self._put(f"domains/{home['domain_id']}/users/{user}/roles/{own}")
        reader = self.cloud.get(f"{V3}/roles?name=reader")[1]["roles"][0]["id"]
        self._put(f"roles/{role}/implies/{reader}")
        delegated, rule = self._delegated(user, project, role)
        self._restricted(project)
        inside = [above, group, project, user, rule, own, *delegated]
        self.goes = {"project": [project, *delegated], "user": [user, rule, *delegated], "role": [role], "domain": [home["domain_id"], *inside]}
        return user

    def _delegated(self, user: str, project: str, role: str) -> tuple[list[str], str]:
        """What the user lets others do in the project, and an access rule."""
        mine = self.cloud.token_of({"id": user, "password": "secret"}, {"project": {"id": project}})
        access = [{"service": "compute", "method": "GET", "path": "/v2.1/servers"}]
        program = self._made("application_credential", f"users/{user}/application_credentials", mine, name=NAME, access_rules=access)
        admin = self.cloud.get(f"{V3}/users?name=admin")[1]["users"][0]["id"]
        trust = self._made("trust", "OS-TRUST/trusts", mine, trustor_user_id=user, trustee_user_id=admin, project_id=project, impersonation=True,
                           roles=[{"id": role}])  # fmt: skip
        key = self._made("credential", "credentials", mine, user_id=user, project_id=project, type="cert", blob="secret")
        return [program["id"], trust["id"], key["id"]], program["access_rules"][0]["id"]

    def _restricted(self, project: str) -> None:
        service = self.cloud.get(f"{V3}/services?type=compute")[1]["services"][0]["id"]
        endpoint = self.cloud.get(f"{V3}/endpoints?service_id={service}")[1]["endpoints"][0]["id"]
        self._put(f"OS-EP-FILTER/projects/{project}/endpoints/{endpoint}")
        limit = {"service_id": service, "resource_name": NAME}
        self._put("registered_limits", "POST", {"registered_limits": [{**limit, "default_limit": 5}]})
        self._put("limits", "POST", {"limits": [{**limit, "project_id": project, "resource_limit": 7}]})

    def delete(self, what: str) -> bool:
        """As a client does that has lost the answer: asked again. What was lost was done whole, or not begun."""
        gone = self.goes[what]
        at = f"{V3}/{what}s/{gone[0]}"
        if what == "domain":
            self.cloud.do("PATCH", at, {"domain": {"enabled": False}})
        there = self.cloud.counted()
        while True:
            self.cloud.tend()
            try:
                status, answer = self.cloud.ask("DELETE", at)
                break
            except Lost:
                assert self.cloud.counted() == there or not self.said(gone), "it was done in part"
                time.sleep(0.05)
        assert status in (204, 404), answer
        assert not (left := self.said(gone)), f"of what is gone say {left}"
        self.asked()
        return True

    def said(self, ids: list[str]) -> set[str]:
        """Where a row says one of these."""
        columns = [column for name, table in db.metadata.tables.items() if name not in HISTORY
                   for column in table.c if isinstance(column.type, sa.String)]  # fmt: skip
        listed = ", ".join(f"'{row_id}'" for row_id in ids)
        asked = [f"SELECT '{column}' FROM {column.table.name} WHERE {column.name} IN ({listed})" for column in columns if str(column) not in _KEPT]
        return {row[0] for row in self.cloud.rows(*asked)}

    def asked(self) -> None:
        for path in ("role_assignments?effective&include_names", "role_assignments?include_names", "users", "groups", "projects", "domains", "roles",
                     "credentials", "OS-TRUST/trusts", "limits", "role_inferences", "auth/projects"):  # fmt: skip
            status, answer = self.cloud.get(f"{V3}/{path}")
            assert status == 200, (path, answer)

    def clear(self) -> None:
        if not self.goes:
            return
        if self.cloud.get(f"{V3}/domains/{self.goes['domain'][0]}")[0] == 200:
            self.delete("domain")
        for role in self.cloud.get(f"{V3}/roles?name={NAME}")[1]["roles"]:
            self.cloud.do("DELETE", f"{V3}/roles/{role['id']}")
        for row in self.cloud.get(f"{V3}/registered_limits?resource_name={NAME}")[1]["registered_limits"]:
            self.cloud.do("DELETE", f"{V3}/registered_limits/{row['id']}")
        self.goes = {}
