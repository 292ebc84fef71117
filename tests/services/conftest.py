"""One cloud of several processes on one PostgreSQL for the tests that need such; what a test makes it leaves, in projects of its own."""

from collections.abc import Iterator
from typing import Any

import pytest

from fake_node import FakeNode
from services.processes import Processes, fake_host, processes
from services.processes import order as make_order


@pytest.fixture(scope="package")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with processes(tmp_path_factory.mktemp("processes")) as made:
        yield made


@pytest.fixture(scope="package")
def node(cloud: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    with fake_host(cloud, tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.fixture(scope="package")
def order(cloud: Processes, node: FakeNode) -> dict[str, Any]:
    return make_order(cloud)
