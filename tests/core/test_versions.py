"""Bodies per microversion, and the header that asks for one."""

from typing import Annotated

import msgspec
import pytest

from nacre.core.errors import BadRequest, NotAcceptable
from nacre.core.versions import UNSET, Body, Microversions, UnsetType, since, versioned


@versioned
class Nic:
    uuid: str
    tag: Annotated[str | UnsetType, since(2, 32)] = UNSET


class Thing:
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]
    count: Annotated[int, msgspec.Meta(ge=1)] | UnsetType = UNSET
    nics: list[Nic] | UnsetType = UNSET
    old: Annotated[str | UnsetType, since(2, 1, until=(2, 56))] = UNSET
    new: Annotated[str | UnsetType | None, since(2, 19)] = UNSET


THING = Body("thing", Thing)


def test_fields_come_and_go_with_the_version() -> None:
    assert THING.decode(b'{"thing": {"name": "a", "new": null}}', (2, 19)).new is None
    assert THING.decode(b'{"thing": {"name": "a", "old": "x", "count": "3"}}', (2, 56)).count == 3
    assert THING.decode(b'{"thing": {"name": "a", "nics": [{"uuid": "u", "tag": "t"}]}}', (2, 32)).nics[0].tag == "t"


@pytest.mark.parametrize(
    ("raw", "version", "words"),
    [(b'{"thing": {"name": "a", "new": "x"}}', (2, 18), ("thing", "new")), (b'{"thing": {"name": "a", "old": "x"}}', (2, 57), ("thing", "old")),
     (b'{"thing": {"name": ""}}', (2, 1), ("thing.name",)), (b'{"thing": {}}', (2, 1), ("thing", "name", "required")),
     (b'{"thing": {"name": "a", "count": 0}}', (2, 1), ("thing.count",)), (b"{", (2, 1), ("Malformed",)), (b"", (2, 1), ("no body",)),
     (b'{"thing": {"name": "a", "nics": [{"uuid": "u", "tag": "t"}]}}', (2, 31), ("nics", "tag")), (b"[]", (2, 1), ("body",))],
)  # fmt: skip
def test_a_refusal_names_the_field(raw: bytes, version: tuple[int, int], words: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest) as refused:
        THING.decode(raw, version)
    assert all(word in refused.value.message for word in words), refused.value.message


OFFERED = Microversions("compute", (2, 1), (2, 53), legacy="X-OpenStack-Nova-API-Version")


@pytest.mark.parametrize(
    ("headers", "version"),
    [({}, (2, 1)), ({"openstack-api-version": "compute 2.9"}, (2, 9)), ({"openstack-api-version": "volume 3.1"}, (2, 1)),
     ({"x-openstack-nova-api-version": "2.10"}, (2, 10)), ({"openstack-api-version": "compute latest"}, (2, 53)),
     ({"openstack-api-version": "volume 3.1, compute 2.40"}, (2, 40))],
)  # fmt: skip
def test_which_version_is_asked_for(headers: dict[str, str], version: tuple[int, int]) -> None:
    assert OFFERED.asked(headers) == version


def test_versions_that_are_not_offered_or_not_versions() -> None:
    with pytest.raises(NotAcceptable, match=r"2\.54 is not supported.*2\.1.*2\.53"):
        OFFERED.asked({"openstack-api-version": "compute 2.54"})
    for text in ("2", "2.x", "2.01", "v2.1"):
        with pytest.raises(BadRequest):
            OFFERED.asked({"openstack-api-version": f"compute {text}"})


def test_a_struct_is_a_shape_too() -> None:
    class Named(msgspec.Struct, forbid_unknown_fields=True):
        name: str

    body = Body("thing", Named)
    assert body.decode(b'{"thing": {"name": "x"}}', (2, 1)).name == "x"
    with pytest.raises(BadRequest, match="colour"):
        body.decode(b'{"thing": {"name": "x", "colour": 1}}', (2, 1))
