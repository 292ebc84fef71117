"""A compute host in the test's process: the real node API on a unix socket, the real agent behind it, drivers that are fakes."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import IO, Any

import anyio
import msgspec
import uvicorn

from nacre import program
from nacre.core import node_api, nodes
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.node.agent import Agent
from nacre.node.calls import Call
from nacre.node.deadline import Deadline, NodeError
from nacre.node.feed import SocketSource
from nacre.node.fences import Fences
from nacre.node.hypervisor.fake import FakeHypervisor
from nacre.node.verbs import verbs
from nacre.node.wires.fake import FakeWires

WHO = System("req-node")
ADDRESS = "192.0.2.1"


class FakeNode:
    """`hypervisor` and `wires` are the fakes, for looking behind and for acting behind the cloud's back."""

    def __init__(self, cloud: Cloud, host: str, folder: Path, *, size: tuple[int, int, int] = (64, 262144, 4096)) -> None:
        self.cloud, self.host, self.folder = cloud, host, folder
        self.hypervisor = FakeHypervisor(host, folder=folder / "guests", size=size)
        self.wires = FakeWires()
        socket = cloud.home.node_socket(host)
        self._heartbeats = node_api.Heartbeats(cloud)
        application = node_api.NodeApp(cloud, host, program.behind(), self._heartbeats)
        self._server = uvicorn.Server(uvicorn.Config(application, uds=str(socket), log_config=None, lifespan="off", access_log=False))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name=f"node-api-{host}", daemon=True)
        self.agent = Agent(host, folder / "node", SocketSource(socket), self.hypervisor, self.wires, address=ADDRESS)

    async def _serve(self) -> None:
        heartbeats = asyncio.create_task(self._heartbeats.forever())
        await self._server.serve()
        heartbeats.cancel()

    def start(self) -> "FakeNode":
        self._thread.start()
        until(lambda: self._server.started)
        self.agent.start()
        until(self._offers)
        return self

    def _offers(self) -> bool:
        from nacre import placement

        with self.cloud.db.read() as conn:
            row = nodes.host_named(conn, self.host)
            return row is not None and nodes.alive(row) and any(c.provider_id == row.id and not c.missing for c in placement.candidates(conn,
                {"VCPU": 1}))

    def stop(self) -> None:
        self.agent.stop()
        self._server.should_exit = True
        self._thread.join(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def until(true: Callable[[], object], timeout: float = 15, step: float = 0.02) -> None:
    """Waits until `true()`."""
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(step)


def _nobody(rendezvous: str) -> Any:
    raise NodeError("nobody waits for a console")


class SteppedNode:
    """A host without threads, for the durability harness: does what it was asked when it is told to (`act`)."""

    def __init__(self, cloud: Cloud, host: str, folder: Path) -> None:
        self.cloud, self.host = cloud, host
        self.hypervisor = FakeHypervisor(host)
        self.fences = Fences(folder / "fences")
        self.verbs = verbs(self.hypervisor, self.fences, _nobody, self._upload)
        self.done: list[str] = []
        self.report()

    def _upload(self, image_id: str, file: IO[bytes]) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield file.read()

        async def store() -> str | None:
            return await program.behind().store(self.cloud, self.host, image_id, chunks())

        why = anyio.run(store)
        if why is not None:
            raise NodeError(why)

    def report(self) -> None:
        """What a node reports of itself, as the node API would take it."""
        seen = {"servers": {key: msgspec.to_builtins(value) for key, value in self.hypervisor.servers().items()},
                "resources": msgspec.to_builtins(self.hypervisor.resources()), "agents": {}, "address": ADDRESS}  # fmt: skip
        self._app()._report(node_api.Report(seen=seen))
        self._live()

    def _live(self) -> None:
        self._beat = time.monotonic()
        with self.cloud.db.write(WHO) as tx:
            nodes.heard_of(tx, [self.host])

    def _app(self) -> node_api.NodeApp:
        return node_api.NodeApp(self.cloud, self.host, program.behind(), node_api.Heartbeats(self.cloud))

    def act(self, repeat: bool = False, refuse: Collection[str] = (), wires: bool = True) -> bool:
        """Does the open calls, reports them, and says every document is applied (`wires`). True if there was anything."""
        if time.monotonic() - self._beat > 5:
            self._live()
        with self.cloud.db.read() as conn:
            calls = nodes.open_calls(conn, self.host)
            held = nodes.held_by(conn, self.host)
            wanted = [(kind, key) for kind, versions in held.items() for key in versions]
            applied = not (wanted and wires) or nodes.missing(conn, self.host, wanted) is None
        results = [self._do(call, repeat, refuse) for call in calls]
        if results or not applied:
            self._app()._report(node_api.Report(results=results, applied=held if wires else {}))
        return bool(results) or not applied

    def _do(self, row: Any, repeat: bool, refuse: Collection[str]) -> dict[str, Any]:
        self.done.append(row.verb)
        if row.verb in refuse:
            return {"id": row.id, "ok": False, "error": f"{row.verb} was refused", "detail": "stderr"}
        call = Call(row.id, row.verb, row.args, (1, row.number), 60, row.request_id)
        try:
            for _ in range(2 if repeat else 1):
                value = self.verbs[row.verb].run(call, Deadline(60))
        except NodeError as error:
            return {"id": row.id, "ok": False, "error": str(error), "detail": ""}
        return {"id": row.id, "ok": True, "value": value}
