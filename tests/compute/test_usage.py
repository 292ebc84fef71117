"""Hours of servers in a period, as a table; and by the API."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fake_node import FakeNode, until
from nacre.compute.service.usage import used

START, STOP = datetime(2026, 1, 1), datetime(2026, 1, 2)


@pytest.mark.parametrize(("launched", "ended", "hours"), [(-5, None, 24), (1, None, 23), (1, 3, 2), (-5, 3, 3), (23, 40, 1), (-9, -1, 0)])
def test_only_what_lies_in_the_period_counts(launched: int, ended: int | None, hours: float) -> None:
    at = [None if hour is None else START + timedelta(hours=hour) for hour in (launched, ended)]
    assert used(SimpleNamespace(launched_at=at[0], terminated_at=at[1]), START, STOP).hours == hours  # type: ignore[arg-type]


def test_usage_by_the_api(admin: Any) -> None:
    assert isinstance(admin.compute.get("/os-simple-tenant-usage?detailed=1").json()["tenant_usages"], list)
    assert admin.compute.get("/os-simple-tenant-usage/nothing").json() == {"tenant_usage": {}}
    assert admin.compute.get("/os-simple-tenant-usage?start=2026-01-02&end=2026-01-01").status_code == 400


def test_usage_by_pages(running: Any, admin: Any, image: Any, flavor: Any, node: FakeNode) -> None:
    made = [admin.compute.create_server(name=f"s{n}", image_id=image.id, flavor_id=flavor.id, networks="none").id for n in range(3)]
    until(lambda: all(admin.compute.get_server(one).status == "ACTIVE" for one in made))
    http = running.http("admin", **{"openstack-api-version": "compute 2.40"})
    for path, word in (("", "tenant_usages"), (f"/{admin.current_project_id}", "tenant_usage")):
        address, seen = f"/compute/v2.1/os-simple-tenant-usage{path}?detailed=1&limit=2", []
        for _ in range(3):
            page = http.get(address).json()
            whole = page[word] if word == "tenant_usage" else (page[word] or [{}])[0]
            seen.append([usage["instance_id"] for usage in whole.get("server_usages", ())])
            if f"{word}_links" not in page:
                break
            address = page[f"{word}_links"][0]["href"]
        assert seen == [made[:2], made[2:]]
    old = running.http("admin", **{"openstack-api-version": "compute 2.39"}).get("/compute/v2.1/os-simple-tenant-usage?detailed=1&limit=2").json()
    assert len(old["tenant_usages"][0]["server_usages"]) == 3 and "tenant_usages_links" not in old
    for one in made:
        admin.compute.delete_server(one)
