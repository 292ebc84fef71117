"""10,000 of a kind: how fast they are made, and what a page of 100 and one of them cost then, where 100 cost little.

A page from the middle is asked for, too: paging that skips rows is seen there. What was made is deleted again; in a throwaway cloud of
our own it stays, since that ends. Ports are all of one network; servers, whose hosts are told of every port of their networks, have 100.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import load
from scenarios import Bench, Row, body

MANY, APART = 10_000, 100
_WIDE = (8, False)


@dataclass(frozen=True)
class Kind:
    """`plural` is both the path and the name in a list; `new(n)` the body of the n-th."""

    service: str
    plural: str
    new: Callable[[int], dict[str, Any]]
    status: int = 201

    def url(self, bench: Bench, query: str = "") -> str:
        rest = f"/{self.plural}{query}"
        return bench.to.auth_url + rest if self.service == "identity" else bench.to.url(self.service, rest)


def many(bench: Bench) -> Iterator[Row]:
    bench.to.ask("PUT", bench.to.url("network", f"/quotas/{bench.to.project_id}"), {"quota": {"network": -1, "subnet": -1, "port": -1}})
    network = _network(bench, "10.64.0.0/16")
    apart = [_network(bench, f"10.65.{n}.0/24") for n in range(APART)] if bench.own is not None else []
    kinds = [
        Kind("identity", "projects", lambda n: {"project": {"name": f"bench-{n}"}}),
        Kind("image", "images", lambda n: {"name": f"bench-{n}", "disk_format": "raw", "container_format": "bare"}),
        Kind("network", "networks", lambda n: {"network": {"name": f"bench-{n}"}}),
        Kind("network", "ports", lambda n: {"port": {"name": f"bench-{n}", "network_id": network}}),
        Kind("compute", "servers", lambda n: body(bench, f"bench-{n}", [{"uuid": apart[n % APART]}]), 202),
    ]
    try:
        for kind in kinds if bench.own is not None else kinds[:-1]:
            yield from _measured(bench, kind)
    finally:
        if bench.own is None:
            bench.to.ask("DELETE", bench.to.url("network", f"/networks/{network}"))


def _network(bench: Bench, cidr: str) -> str:
    made: str = bench.to.ask("POST", bench.to.url("network", "/networks"), {"network": {"name": "bench-many"}})["network"]["id"]
    bench.to.ask("POST", bench.to.url("network", "/subnets"), {"subnet": {"network_id": made, "ip_version": 4, "cidr": cidr}})
    return made


def _measured(bench: Bench, kind: Kind) -> Iterator[Row]:
    headers = {"x-auth-token": bench.to.token, "content-type": "application/json"}
    where, path = "" if kind.service == "identity" else kind.service, urlsplit(kind.url(bench)).path
    kind.new(0)  # what its body needs is made before the clock runs

    def made(n: int) -> load.Request:
        return load.Request("POST", path, headers, json.dumps(kind.new(n)).encode(), (kind.status,))

    try:
        yield bench.load(f"make {MANY} {kind.plural}", made, where, _WIDE, count=MANY)
        ids = [one["id"] for one in _all(bench, kind)]
        for name, query in (("show one of", f"/{ids[len(ids) // 2]}"), ("first 100 of", "?limit=100"),
                            ("100 from the middle of", f"?limit=100&marker={ids[len(ids) // 2]}")):  # fmt: skip
            yield from bench.reads(f"{name} {MANY} {kind.plural}", kind.service, f"/{kind.plural}{query}", ((1, False), (10, False)))
    finally:
        if bench.own is None:
            gone = [one["id"] for one in _all(bench, kind) if one["name"].startswith("bench-")]
            bench.load("delete", lambda n: load.Request("DELETE", f"{path}/{gone[n]}", headers, b"", (204,)), where, _WIDE, count=len(gone))


def _all(bench: Bench, kind: Kind) -> list[dict[str, Any]]:
    """Page by page; who knows no pages gives all at once, and the same again."""
    found: list[dict[str, Any]] = []
    while True:
        after = f"&marker={found[-1]['id']}" if found else ""
        page = bench.to.ask("GET", kind.url(bench, f"?limit=1000{after}"))[kind.plural]
        if not page or (found and page[0]["id"] == found[0]["id"]):
            return found
        found += page
