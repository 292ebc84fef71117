"""`process.py api|worker|node|up|job --home HOME`: the processes of a cloud on pretended hosts as its supervisor starts them, without the
privileges that they would drop, each of which passes named points (points.py) at which it can be killed.

api     before the commit of a request that changes something, and between that and its answer; for users and for the node; when data comes
worker  before and after each step's transaction
both    before data of images comes into its place, is parted from its image, and is removed; the worker before the commit after that, too
node    when a call came; before and after what each verb does; while documents are made true, one by one; before and after its report
"""

import signal
import socket
import sys
import threading
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import IO, Any

sys.path[:0] = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]

import sqlalchemy as sa  # noqa: E402

from crash.points import Points  # noqa: E402
from nacre.cli import alive  # noqa: E402
from nacre.cli.processes import ALREADY_RUNS, Gate  # noqa: E402
from nacre.cli.supervisor import Supervisor  # noqa: E402
from nacre.core import log  # noqa: E402
from nacre.core.config import Config, Home, load  # noqa: E402
from nacre.node.agent import Agent  # noqa: E402
from nacre.node.feed import Feed, SocketSource  # noqa: E402
from nacre.node.hypervisor.fake import FakeHypervisor  # noqa: E402
from nacre.node.wires.driver import Applied, Document, Wanted  # noqa: E402
from nacre.node.wires.fake import FakeWires  # noqa: E402

HOST = "nacre-1"
_doing: ContextVar[str] = ContextVar("doing", default="")


class OpenHome(Home):
    """A home that everybody can walk to: reach is the path itself."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reach = self.path


def command(home: Home, *words: str) -> list[str]:
    return [sys.executable, __file__, *words, "--home", str(home.path)]


class Watched:
    """An ASGI application whose changing requests pass points."""

    def __init__(self, app: Any, points: Points) -> None:
        self.app, self.points = app, points

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        what = _named(scope) if scope["type"] == "http" else ""
        _doing.set(what)
        came = False

        async def asked() -> Mapping[str, Any]:
            nonlocal came
            message: Mapping[str, Any] = await receive()
            if what and message.get("more_body") and not came:
                came = True
                self.points.passes(f"when {what} comes")
            return message

        async def told(message: Mapping[str, Any]) -> None:
            if what and message["type"] == "http.response.start":
                self.points.passes(f"before the answer to {what}")
            await send(message)

        await self.app(scope, asked, told)


def _named(scope: Mapping[str, Any]) -> str:
    """A user's request by its method and the last word of its path that is no id, a node's by what it says of itself."""
    headers = dict(scope["headers"])
    words = [word for word in scope["path"].split("/") if word and "-" not in word and len(word) < 32]
    if words[0] == "node":
        return str(headers.get(b"x-point", b"").decode())
    return f"{scope['method']} {words[-1]}" if scope["method"] != "GET" and words[-1] != "tokens" else ""


class Files:
    """What happens to the data of images in the stores, heard before it happens."""

    _EVENTS: Mapping[str, str] = {"os.rename": "the move of data", "os.remove": "the removal of data"}

    def __init__(self, home: Home, points: Points) -> None:
        self.folders, self.points, self.last = tuple(str(home.reach / store) for store in ("images", "second")), points, threading.local()
        sys.addaudithook(self.heard)

    def heard(self, event: str, given: tuple[Any, ...]) -> None:
        what = self._EVENTS.get(event)
        if what and str(given[0]).startswith(self.folders):
            self.points.passes(f"before {what}")
            self.last.moved = what

    def committing(self, _: Any) -> None:
        if what := getattr(self.last, "moved", ""):
            self.last.moved = ""
            self.points.passes(f"before the commit after {what}")


def api(home: Home, config: Config, points: Points) -> None:
    from nacre import program
    from nacre.core import node_api, serve

    Gate(home.reach, "prepare").wait()
    cloud = program.make_cloud(home, config, "api")
    Files(home, points)

    def committing(conn: Any) -> None:
        if what := _doing.get():
            points.passes(f"before the commit of {what}")

    sa.event.listen(cloud.db.engine, "commit", committing)
    heartbeats = node_api.Heartbeats(cloud)
    node = Watched(node_api.NodeApp(cloud, HOST, program.behind(), heartbeats), points)
    listener = socket.create_server((config.nacre.host, config.nacre.port), backlog=256)
    serve.serve(Watched(program.app(cloud), points), serve.Sockets([listener]), certificate=None, hosts=serve.Hosts({home.node_socket(HOST): node}),
                background=[heartbeats.forever])  # fmt: skip


def worker(home: Home, config: Config, points: Points) -> None:
    from nacre import program

    Gate(home.reach, "prepare").wait()
    sa.event.listen(sa.Engine, "commit", Files(home, points).committing)
    program.LOOPS = tuple(replace(loop, every=min(loop.every, 1.5)) for loop in program.LOOPS)  # nobody should wait for the clock after each kill
    program.run_worker(home, config, fault=lambda when, step: points.passes(f"{when} {step}"))


class Guests(FakeHypervisor):
    """Each verb that changes something passes points before and after."""

    VERBS = ("ensure_image", "ensure_server", "ensure_power", "absent_server", "snapshot", "ensure_backup", "restore_backup", "absent_backup")

    def __init__(self, points: Points, folder: Path) -> None:
        super().__init__(HOST, folder=folder)
        for name in self.VERBS:
            setattr(self, name, MethodType(_around(points, name), self))


def _around(points: Points, name: str) -> Any:
    def verb(guests: Guests, *given: Any, **named: Any) -> Any:
        points.passes(f"before {name}")
        done = getattr(FakeHypervisor, name)(guests, *given, **named)
        points.passes(f"after {name}")
        return done

    return verb


class Wires(FakeWires):
    def __init__(self, points: Points, folder: Path) -> None:
        super().__init__(folder=folder)
        self.points, self.touched = points, False

    def apply(self, wanted: Wanted) -> Applied:
        self.touched = False
        applied = super().apply(wanted)
        if self.touched:
            self.points.passes("after wiring")
        return applied

    def _make(self, document: Document) -> None:
        self._begin()
        super()._make(document)
        self.points.passes(f"wired {document.kind}")

    def _unmake(self, document: Document) -> None:
        self._begin()
        super()._unmake(document)
        self.points.passes(f"unwired {document.kind}")

    def _begin(self) -> None:
        if not self.touched:
            self.touched = True
            self.points.passes("before wiring")


class Link(SocketSource):
    """What a report is about goes with it, so that the api knows which one it is killed at."""

    def __init__(self, path: Path, points: Points) -> None:
        super().__init__(path)
        self.points, self.verbs, self._about = points, dict[str, str](), threading.local()

    @property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        return {"x-point": getattr(self._about, "words", "")}

    def feed(self, have: Any, *, epoch: int, calls: list[str], wait: float) -> Feed:
        answer = super().feed(have, epoch=epoch, calls=calls, wait=wait)
        for call in answer.calls:
            self.verbs[call.id] = call.verb
            self.points.passes(f"given {call.verb}")
        if answer.documents or answer.gone:
            self.points.passes("given documents")
        return answer

    def report(self, report: dict[str, Any]) -> bool:
        verbs = sorted({self.verbs.get(result.id, "a result") for result in report["results"]})
        words = f"the report of {' '.join(verbs)}" if verbs else "the report of documents" if report["applied"] else ""
        self._about.words = words
        if words:
            self.points.passes(f"before {words}")
        counted = super().report(report)
        if words:
            self.points.passes(f"after {words}")
        return counted

    def put_image(self, image_id: str, file: IO[bytes]) -> None:
        self._about.words = "the image"
        self.points.passes("before the image")
        super().put_image(image_id, file)
        self._about.words = ""
        self.points.passes("after the image")


def node(home: Home, config: Config, points: Points) -> None:
    folder = home.host(1) / "node"
    folder.mkdir(parents=True, exist_ok=True)
    hypervisor, wires = Guests(points, folder / "guests"), Wires(points, folder / "wires")
    Agent(HOST, folder, Link(home.node_socket(HOST), points), hypervisor, wires, address="192.0.2.1").start()
    threading.Event().wait()


def main(verb: str, home: Home) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = load(home.path / "nacre.toml")
    if verb == "job":
        from nacre import program

        return program.prepare(home, config, {"admin": "secret", "demo": "secret"}, program.postgresql.History())
    if not alive.hold(home.path / "run", verb):
        sys.exit(ALREADY_RUNS)
    log.setup(home.path / "logs", verb)
    if verb == "up":
        return Supervisor(home, config, command).run()
    {"api": api, "worker": worker, "node": node}[verb](home, config, Points(home.path / "run", verb))


if __name__ == "__main__":
    main(sys.argv[1], OpenHome(Path(sys.argv[-1])))
