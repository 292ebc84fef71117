"""Many writers at two api processes on one PostgreSQL, and none of them waits for another in a circle (law 14: a deadlock is cured by doing
the loser's work anew, but costs a second).
"""

from collections.abc import Iterator

import pytest

from races.scenarios import *  # noqa: F403
from services.processes import Processes

pytestmark = pytest.mark.services


@pytest.fixture(autouse=True)
def no_circle(cloud: Processes) -> Iterator[None]:
    before = len(cloud.cluster.deadlocks())
    yield
    assert "\n".join(cloud.cluster.deadlocks()[before:]) == ""
