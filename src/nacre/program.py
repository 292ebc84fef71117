"""The one file that knows every service: what a cloud is made of and how its processes start.

    prepare       database, keys, first rows (short-lived, before the first start; idempotent)
    serve_api     the `nacre api` process
    run_worker    the `nacre worker` process
    first_image   registers the image `nacre-guest` through the API's own path
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from nacre import compute, identity, image, network
from nacre.compute import changes as compute_changes
from nacre.compute import doctor as compute_doctor
from nacre.compute import loops as compute_loops
from nacre.compute import repair as compute_repair
from nacre.compute import routes as compute_routes
from nacre.compute import tasks as compute_tasks
from nacre.core import backup as backups
from nacre.core import consoles, doctor, ids, joining, node_api, postgresql, tls, verdicts, why
from nacre.core.bells import Bells, ListenNotify
from nacre.core.caller import System
from nacre.core.cloud import Cloud
from nacre.core.config import Config, Home
from nacre.core.consoles import meetings
from nacre.core.db import Database
from nacre.core.errors import Error, NotFound
from nacre.core.http import App, Service
from nacre.core.loops import Loop, Loops
from nacre.core.policy import Policy
from nacre.core.worker import Fault, Worker, no_fault
from nacre.identity import loops as identity_loops
from nacre.identity import routes as identity_routes
from nacre.image import loops as image_loops
from nacre.image import routes as image_routes
from nacre.image import tasks as image_tasks
from nacre.network import loops as network_loops
from nacre.network import routes as network_routes
from nacre.placement import routes as placement_routes

if TYPE_CHECKING:
    from nacre.core import serve

SERVICES: tuple[Service, ...] = (
    identity_routes.SERVICE, image_routes.SERVICE, placement_routes.SERVICE, compute_routes.SERVICE, network_routes.SERVICE,
)  # fmt: skip
PROJECT_DELETED = (network.project_deleted,)
CONSOLES = consoles.service(compute.spend_console)
MOUNTED = (*SERVICES, why.SERVICE, CONSOLES)
TASKS = (compute_tasks, compute_changes, compute_repair, image_tasks)
LOOPS: tuple[Loop, ...] = (
    Loop("expire-calls", 5, node_api.expire_calls, topic=""), *identity_loops.LOOPS, *image_loops.LOOPS, *network_loops.LOOPS, *compute_loops.LOOPS,
)  # fmt: skip


def make_cloud(home: Home, config: Config, process: str) -> Cloud:
    """The cloud as one process sees it. `process` names its ear."""
    database = Database(config.database.connection or home.database_url)
    bells = Bells(home.reach / "run" / "bells", process) if database.sqlite else ListenNotify(database.dial)
    database.rung = bells.ring
    return Cloud(
        home=home, config=config, bells=bells, db=database,
        policies=policies(home),
        authenticate=identity.authenticate,
        public_url=f"https://{config.nacre.host}:{config.nacre.port}",
        services={service.name: service for service in SERVICES},
        project_deleted=PROJECT_DELETED,
    )  # fmt: skip


def policies(home: Home) -> dict[str, Policy]:
    """Each service's rules, with its operator's overrides in `<home>/policy/`."""
    return {service.name: Policy(service.rules, [home.reach / "policy" / f"{service.name}.yaml"]) for service in MOUNTED}


def app(cloud: Cloud) -> App:
    return App(cloud, MOUNTED, root=lambda base: identity.versions(f"{base}/identity"))


def behind() -> node_api.Behind:
    """What the node API finds in the services."""
    return node_api.Behind(
        render={**network.DOCUMENTS, **compute.DOCUMENTS},
        reported=(compute.reported, network.reported),
        image=image.for_node,
        store=image.from_node,
        metadata=compute.metadata,
        password=compute.keep_password,
        config_drive=compute.config_drive,
        console=meetings.node,
    )


def sockets(config: Config) -> "serve.Sockets":
    """What the api listens on; plain HTTP never leaves this machine."""
    from nacre.core import serve

    def listen(address: str, port: int | None) -> tuple[socket.socket, ...]:
        return (socket.create_server((address, port), backlog=1024),) if port else ()

    own = config.nacre
    return serve.Sockets(listen(own.host, own.port), listen("127.0.0.1", own.http_port), listen(own.host, own.node_port))


def serve_api(home: Home, config: Config, sockets: "serve.Sockets", node_hosts: Sequence[str], inside: "serve.Inside | None" = None) -> None:
    """The `nacre api` process; returns when told to stop. `node_hosts` are reached by unix sockets, `inside` is what listens in hosts."""
    from nacre.core import serve

    cloud = make_cloud(home, config, "api")
    heartbeats = node_api.Heartbeats(cloud)
    inner = behind()
    nodes = {home.node_socket(host): node_api.NodeApp(cloud, host, inner, heartbeats) for host in node_hosts}
    keys = home.reach / "keys"
    public: ASGIApp = app(cloud)
    certificate, joined = (keys / "server.crt", keys / "server.key"), None
    if sockets.nodes:
        local = frozenset(node_hosts)
        public = joining.Join(public, cloud, local, keys)
        certified = joining.ByCertificate(cloud, lambda host, permit: node_api.NodeApp(cloud, host, inner, heartbeats, permit), local, keys)
        joined = serve.Joined(certified, tls.node_context(certificate, keys / "node-ca.crt"))
    try:
        serve.serve(public, sockets, certificate=certificate, hosts=serve.Hosts(nodes, joined, inside), background=[heartbeats.forever])
    finally:
        cloud.bells.close()
        cloud.db.close()


def run_worker(home: Home, config: Config, fault: Fault = no_fault) -> None:
    """The `nacre worker` process; returns when told to stop. `fault`: as of `worker.run_one`."""
    cloud = make_cloud(home, config, "worker")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    here = f"{socket.gethostname()[:40]}-{home.mark}"  # a home has one worker at a time: the next one goes on with tasks and loops at once
    worker, loops = Worker(cloud, here, fault=fault), Loops(cloud, LOOPS, here)
    worker.start()
    loops.start()
    stop.wait()
    loops.stop()
    worker.stop()
    cloud.bells.close()
    cloud.db.close()


def prepare(home: Home, config: Config, passwords: Mapping[str, str], history: postgresql.History) -> None:
    """Bring the database to this program's schema and make the first rows; harmless when repeated."""
    from nacre.core import schema

    cloud = make_cloud(home, config, "prepare")
    if not cloud.db.sqlite:
        postgresql.refuse(cloud.db, history, lambda conn: identity.fits(cloud, conn))
    schema.upgrade(cloud.db)
    with cloud.db.write(System(ids.request_id())) as tx:
        identity.bootstrap(tx, cloud, passwords, SERVICES)
        network.bootstrap(tx)
        postgresql.use_copy(tx.conn)
    cloud.bells.close()
    cloud.db.close()


def examine(home: Home, config: Config, history: postgresql.History) -> None:
    """Raises Unsuitable or db.Unreachable when the cloud cannot have its state in the PostgreSQL that `config` names."""
    cloud = make_cloud(home, config, "examine")
    try:
        postgresql.refuse(cloud.db, history, lambda conn: identity.fits(cloud, conn))
    finally:
        cloud.bells.close()
        cloud.db.close()


def move_database(home: Home, config: Config, mark: str) -> dict[str, int]:
    """Copies the SQLite of the home into the PostgreSQL that `config` names; rows by table. Raises as `examine` does."""
    from nacre.core import transfer

    source, target = Database(home.database_url), Database(str(config.database.connection))
    try:
        return transfer.copy(source, target, System(ids.request_id()), mark)
    finally:
        source.close()
        target.close()


CONTENTS = backups.Contents(compute.on_hosts, image.with_data, compute.restored, image.restored)


def backup(home: Home, config: Config, questions: Iterable[dict[str, Any]], tell: Callable[[dict[str, Any]], None]) -> None:
    """The conversation that `nacre backup` has with the database and the hosts."""
    cloud = make_cloud(home, config, "backup")
    try:
        with backups.Session(cloud, CONTENTS) as session:
            backups.serve(session, questions, tell)
    finally:
        cloud.bells.close()
        cloud.db.close()


def settle_backup(file: Path, when: str, there: backups.There) -> int:
    """Makes the database of a backup one that a cloud may start on; its epoch."""
    database = Database(f"sqlite:///{file}")
    try:
        return backups.settle(database, when, there, CONTENTS)
    finally:
        database.close()


def node_token(home: Home, config: Config, seconds: int) -> str:
    """A new token's secret with which one machine may join."""
    cloud = make_cloud(home, config, "node-token")
    with cloud.db.write(System(ids.request_id())) as tx:
        secret = joining.make(tx, seconds)
    cloud.bells.close()
    cloud.db.close()
    return secret


def admit(home: Home, config: Config, host: str, csr: str) -> str:
    """The certificate of a host of the controller's own machine."""
    cloud = make_cloud(home, config, "admit")
    request = joining.request_of(host, csr)
    with cloud.db.write(System(ids.request_id())) as tx:
        certificate = tls.sign_node(joining.authority(home.reach / "keys"), request.public_key(), host, joining.admit(tx, host))
    cloud.bells.close()
    cloud.db.close()
    return certificate.decode()


def first_image(home: Home, config: Config, file: Path) -> None:
    """Register `file` as the public image `nacre-guest`; harmless when there is one."""
    cloud = make_cloud(home, config, "first-image")
    image.register(cloud, System(ids.request_id()), name="nacre-guest", file=file, project_id=identity.project_named(cloud, "admin"))
    cloud.bells.close()
    cloud.db.close()


def check_policy(cloud: Cloud, asked: dict[str, Any]) -> dict[str, Any]:
    """Raises NotFound for who or what there is not."""
    rule, named = asked["rule"], asked["service"]
    found = [name for name, policy in cloud.policies.items() if rule in policy.written and named in (None, name)]
    if len(found) != 1:
        reason = f"several services have it: say one of {', '.join(found)}" if found else f"there is no such rule in {named or 'any service'}"
        raise NotFound(f"{rule}: {reason}.")
    caller = identity.acting(cloud, asked["user"], asked["scope"], asked["reference"])
    own = {"project_id": caller.project_id, "user_id": caller.user_id, "tenant_id": caller.project_id}
    verdict = verdicts.told(verdicts.explain(cloud.policies[found[0]], rule, {**own, **asked["target"]}, caller.credentials))
    return {**verdict, "rule": rule, "service": found[0], "user": caller.user_name, "roles": sorted(caller.roles)}


CHECKS = (compute_doctor.check,)
QUESTIONS: dict[str, Callable[[Cloud, dict[str, Any]], Any]] = {
    "policy": check_policy,
    "doctor": lambda cloud, asked: doctor.run(cloud, CHECKS, repair=asked["fix"]),
    "explain": lambda cloud, asked: compute.explain_all(cloud, asked["server"]),
    "keys": lambda cloud, asked: identity.rotate_keys(cloud, of_credentials=asked["credentials"]),
    "why": lambda cloud, asked: why.tell(cloud, asked["id"], asked["request"]),
}


def answer(home: Home, config: Config, what: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What a command line verb asks of the database: {"told"}, or {"refused": the reason}."""
    cloud = make_cloud(home, config, what)
    try:
        return {"told": QUESTIONS[what](cloud, asked)}
    except Error as error:
        return {"refused": error.message}
    finally:
        cloud.bells.close()
        cloud.db.close()
