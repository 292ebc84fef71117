"""Imports, copies, locations and deletes under the harness: whatever is repeated, refused or killed, nothing that was acknowledged is lost and
no bytes are left that no image has."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from conftest import make_cloud
from core import durability as harness
from fake_node import SteppedNode
from image.conftest import Web, options
from image.disks import qcow2
from nacre import identity, program
from nacre.core import ids
from nacre.core.caller import Caller, System
from nacre.core.cloud import Cloud
from nacre.core.config import ImageConversion, ImageImport
from nacre.core.errors import Error
from nacre.image import fronts, loops, stores, tables
from nacre.image.domain import Image
from nacre.image.service import data, images, imports, locations

WHO = System("req-test")
DATA = qcow2(3 << 20)


@dataclass
class World:
    cloud: Cloud
    stage: harness.Stage
    web: Web

    def caller(self, rule: str) -> Caller:
        project = identity.project_named(self.cloud, "admin")
        return Caller(self.cloud, ids.request_id(), user_id="u", project_id=project, roles=frozenset({"admin", "member", "reader"}),
                      service="image", rule=rule)  # fmt: skip

    def new(self) -> Image:
        image_id = ids.uuid()
        columns = {"owner": identity.project_named(self.cloud, "admin"), "visibility": "private", "disk_format": "qcow2", "container_format": "bare"}
        with self.cloud.db.write(WHO) as tx:
            images.insert(tx, image_id, {"name": "x", **columns})
            found = tables.by_id(tx, image_id)
        assert found is not None
        return found

    def arrived(self, store: str) -> str:
        arrival = data.begin(self.cloud, WHO, self.new(), store=stores.named(self.cloud, store))
        arrival.intake.write(DATA)
        data.end(arrival)
        return arrival.image.id

    def begin(self, image_id: str, name: str, **more: Any) -> str:
        imports.begin(self.caller("modify_image"), image_id, {"method": {"name": name, "uri": self.web.url("/disk")}, **more}, None)
        return image_id

    def image(self, image_id: str) -> Image | None:
        with self.cloud.db.read() as conn:
            return tables.by_id(conn, image_id)

    def files(self, image_id: str) -> set[str]:
        """The stores in which there is anything of the image, after everything that loops do."""
        loops.reclaim_uploads(self.cloud, WHO)
        loops.tidy_files(self.cloud, WHO)
        return {store.id for store in stores.files(self.cloud) for entry in store.folder.iterdir() if entry.name.startswith(image_id)}

    def read(self, image_id: str, store: str) -> bytes:
        image = self.image(image_id)
        assert image is not None
        return data.opened(self.cloud, image, store_id=store).read(1 << 20)

    def imported(self, image_id: str, well: bool) -> None:
        image = self.image(image_id)
        assert image is not None
        assert (image.status, image.stores) == (("active", ("file", "second")) if well else ("queued", ()))
        assert self.files(image_id) == set(image.stores)
        assert all(self.read(image_id, store) == DATA for store in image.stores)
        assert image.properties.get(imports.IMPORTING) == ""

    def copied(self, image_id: str, well: bool) -> None:
        image = self.image(image_id)
        assert image is not None
        assert (image.status, image.stores) == ("active", ("file", "second") if well else ("file",))
        assert self.files(image_id) == set(image.stores)
        assert all(self.read(image_id, store) == DATA for store in image.stores)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, fresh_database: Callable[[], str], web: Web) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("durable")
    cloud = make_cloud(folder / "cloud", options(web), fresh_database())
    with cloud.db.write(WHO) as tx:
        identity.bootstrap(tx, cloud, {"admin": "x", "demo": "x"}, program.SERVICES)
    web.pages["/disk"] = DATA
    node = SteppedNode(cloud, "nacre-1", folder)
    yield World(cloud, harness.Stage(cloud, lambda stage: node.act(stage.repeat, stage.refuse)), web)
    cloud.db.close()


METHODS: dict[str, Callable[[World], str]] = {
    "staged": lambda world: world.begin(world.arrived(stores.STAGING), "glance-direct", all_stores=True),
    "fetched": lambda world: world.begin(world.new().id, "web-download", all_stores=True),
}


@pytest.mark.parametrize("way", METHODS)
def test_imports_survive_kills_and_take_everything_back(world: World, way: str) -> None:
    assert harness.killed_at_every_boundary(world.stage, lambda: METHODS[way](world), world.imported) >= 10
    assert harness.every_step_failed(world.stage, lambda: METHODS[way](world), world.imported, keep=("finish",)) >= 4


def test_an_active_image_stays_whatever_comes_after(world: World) -> None:
    made = METHODS["staged"](world)
    harness.settle(world.stage, harness.Plan(fail=("before", "finish")))
    image = world.image(made)
    assert image is not None
    assert (image.status, image.stores, world.files(made)) == ("active", ("file", "second"), {"file", "second"})


def test_copies_survive_kills_and_take_themselves_back(world: World) -> None:
    def begin() -> str:
        return world.begin(world.arrived("file"), "copy-image", stores=["second"])

    harness.killed_at_every_boundary(world.stage, begin, world.copied)
    harness.every_step_failed(world.stage, begin, world.copied, keep=("finish",))


def test_a_store_that_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second = stores.all_of(world.cloud)["second"]

    def full(image_id: str) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(second, "begin", full)
    for must, status, held in ((True, "queued", ()), (False, "active", ("file",))):
        made = world.begin(world.arrived(stores.STAGING), "glance-direct", all_stores=True, all_stores_must_succeed=must)
        harness.settle(world.stage)
        image = world.image(made)
        assert image is not None
        assert (image.status, image.stores, world.files(made)) == (status, held, set(held))
        assert image.properties[imports.FAILED] == ("file,second" if must else "second")


def test_conversion_on_a_host(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = replace_options(world.cloud, image_import_opts=ImageImport(image_import_plugins=("image_conversion",)),
                             image_conversion=ImageConversion(output_format="raw"))  # fmt: skip
    monkeypatch.setattr(world.cloud, "config", chosen)

    def converted(image_id: str, well: bool) -> None:
        image = world.image(image_id)
        assert image is not None
        if not well:
            assert (image.status, image.disk_format, world.files(image_id)) == ("queued", "qcow2", set())
            return
        assert (image.status, image.disk_format, image.stores) == ("active", "raw", ("file", "second"))
        assert world.read(image_id, "file") == b"qcow2 as raw"
        assert world.files(image_id) == {"file", "second"}

    harness.every_step_repeated(world.stage, lambda: METHODS["staged"](world), converted)
    harness.killed_at_every_boundary(world.stage, lambda: METHODS["staged"](world), converted)
    harness.every_call_refused(world.stage, lambda: METHODS["staged"](world), converted, ("convert_image",))


def replace_options(cloud: Cloud, **changed: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(cloud.config, **changed)


def test_a_location_survives_kills(world: World) -> None:
    def begin() -> str:
        made = world.new().id
        locations.add(world.caller("add_image_location"), made, world.web.url("/disk"), {})
        return made

    def check(image_id: str, well: bool) -> None:
        image = world.image(image_id)
        assert image is not None
        assert (image.status, image.stores) == (("active", ("web",)) if well else ("queued", ()))

    harness.killed_at_every_boundary(world.stage, begin, check)
    harness.every_step_failed(world.stage, begin, check)


def test_delete_at_every_boundary_of_an_import_leaves_nothing(world: World) -> None:
    for boundary in dict.fromkeys(harness.clean(world.stage, lambda: METHODS["staged"](world), world.imported)):
        made = METHODS["staged"](world)

        class Deleting(harness.Plan):
            def __call__(self, when: str, step: str, at: harness.Boundary = boundary, made: str = made) -> None:
                if (when, step) == at and world.image(made) is not None:
                    images.delete_image(world.caller("delete_image"), made)

        harness.settle(world.stage, Deleting())
        assert (world.image(made), world.files(made)) == (None, set())


def test_a_kill_between_the_rename_and_the_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data is in place and nobody knows: an upload begins anew, a copy goes away."""
    arrival = data.begin(world.cloud, WHO, world.new())
    arrival.intake.write(DATA)
    arrival.intake.finish()
    arrival.intake.part.publish()
    arrival.intake.close()
    loops.reclaim_uploads(world.cloud, WHO)
    image = world.image(arrival.image.id)
    assert image is not None
    assert (image.status, world.files(image.id)) == ("queued", set())


def test_a_delete_that_was_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row says deleted and the process died: the loop follows. A copy that came meanwhile stays."""
    made = world.arrived("file")
    with world.cloud.db.write(WHO) as tx:
        image = tables.by_id(tx, made)
        assert image is not None
        images.end(tx, image)
    assert world.files(made) == set()

    kept = world.arrived("file")
    world.begin(kept, "copy-image", stores=["second"])
    harness.settle(world.stage)
    with world.cloud.db.write(WHO) as tx:
        tables.displace(tx, kept, "second")
    world.begin(kept, "copy-image", stores=["second"])
    harness.settle(world.stage)
    world.copied(kept, True)


def test_uploads_side_by_side_with_a_delete(world: World) -> None:
    """Of a delete and the end of an upload one is first; either way nothing is left."""

    async def both(image: Image) -> None:
        arrival = data.begin(world.cloud, WHO, image)
        arrival.intake.write(DATA)

        async def end() -> None:
            try:
                async with data.arriving(arrival):
                    pass
            except Error:
                pass  # the delete was first

        await asyncio.gather(end(), anyio.to_thread.run_sync(images.delete_image, world.caller("delete_image"), image.id))

    for _ in range(10):
        image = world.new()
        asyncio.run(both(image))
        assert (world.image(image.id), world.files(image.id)) == (None, set())


def test_after_a_restore_nothing_is_missed_that_only_passed_through(world: World) -> None:
    staged, cached = world.arrived(stores.STAGING), world.arrived("file")
    with world.cloud.db.write(WHO) as tx:
        tables.place(tx, cached, stores.CACHE, "file:///gone")
    for entry in stores.hidden(world.cloud, stores.STAGING).folder.glob(f"{staged}*"):
        entry.unlink()
    assert world.read(cached, "file") == DATA
    with world.cloud.db.write(WHO) as tx:
        fronts.restored(tx)
    image = world.image(staged)
    assert image is not None
    assert (image.status, world.files(staged), world.files(cached)) == ("queued", set(), {"file"})
    with world.cloud.db.read() as conn:
        lost, _ = fronts.compared(world.cloud, conn)
    assert not {staged, cached} & set(lost)


def test_images_from_before_there_were_stores(world: World) -> None:
    made = world.arrived("file")
    with world.cloud.db.write(WHO) as tx:
        tx.delete(tables.locations, image_id=made)
    loops.adopt(world.cloud, WHO)
    assert world.read(made, "file") == DATA


def test_a_home_may_be_moved(world: World) -> None:
    made = world.arrived("file")
    with world.cloud.db.write(WHO) as tx:
        tx.update(tables.locations, {"image_id": made}, url=f"file:///somewhere/else/{made}")
    assert world.read(made, "file") == DATA
    with world.cloud.db.read() as conn:
        assert conn.execute(sa.select(tables.locations.c.store).where(tables.locations.c.image_id == made)).scalars().all() == ["file"]
    assert Path(stores.named(world.cloud, "file").properties()["data_dir"]).is_dir()  # type: ignore[union-attr]
