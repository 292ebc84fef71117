"""What the tests of compute share: two users by HTTP, an image, a flavor, a server that is ACTIVE."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conftest import Running
from fake_node import FakeNode


@pytest.fixture(scope="module")
def admin(running: Any, node: FakeNode) -> Iterator[Any]:
    connection = running.connect("admin")
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def http(running: Running, node: FakeNode) -> Iterator[httpx.Client]:
    with running.http() as client:
        yield client


@pytest.fixture(scope="module")
def demo(running: Running, node: FakeNode) -> Iterator[httpx.Client]:
    with running.http("demo") as client:
        yield client


@pytest.fixture(scope="module")
def image(admin: Any) -> Any:
    return admin.image.create_image("cirros", data=io.BytesIO(b"\0" * 4096).read(), disk_format="raw", container_format="bare", visibility="public")


@pytest.fixture(scope="module")
def flavor(admin: Any) -> Any:
    return admin.compute.create_flavor(name="m1.nano", ram=64, vcpus=1, disk=1, id="42")
