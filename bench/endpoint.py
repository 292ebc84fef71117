"""An OpenStack to be measured: any that an auth URL leads to, or a throwaway one of this clone.

What a scenario needs besides load is asked here with one plain request after another.
"""

import http.client
import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from load import Unreachable

CLONE = Path(__file__).resolve().parents[1]
OURS = ("api", "worker", "node", "up")
_TICKS = os.sysconf("SC_CLK_TCK")


class Trouble(Exception):
    """The benchmark cannot go on; the message is one sentence."""


@dataclass(frozen=True)
class Credentials:
    user: str
    password: str
    project: str
    domain: str = "default"

    @classmethod
    def given(cls, url: str) -> "Credentials":
        """Those in the URL, else those of the environment, as the clients take them. Raises Trouble."""
        at = urlsplit(url)
        user, password = unquote(at.username or "") or os.environ.get("OS_USERNAME"), unquote(at.password or "") or os.environ.get("OS_PASSWORD")
        if not user or not password:
            raise Trouble(f"Who is to sign in at {at.hostname}? Source a keystonerc file, or set OS_USERNAME and OS_PASSWORD.")
        return cls(user, password, os.environ.get("OS_PROJECT_NAME", user), os.environ.get("OS_USER_DOMAIN_ID", "default"))


class Endpoint:
    """Signed in at `auth_url`. `pids`: the server's processes where they are known; else what this machine computes besides us counts."""

    def __init__(self, name: str, auth_url: str, credentials: Credentials, pids: Mapping[str, int] | None = None) -> None:
        self.name, self.auth_url, self.credentials = name, auth_url.rstrip("/"), credentials
        self.pids = dict(pids or {})
        cafile = os.environ.get("OS_CACERT")
        try:
            self.trust = ssl.create_default_context(cafile=cafile)
        except OSError as error:
            raise Trouble(f"OS_CACERT, {cafile}, cannot be read: {error.strerror}.") from error
        self.token, self.catalog, self.project_id = "", dict[str, str](), ""
        self.sign_in()

    def sign_in(self) -> None:
        c = self.credentials
        status, headers, body = self.raw("POST", f"{self.auth_url}/auth/tokens", self.password_body())
        if status == 401:
            raise Trouble(f"{self.auth_url} does not accept the password of {c.user} in project {c.project}.")
        if status != 201 or "x-subject-token" not in headers:
            raise Trouble(f"{self.auth_url} is no Identity API v3: it answers {status}.")
        self.token, self.project_id = headers["x-subject-token"], body["token"]["project"]["id"]
        for service in body["token"]["catalog"]:
            for found in service["endpoints"]:
                if found["interface"] == "public":
                    self.catalog[service["type"]] = found["url"].rstrip("/").replace("$(project_id)s", self.project_id)

    def password_body(self) -> dict[str, Any]:
        c, domain = self.credentials, {"id": self.credentials.domain}
        who = {"methods": ["password"], "password": {"user": {"name": c.user, "password": c.password, "domain": domain}}}
        return {"auth": {"identity": who, "scope": {"project": {"name": c.project, "domain": domain}}}}

    def url(self, service: str, path: str) -> str:
        """Raises Trouble when the catalog has no such service."""
        if service not in self.catalog:
            raise Trouble(f"{self.name} offers no {service} service.")
        base = self.catalog[service]
        version = {"network": "/v2.0", "image": "/v2"}.get(service, "")
        return base + ("" if base.endswith(version) else version) + path

    def ask(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] = {}) -> Any:
        """The decoded answer. Raises Trouble when it is a refusal."""
        status, _, answer = self.raw(method, url, body, {"x-auth-token": self.token, **headers})
        if status >= 400:
            raise Trouble(f"{method} {url}: {status} {str(answer)[:200]}")
        return answer

    def raw(self, method: str, url: str, body: Any = None, headers: Mapping[str, str] = {}) -> tuple[int, dict[str, str], Any]:
        at = urlsplit(url)
        if at.scheme not in ("http", "https") or not at.hostname:
            raise Trouble(f"{url} is no address: give the auth URL, like  http://127.0.0.1:5000/v3")
        made = (http.client.HTTPSConnection(at.hostname, at.port or 443, timeout=60, context=self.trust) if at.scheme == "https"
                else http.client.HTTPConnection(at.hostname, at.port or 80, timeout=60))  # fmt: skip
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        try:
            made.request(method, at.path + (f"?{at.query}" if at.query else ""), content, {"content-type": "application/json", **headers})
            answer = made.getresponse()
            text = answer.read()
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"the certificate of {at.netloc} is not trusted: name its authority in OS_CACERT") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{at.hostname}:{at.port} does not answer: {error}") from error
        finally:
            made.close()
        try:
            decoded = json.loads(text or b"null")
        except ValueError:
            decoded = text.decode(errors="replace")
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, decoded

    def cpu(self) -> float | None:
        """Seconds that the server has computed; None if that cannot be told from here."""
        if self.pids:
            return sum(_computed(pid) for pid in self.pids.values())
        if urlsplit(self.auth_url).hostname not in ("127.0.0.1", "localhost", "::1"):
            return None
        busy = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        mine = os.times()
        return (sum(busy) - busy[3] - busy[4]) / _TICKS - mine.user - mine.system

    def memory(self) -> float | None:
        """MB, shared pages divided among their users, of the server's processes."""
        return sum(_pss(pid) for pid in self.pids.values()) if self.pids else None


def _computed(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@dataclass(frozen=True)
class Own:
    """A throwaway cloud of this clone. `started`: seconds that its second `up` took."""

    home: Path
    port: int
    started: float

    def nacre(self, *words: str) -> str:
        return _nacre(self.home, *words)


def _nacre(home: Path, verb: str, *words: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON", "NACRE_HOME"))}
    done = subprocess.run([str(CLONE / "nacre"), verb, "--home", str(home), *words], env=env, capture_output=True, text=True, timeout=600,
                          check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    if done.returncode:
        raise Trouble(f"{verb}: {done.stderr.strip().rpartition(chr(10))[2] or 'failed'}")
    return done.stdout


@contextmanager
def own(port: int, hosts: int, options: tuple[str, ...] = ()) -> Iterator[tuple[Own, Endpoint]]:
    """Starts a cloud on the fake hypervisor (or as `options` say), on plain HTTP, the api pinned to the first core and us to the last;
    wipes it at the end. Raises Trouble."""
    if os.geteuid():
        raise Trouble("A throwaway cloud needs root: type  sudo ./nacre bench, or name one with --against.")
    folder = Path(tempfile.mkdtemp(prefix="nacre-bench-"))
    home = folder / "home"
    folder.chmod(0o755)
    cores = sorted(os.sched_getaffinity(0))
    try:
        kind = options or ("--hypervisor", "fake", "--fake-hosts", str(hosts))
        _nacre(home, "up", "--port", str(port), "--http-port", str(port + 1), *kind)
        _nacre(home, "down")
        begun = time.monotonic()
        _nacre(home, "up")
        made = Own(home, port, time.monotonic() - begun)
        rows = json.loads(made.nacre("status", "--json"))["processes"]
        pids = {row["role"]: row["pid"] for row in rows if row["role"] in OURS}
        password = next(line.partition("=")[2].strip("'") for line in (home / "keystonerc_admin").read_text().splitlines() if "OS_PASSWORD=" in line)
        os.sched_setaffinity(0, {cores[-1]})
        for thread in os.listdir(f"/proc/{pids['api']}/task"):
            os.sched_setaffinity(int(thread), {cores[0]})
        yield made, Endpoint("nacre", f"http://127.0.0.1:{port + 1}/identity/v3", Credentials("admin", password, "admin"), pids)
    finally:
        os.sched_setaffinity(0, set(cores))
        try:
            _nacre(home, "down", "--wipe")
        finally:
            if not home.exists():
                folder.rmdir()
