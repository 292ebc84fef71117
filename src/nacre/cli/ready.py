"""Waits until a cloud answers: every address in its catalog, and every host that it should have."""

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from nacre.core.config import Config, Home

LIMIT = 90.0


class NotReady(Exception):
    """Something does not answer (yet); the message says what."""


class Client:
    """One user's plain requests to the cloud's own address."""

    def __init__(self, home: Home, config: Config) -> None:
        self.context = ssl.create_default_context(cafile=str(home.path / "ca.pem"))
        self.address, self.port, self.token = config.nacre.host, config.nacre.port, ""

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] = {}) -> tuple[int, dict[str, str], Any]:
        """Status, headers (lower case) and decoded body. Raises NotReady."""
        told = {"content-type": "application/json", **headers}
        status, shown, content = self._exchange(method, path, json.dumps(body).encode() if body else None, told)
        try:
            return status, shown, json.loads(content or b"null")
        except ValueError as error:
            raise NotReady(f"{method} {path}: {error}") from error

    def upload(self, path: str, content: bytes) -> int:
        """The status. Raises NotReady."""
        return self._exchange("PUT", path, content, {"content-type": "application/octet-stream"})[0]

    def _exchange(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        try:
            connection = http.client.HTTPSConnection(self.address, self.port, timeout=10, context=self.context)
            connection.request(method, path, content, {**({"x-auth-token": self.token} if self.token else {}), **headers})
            answer = connection.getresponse()
            told = answer.read()
            connection.close()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, told
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(f"{method} {path}: {error}") from error

    def catalog(self, password: str) -> list[dict[str, Any]]:
        """Signs in as the administrator. Raises NotReady; PermissionError if the password is no longer right."""
        user = {"name": "admin", "domain": {"id": "default"}, "password": password}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        status, headers, body = self.ask("POST", "/identity/v3/auth/tokens", {"auth": auth})
        if status == 401:
            raise PermissionError("the password in keystonerc_admin is refused")
        if status != 201:
            raise NotReady(f"sign in: {status}")
        self.token = headers["x-subject-token"]
        catalog: list[dict[str, Any]] = body["token"]["catalog"]
        return catalog


class Look:
    """Looks at everything once more each time; what has answered is not asked again."""

    def __init__(self, client: Client, password: str, hosts: Callable[[], int]) -> None:
        self.client, self.password, self.hosts = client, password, hosts
        self.paths: dict[str, str] | None = None
        self.compute = False

    def check(self) -> None:
        """Raises NotReady. With a changed administrator's password only identity is looked at."""
        if self.paths is None:
            status, _, _ = self.client.ask("GET", "/identity/v3")
            if status != 200:
                raise NotReady(f"identity: {status}")
            try:
                catalog = self.client.catalog(self.password)
            except PermissionError:
                catalog = []
            self.compute = any(service["type"] == "compute" for service in catalog)
            self.paths = {
                urlsplit(endpoint["url"]).path.split("/")[1]: service["type"] for service in catalog for endpoint in service["endpoints"]
            }
        for path, kind in list(self.paths.items()):
            status, _, _ = self.client.ask("GET", f"/{path}/")
            if status >= 400:
                raise NotReady(f"{kind}: {status}")
            del self.paths[path]
        if self.compute:
            self._hosts()

    def _hosts(self) -> None:
        status, _, body = self.client.ask("GET", "/compute/v2.1/os-services?binary=nova-compute")
        up = sum(service.get("state") == "up" for service in body.get("services", [])) if status == 200 else 0
        if up < self.hosts():
            raise NotReady(f"{up} of {self.hosts()} compute hosts have reported")
