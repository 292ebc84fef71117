"""Hours of servers in a period, as a table; and by the API."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

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
