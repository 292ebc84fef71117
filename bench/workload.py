"""What clients of a crash bench do, and what they remember: each makes, changes and deletes servers, networks, routers, floating IPs, ports
and images, never of another's, and keeps an account of every create and delete that the cloud acknowledged.

A request without an answer may have been done or not: it is looked for by its name (a name is used once), and only what was told with an
answer of success counts as acknowledged. At the end everything acknowledged is asked for (`Client.lost`).
"""

import http.client
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATHS = {"server": "/compute/v2.1/servers", "network": "/network/v2.0/networks", "subnet": "/network/v2.0/subnets", "image": "/image/v2/images",
         "router": "/network/v2.0/routers", "floatingip": "/network/v2.0/floatingips", "port": "/network/v2.0/ports"}  # fmt: skip
TOKENS = "/identity/v3/auth/tokens"
MOST = 5


class NoAnswer(Exception):
    """The connection ended first."""


class Api:
    """As a user of `keystonerc_<user>`; a connection a request, so that none is an old one that died unseen."""

    def __init__(self, home: Path, port: int, user: str) -> None:
        self.port, self.token = port, ""
        self.trust = ssl.create_default_context(cafile=str(home / "ca.pem"))
        lines = (home / f"keystonerc_{user}").read_text().splitlines()
        self.user, self.password = user, next(line.partition("=")[2].strip("'\"") for line in lines if "OS_PASSWORD=" in line)
        self.sign_in()

    def sign_in(self) -> None:
        domain = {"domain": {"id": "default"}}
        who = {"methods": ["password"], "password": {"user": {"name": self.user, "password": self.password, **domain}}}
        body = {"auth": {"identity": who, "scope": {"project": {"name": self.user, **domain}}}}
        status, answer = self("POST", TOKENS, body)
        if status != 201:
            raise RuntimeError(f"no token: {status} {answer}")

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, answer). Raises NoAnswer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=90, context=self.trust)
        try:
            connection.request(method, path, raw, {"content-type": kind, "x-auth-token": self.token, "openstack-api-version": "compute 2.60"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
        if answer.status == 401 and path != TOKENS:  # it has worked for longer than a token lives
            self.sign_in()
            return self(method, path, body)
        self.token = answer.headers.get("x-subject-token") or self.token
        return answer.status, json.loads(text or b"null")

    def patiently(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Asked again until there is an answer; for questions."""
        while True:
            try:
                return self(method, path, body)
            except NoAnswer:
                time.sleep(0.2)


@dataclass
class Tally:
    """`broken`: answers that the cloud owes nobody (500)."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def told(self) -> str:
        asked = ("acknowledged", "refused", "told to try later", "unanswered", "broken")
        numbers = ", ".join(f"{self.counts[name]} {name}" for name in asked)
        return f"operations {sum(self.counts[name] for name in asked)}: {numbers}; {self.counts['failed']} servers failed with a reason"

    def breaks(self, what: str) -> None:
        with self.lock:
            self.broken.append(what)


@dataclass(frozen=True)
class Site:
    """What all clients build upon."""

    image: str
    flavors: tuple[str, str]
    outside: str
    inside: str


class Client:
    """One client, doing one thing after the other until told to stop."""

    def __init__(self, api: Api, site: Site, name: str, chance: random.Random, tally: Tally) -> None:
        self.api, self.site, self.name, self.chance, self.tally = api, site, name, chance, tally
        self.there: dict[str, tuple[str, str]] = {}  # id -> (kind, name), acknowledged and not asked to go
        self.gone: dict[str, str] = {}  # id -> kind, acknowledged to go
        self.number = 0
        servers = (self._make_server, self._change_server, self._change_server, self._delete("server"))
        others = (self._make_network, self._router, self._floating_ip, self._port, self._image, self._delete("port"), self._delete("floatingip"))
        self.acts: tuple[Callable[[], None], ...] = (*servers, *servers, *others)

    def run(self, stop: threading.Event, pause: float) -> None:
        try:
            while not stop.wait(pause * self.chance.random()):
                self.chance.choice(self.acts)()
        except Exception as error:
            self.tally.breaks(f"client {self.name} could not go on: {error!r}")
            raise

    # Asking and keeping account

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, answer); status 0: there was none."""
        try:
            status, answer = self.api(method, path, body)
        except NoAnswer:
            self.tally.add("unanswered")
            time.sleep(0.3)
            return 0, None
        self.tally.add("acknowledged" if status < 300 else "told to try later" if status == 503 else "refused" if status < 500 else "broken")
        if status >= 500 and status != 503:
            self.tally.breaks(f"{method} {path}: {status} {str(answer)[:300]}")
        return status, answer

    def make(self, kind: str, body: dict[str, Any]) -> str:
        """The id of a new one; empty when it was refused. One that nobody told of is looked for."""
        self.number += 1
        name = f"{self.name}-{self.number}"
        named = {**body, "description": name} if kind == "floatingip" else {**body, "name": name}
        status, answer = self.ask("POST", PATHS[kind], named if kind == "image" else {kind: named})
        if status == 0:
            return self._found(kind, name)
        if status >= 300:
            return ""
        made = str((answer if kind == "image" else answer[kind])["id"])
        self.there[made] = (kind, name)
        return made

    def _found(self, kind: str, name: str) -> str:
        field_ = "description" if kind == "floatingip" else "name"
        status, answer = self.api.patiently("GET", f"{PATHS[kind]}?{field_}={name}")
        rows = answer.get(f"{kind}s", []) if status == 200 else []
        if not rows:
            return ""
        self.there[rows[0]["id"]] = (kind, name)  # whoever sees it once may rely on it
        return str(rows[0]["id"])

    def delete(self, id_: str) -> None:
        kind = self.there[id_][0]
        status, _ = self.ask("DELETE", f"{PATHS[kind]}/{id_}")
        if status in (204, 404) or (status == 0 and self._is_gone(kind, id_)):
            del self.there[id_]
            self.gone[id_] = kind

    def _is_gone(self, kind: str, id_: str) -> bool:
        return self.api.patiently("GET", f"{PATHS[kind]}/{id_}")[0] == 404

    def mine(self, kind: str) -> list[str]:
        return [id_ for id_, (one, _) in self.there.items() if one == kind]

    def _delete(self, kind: str) -> Callable[[], None]:
        def act() -> None:
            if found := self.mine(kind):
                self.delete(self.chance.choice(found))

        return act

    # What it does

    def _make_server(self) -> None:
        if len(self.mine("server")) < MOST:
            network = self.chance.choice([self.site.inside, *self.mine("network")])
            self.make("server", {"imageRef": self.site.image, "flavorRef": self.site.flavors[0], "networks": [{"uuid": network}]})

    def _change_server(self) -> None:
        if not (found := self.mine("server")):
            return
        id_ = self.chance.choice(found)
        status, answer = self.ask("GET", f"{PATHS['server']}/{id_}")
        if status != 200:
            return
        shown = answer["server"]
        other = self.site.flavors[shown["flavor"]["ram"] == 64]
        actions: dict[str, list[Any]] = {
            "ACTIVE": [{"os-stop": None}, {"reboot": {"type": "HARD"}}, {"pause": None}, {"resize": {"flavorRef": other}},
                       {"createImage": {"name": f"{self.name}-of-{id_[:8]}"}}, {"rebuild": {"imageRef": self.site.image}}],
            "SHUTOFF": [{"os-start": None}], "PAUSED": [{"unpause": None}], "VERIFY_RESIZE": [{"confirmResize": None}, {"revertResize": None}],
            "ERROR": [{"rebuild": {"imageRef": self.site.image}}],
        }  # fmt: skip
        if wanted := actions.get(shown["status"]):
            self.ask("POST", f"{PATHS['server']}/{id_}/action", self.chance.choice(wanted))

    def _make_network(self) -> None:
        if len(self.mine("network")) >= 2:
            return
        if network := self.make("network", {}):
            cidr = f"172.{self.chance.randrange(17, 31)}.{self.chance.randrange(256)}.0/24"
            self.make("subnet", {"network_id": network, "ip_version": 4, "cidr": cidr})

    def _router(self) -> None:
        """Makes one with a gateway and an interface, or takes one away."""
        if len(routers := self.mine("router")) >= 2:
            id_ = self.chance.choice(routers)
            _, answer = self.ask("GET", f"{PATHS['port']}?device_id={id_}&device_owner=network:router_interface")
            for port in (answer or {}).get("ports", ()):
                self.ask("PUT", f"{PATHS['router']}/{id_}/remove_router_interface", {"port_id": port["id"]})
            return self.delete(id_)
        made = self.make("router", {"external_gateway_info": {"network_id": self.site.outside}})
        if made and (subnets := self.mine("subnet")):
            self.ask("PUT", f"{PATHS['router']}/{made}/add_router_interface", {"subnet_id": self.chance.choice(subnets)})

    def _floating_ip(self) -> None:
        if len(self.mine("floatingip")) >= 2:
            return
        made = self.make("floatingip", {"floating_network_id": self.site.outside})
        _, answer = self.ask("GET", f"{PATHS['port']}?network_id={self.site.inside}")
        ports = [port["id"] for port in (answer or {}).get("ports", ()) if port["device_id"] in self.there]
        if made and ports:
            self.ask("PUT", f"{PATHS['floatingip']}/{made}", {"floatingip": {"port_id": self.chance.choice(ports)}})

    def _port(self) -> None:
        if len(self.mine("port")) < 3:
            self.make("port", {"network_id": self.site.inside})

    def _image(self) -> None:
        if len(found := self.mine("image")) >= 2:
            return self.delete(self.chance.choice(found))
        if made := self.make("image", {"disk_format": "raw", "container_format": "bare"}):
            self.ask("PUT", f"{PATHS['image']}/{made}/file", self.chance.randbytes(70000))

    # When the cloud rests

    def lost(self) -> list[str]:
        """What was acknowledged and is not so."""
        found = []
        for id_, (kind, name) in self.there.items():
            status, answer = self.api.patiently("GET", f"{PATHS[kind]}/{id_}")
            if status != 200:
                found.append(f"{kind} {id_} ({name}) was made and is gone: {status}")
            elif kind == "server" and answer["server"]["OS-EXT-STS:task_state"] is not None:
                found.append(f"server {id_} is {answer['server']['OS-EXT-STS:task_state']} for ever")
            elif kind == "server" and answer["server"]["status"] == "ERROR" and not answer["server"].get("fault", {}).get("message"):
                found.append(f"server {id_} is in ERROR without a reason")
            elif kind == "server" and answer["server"]["status"] == "ERROR":
                self.tally.add("failed")
        for id_, kind in self.gone.items():
            if (status := self.api.patiently("GET", f"{PATHS[kind]}/{id_}")[0]) != 404:
                found.append(f"{kind} {id_} was deleted and is there: {status}")
        return found
