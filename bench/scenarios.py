"""What is measured. A scenario takes an endpoint and gives rows; it leaves behind nothing but what the next scenario may use.

Loads are run for `pace` seconds each, at 1, 10 and 16 connections that are kept, and at 16 that are new for each request.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import load
from endpoint import Endpoint, Own, Trouble

WIDTHS = ((1, False), (10, False), (16, False), (16, True))
SERVERS, BURST = 100, 50


@dataclass
class Row:
    """A line of the table. `value` with its `unit` is what is compared: more is better for /s and MB/s, less for the others."""

    scenario: str
    value: float
    unit: str
    connections: int = 1
    kept: bool = True
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    cpu_ms: float | None = None
    requests: int = 1
    errors: dict[str, int] = field(default_factory=dict)


@dataclass
class Bench:
    """One endpoint, how long to ask, and what was made there for several scenarios."""

    to: Endpoint
    own: Own | None
    pace: float
    made: dict[str, Any] = field(default_factory=dict)

    def load(self, name: str, make: Callable[[int], load.Request], service: str = "", width: tuple[int, bool] = (1, False),
             count: int | None = None) -> Row:  # fmt: skip
        base = urlsplit(self.to.url(service, "") if service else self.to.auth_url)
        order = load.Order(f"{base.scheme}://{base.netloc}", make, width[0], self.pace, count, width[1], self.to.trust)
        before = self.to.cpu()
        took = load.run(order)
        after = self.to.cpu()
        done = len(took.times) + sum(took.errors.values())
        cpu = (after - before) * 1000 / done if before is not None and after is not None and done else None
        return Row(name, took.per_second, "/s", width[0], not width[1], took.percentile(0.5), took.percentile(0.95), took.percentile(0.99),
                   cpu, done, took.errors)  # fmt: skip

    def reads(self, name: str, service: str, path: str, widths: tuple[tuple[int, bool], ...] = WIDTHS) -> Iterator[Row]:
        """A GET at several widths; a moment of it first, for caches."""
        at = urlsplit(self.to.url(service, path) if service != "identity" else self.to.auth_url + path)
        one = load.Request("GET", at.path + (f"?{at.query}" if at.query else ""), {"x-auth-token": self.to.token, "accept": "application/json"})
        where = "" if service == "identity" else service
        self.load(name, lambda n: one, where, (4, False), count=20)
        for width in widths:
            yield self.load(name, lambda n: one, where, width)


def token(bench: Bench) -> Iterator[Row]:
    """A token by password."""
    body = json.dumps(bench.to.password_body()).encode()
    path = urlsplit(bench.to.auth_url).path + "/auth/tokens"
    one = load.Request("POST", path, {"content-type": "application/json"}, body, (201,))
    for width in ((1, False), (16, False)):
        yield bench.load("token by password", lambda n: one, "", width)


def token_appcred(bench: Bench) -> Iterator[Row]:
    """A token by application credential, whose secret was made by the service: what programs do."""
    asked = {"x-subject-token": bench.to.token}
    user = bench.to.ask("GET", f"{bench.to.auth_url}/auth/tokens", None, asked)["token"]["user"]["id"]
    at = f"{bench.to.auth_url}/users/{user}/application_credentials"
    made = bench.to.ask("POST", at, {"application_credential": {"name": "bench"}})["application_credential"]
    said = {"methods": ["application_credential"], "application_credential": {"id": made["id"], "secret": made["secret"]}}
    body = json.dumps({"auth": {"identity": said}}).encode()
    one = load.Request("POST", urlsplit(bench.to.auth_url).path + "/auth/tokens", {"content-type": "application/json"}, body, (201,))
    try:
        for width in WIDTHS:
            yield bench.load("token by application credential", lambda n: one, "", width)
    finally:
        bench.to.ask("DELETE", f"{at}/{made['id']}")


def validate(bench: Bench) -> Iterator[Row]:
    """What every service of an OpenStack asks at every request: is this token good, and for what?"""
    path = urlsplit(bench.to.auth_url).path + "/auth/tokens"
    one = load.Request("GET", path, {"x-auth-token": bench.to.token, "x-subject-token": bench.to.token})
    bench.load("validate", lambda n: one, "", (4, False), count=20)
    for width in WIDTHS:
        yield bench.load("validate token", lambda n: one, "", width)


def lists(bench: Bench) -> Iterator[Row]:
    """What an operator looks at first, as it is here."""
    for name, service, path in (("list projects", "identity", "/projects"), ("list images", "image", "/images?limit=100"),
                                ("list networks", "network", "/networks"), ("list ports", "network", "/ports?limit=100")):  # fmt: skip
        yield from bench.reads(name, service, path, ((1, False), (16, False), (16, True)))


def servers_detail(bench: Bench) -> Iterator[Row]:
    """The page that dashboards and clients ask for: 100 servers with all their details."""
    servers(bench, SERVERS)
    yield from bench.reads("servers/detail, 100 servers", "compute", f"/servers/detail?limit={SERVERS}")


def show(bench: Bench) -> Iterator[Row]:
    servers(bench, 1)
    found = bench.to.ask("GET", bench.to.url("compute", "/servers?limit=1"))["servers"][0]["id"]
    yield from bench.reads("show server", "compute", f"/servers/{found}", ((1, False), (16, False), (16, True)))


def create(bench: Bench) -> Iterator[Row]:
    """POST servers, one after another: the 202, and when it is ACTIVE."""
    accepted, active = [], []
    for _ in range(20):
        begun = time.perf_counter()
        made = bench.to.ask("POST", bench.to.url("compute", "/servers"), body(bench, "one", [{"uuid": net(bench)}]))["server"]["id"]
        accepted.append(time.perf_counter() - begun)
        until_active(bench, {made}, every=0.01)
        active.append(time.perf_counter() - begun)
        remove(bench, [made])
    for name, times in (("POST server -> 202", sorted(accepted)), ("POST server -> ACTIVE", sorted(active))):
        yield Row(name, times[len(times) // 2] * 1000, "ms", requests=20, p50_ms=times[10] * 1000, p95_ms=times[18] * 1000, p99_ms=times[19] * 1000)


def burst(bench: Bench) -> Iterator[Row]:
    """50 servers at once, a port each: from the first POST until the last is ACTIVE."""
    content = json.dumps(body(bench, "burst", [{"uuid": net(bench)}])).encode()
    path = urlsplit(bench.to.url("compute", "/servers")).path
    asked = load.Request("POST", path, {"x-auth-token": bench.to.token, "content-type": "application/json"}, content, (202,))
    before = {server["id"] for server in listed(bench)}
    begun, computed = time.perf_counter(), bench.to.cpu()
    posts = bench.load("50 x POST server", lambda n: asked, "compute", (BURST, False), count=BURST)
    made = {server["id"] for server in listed(bench)} - before
    until_active(bench, made, every=0.1)
    took, after = time.perf_counter() - begun, bench.to.cpu()
    cpu = (after - computed) * 1000 / BURST if after is not None and computed is not None else None
    yield posts
    yield Row("50 servers at once, last ACTIVE", took, "s", BURST, cpu_ms=cpu, requests=BURST)
    remove(bench, list(made))


def network(bench: Bench) -> Iterator[Row]:
    """A network, a subnet, a port, a router and its interface: each from one client, one after another."""
    times: dict[str, list[float]] = {}

    def timed(kind: str, method: str, path: str, content: Any) -> Any:
        begun = time.perf_counter()
        answer = bench.to.ask(method, bench.to.url("network", path), content)
        times.setdefault(kind, []).append((time.perf_counter() - begun) * 1000)
        return answer

    for _ in range(20):
        network_id = timed("POST network", "POST", "/networks", {"network": {"name": "bench"}})["network"]["id"]
        subnet = {"network_id": network_id, "ip_version": 4, "cidr": "10.9.0.0/24"}
        subnet_id = timed("POST subnet", "POST", "/subnets", {"subnet": subnet})["subnet"]["id"]
        port_id = timed("POST port", "POST", "/ports", {"port": {"network_id": network_id}})["port"]["id"]
        router_id = timed("POST router", "POST", "/routers", {"router": {"name": "bench"}})["router"]["id"]
        timed("add router interface", "PUT", f"/routers/{router_id}/add_router_interface", {"subnet_id": subnet_id})
        bench.to.ask("PUT", bench.to.url("network", f"/routers/{router_id}/remove_router_interface"), {"subnet_id": subnet_id})
        for path in (f"/routers/{router_id}", f"/ports/{port_id}", f"/networks/{network_id}"):
            bench.to.ask("DELETE", bench.to.url("network", path))
    for kind, taken in times.items():
        ordered = sorted(taken)
        yield Row(kind, ordered[10], "ms", requests=20, p50_ms=ordered[10], p95_ms=ordered[18], p99_ms=ordered[19])


def image(bench: Bench) -> Iterator[Row]:
    """256 MiB up and down."""
    size = 256 << 20
    fresh = {"name": "bench", "disk_format": "raw", "container_format": "bare"}
    made = bench.to.ask("POST", bench.to.url("image", "/images"), fresh)["id"]
    at = bench.to.url("image", f"/images/{made}/file")
    try:
        begun = time.perf_counter()
        bench.to.ask("PUT", at, os.urandom(1 << 20) * 256, {"content-type": "application/octet-stream"})
        yield Row("upload 256 MiB image", size / 1e6 / (time.perf_counter() - begun), "MB/s")
        one = load.Request("GET", urlsplit(at).path, {"x-auth-token": bench.to.token})
        row = bench.load("download", lambda n: one, "image", count=4)
        yield Row("download 256 MiB image", row.value * size / 1e6, "MB/s", requests=4, errors=row.errors)
    finally:
        bench.to.ask("DELETE", bench.to.url("image", f"/images/{made}"))


def memory(bench: Bench) -> Iterator[Row]:
    """What the processes hold, and what they compute in a minute in which nobody asks anything."""
    held = bench.to.memory()
    if held is not None:
        yield Row("memory (PSS of all processes)", held, "MB")
    rest = min(60.0, bench.pace * 4)
    before = bench.to.cpu()
    time.sleep(rest)
    after = bench.to.cpu()
    if before is not None and after is not None and bench.to.pids:
        yield Row("idle, share of a core", (after - before) / rest * 100, "%")


def start(bench: Bench) -> Iterator[Row]:
    if bench.own is not None:
        yield Row("start: stopped -> every endpoint answers", bench.own.started, "s")


def placement(bench: Bench) -> Iterator[Row]:
    """Lists of resource providers, and one shown: 100 of them; in a cloud of our own 10,000."""
    path, made = urlsplit(bench.to.url("placement", "/resource_providers")).path, list[str]()
    headers = {"x-auth-token": bench.to.token, "content-type": "application/json", "openstack-api-version": "placement 1.20"}

    def make(number: int) -> load.Request:
        made.append(str(uuid.uuid4()))
        return load.Request("POST", path, headers, json.dumps({"name": f"bench-{made[-1]}", "uuid": made[-1]}).encode(), (200,))

    try:
        for count in (100, 10_000) if bench.own is not None else (100,):
            bench.load("POST provider", make, "placement", (8, False), count=count - len(made))
            for name, query in ((f"show provider of {count}", f"/{made[0]}"), (f"list {count} providers", "")):
                yield from bench.reads(name, "placement", f"/resource_providers{query}", ((1, False), (16, False)))
    finally:
        bench.load("DELETE provider", lambda n: load.Request("DELETE", f"{path}/{made[n]}", headers, b"", (204,)), "placement", (8, False),
                   count=len(made))  # fmt: skip


def scheduling(bench: Bench) -> Iterator[Row]:
    """This clone's scheduler by itself, among 1,000 and 10,000 hosts; it needs no cloud, and nobody else's can be asked."""
    if bench.own is None:
        return
    from scheduling import measured

    for count in (1000, 10_000):
        for found in measured(count, 500):
            p50, p95, p99 = (found.seconds[int(len(found.seconds) * share)] * 1000 for share in (0.5, 0.95, 0.99))
            yield Row(found.name, p50, "ms", p50_ms=p50, p95_ms=p95, p99_ms=p99, cpu_ms=found.cpu_ms, requests=len(found.seconds))


SCENARIOS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "start": start, "memory": memory, "token": token, "token-appcred": token_appcred, "validate": validate, "lists": lists,
    "servers-detail": servers_detail, "show": show, "create": create, "burst": burst, "network": network, "image": image,
    "placement": placement, "scheduling": scheduling,
}  # fmt: skip


# What scenarios need there: a flavor, an image, a network, servers.


def body(bench: Bench, name: str, networks: Any) -> dict[str, Any]:
    if "flavor" not in bench.made:
        flavors = bench.to.ask("GET", bench.to.url("compute", "/flavors"))["flavors"]
        wanted = {"name": "bench.nano", "ram": 64, "vcpus": 1, "disk": 1}
        found = next((flavor for flavor in flavors if flavor["name"] == wanted["name"]), None)
        found = found or bench.to.ask("POST", bench.to.url("compute", "/flavors"), {"flavor": wanted})["flavor"]
        images = bench.to.ask("GET", bench.to.url("image", "/images?limit=1&status=active"))["images"]
        if not images:
            raise Trouble(f"{bench.to.name} has no image to make servers of: register one.")
        quota = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
        bench.to.ask("PUT", bench.to.url("compute", f"/os-quota-sets/{bench.to.project_id}"), quota)
        bench.made |= {"flavor": found["id"], "image": images[0]["id"]}
    return {"server": {"name": name, "flavorRef": bench.made["flavor"], "imageRef": bench.made["image"], "networks": networks}}


def net(bench: Bench) -> str:
    if "net" not in bench.made:
        found = bench.to.ask("GET", bench.to.url("network", "/networks?name=bench-servers"))["networks"]
        if not found:
            found = [bench.to.ask("POST", bench.to.url("network", "/networks"), {"network": {"name": "bench-servers"}})["network"]]
            subnet = {"network_id": found[0]["id"], "ip_version": 4, "cidr": "10.8.0.0/20"}
            bench.to.ask("POST", bench.to.url("network", "/subnets"), {"subnet": subnet})
        bench.made["net"] = found[0]["id"]
    return str(bench.made["net"])


def listed(bench: Bench, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench.to.ask("GET", bench.to.url("compute", f"/servers?limit=1000{query}"))["servers"]
    return found


def servers(bench: Bench, number: int) -> None:
    """At least so many ACTIVE servers."""
    missing = number - len(listed(bench))
    for _ in range(max(0, missing)):
        bench.to.ask("POST", bench.to.url("compute", "/servers"), body(bench, "bench", [{"uuid": net(bench)}]))
    until_active(bench, {server["id"] for server in listed(bench)}, every=0.2)


def until_active(bench: Bench, wanted: set[str], every: float) -> None:
    """Raises Trouble when one fails or ten minutes pass."""
    deadline = time.monotonic() + 600
    while wanted:
        if len(wanted) == 1:
            state = bench.to.ask("GET", bench.to.url("compute", f"/servers/{next(iter(wanted))}"))["server"]["status"]
            states = {state: wanted}
        else:
            states = {status: {server["id"] for server in listed(bench, f"&status={status}")} & wanted for status in ("ACTIVE", "ERROR")}
        if states.get("ERROR"):
            failed = next(iter(states["ERROR"]))
            fault = bench.to.ask("GET", bench.to.url("compute", f"/servers/{failed}"))["server"].get("fault", {})
            raise Trouble(f"{bench.to.name}: server {failed} ended in ERROR: {fault.get('message', 'nothing says why.')}")
        wanted = wanted - states.get("ACTIVE", set())
        if time.monotonic() > deadline:
            raise Trouble(f"{bench.to.name}: {len(wanted)} servers are not ACTIVE after ten minutes.")
        if wanted:
            time.sleep(every)


def remove(bench: Bench, ids: list[str]) -> None:
    for server in ids:
        bench.to.ask("DELETE", bench.to.url("compute", f"/servers/{server}"))
    deadline = time.monotonic() + 120
    while {server["id"] for server in listed(bench)} & set(ids) and time.monotonic() < deadline:
        time.sleep(0.05)
