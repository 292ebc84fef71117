"""The API by plain requests: what a test has to set up before it begins is not worth a second each."""

import json
import ssl
import urllib.request
from typing import Any

from machine.course import Course


class Rest:
    """One user of `keystonerc_USER`. An answer of 400 or more is raised as urllib.error.HTTPError."""

    def __init__(self, course: Course, user: str) -> None:
        self.base, self.token = f"https://127.0.0.1:{course.port}", ""
        self.context = ssl.create_default_context(cafile=str(course.home / "ca.pem"))
        lines = (course.home / f"keystonerc_{user}").read_text().splitlines()
        password = next(line.partition("=")[2].strip("'\"") for line in lines if "OS_PASSWORD=" in line)
        domain = {"domain": {"id": "default"}}
        identity = {"methods": ["password"], "password": {"user": {"name": user, "password": password, **domain}}}
        self("POST", "/identity/v3/auth/tokens", {"auth": {"identity": identity, "scope": {"project": {"name": user, **domain}}}})

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json", "x-auth-token": self.token}
        request = urllib.request.Request(self.base + path, json.dumps(body).encode() if body else None, headers, method=method)
        with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:
            self.token = answer.headers.get("x-subject-token") or self.token
            return json.loads(answer.read() or b"null")

    def network(self, kind: str, **values: Any) -> Any:
        """A new network, subnet, port..."""
        plural = kind.replace("_", "-") + "s"
        return self("POST", f"/network/v2.0/{plural}", {kind: values})[kind]
