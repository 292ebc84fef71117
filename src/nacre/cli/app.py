"""The command line. Each verb loads only what it needs, so `status` and `exec` answer at once."""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nacre.cli.options import DATABASE, Conformance, HomeOption, PolicyCheck, Up, taking
from nacre.cli.trouble import DEFAULT_HOME, Trouble, typed
from nacre.core.config import Home

if TYPE_CHECKING:
    from nacre.sandbox.face import Host

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="A whole OpenStack cloud in one program."
)
RUN_INSIDE = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

NodeOption = Annotated[int, typer.Option("--node", help="Which host of the cloud.")]


@app.command()
@taking(Up)
def up(given: Up) -> None:
    """Install what is missing and start the cloud. Harmless to repeat."""
    from nacre.cli import up as verb

    verb.run(
        Home(given.home),
        verb.Order(
            port=given.port,
            http_port=given.http_port,
            hypervisor=given.hypervisor,
            fake_hosts=given.fake_hosts,
            nodes=given.nodes,
            foreground=given.foreground,
            clients=_clients(),
            on_host=given.on_host,
            uplink=given.uplink,
            database=given.database,
        ),
    )


@app.command()
def down(
    home: HomeOption = DEFAULT_HOME,
    guests: Annotated[bool, typer.Option("--guests", help="Shut guests and their hosts down too.")] = False,
    wipe: Annotated[bool, typer.Option("--wipe", help="End everything and delete the cloud with all its data.")] = False,
) -> None:
    """Stop the cloud's processes; guests go on."""
    from nacre.cli import down as verb

    print(verb.run(Home(home), guests=guests, wipe=wipe))


@app.command()
def status(
    home: HomeOption = DEFAULT_HOME, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Every process of the cloud: role, pid, memory, restarts."""
    from nacre.cli import status as verb

    verb.show(Home(home), as_json=as_json)


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(help="api, worker, node, up, or a service like compute.")] = None,
    home: HomeOption = DEFAULT_HOME,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they are.")] = False,
) -> None:
    """What the cloud's processes have logged."""
    from nacre.cli import logs as verb

    verb.show(Home(home), service, follow=follow, raw=as_json)


@app.command("exec", context_settings=RUN_INSIDE)
def execute(context: typer.Context, home: HomeOption = DEFAULT_HOME, node: NodeOption = 1) -> None:
    """Run a command inside a host, as if typed on that machine:  nacre exec -- virsh list --all"""
    if not context.args:
        raise Trouble("Which command?  For example:  sudo ./nacre exec -- virsh list --all")
    from nacre.sandbox import exec as inside

    sys.exit(inside.run(_host(home, node), context.args))


@app.command()
def shell(home: HomeOption = DEFAULT_HOME, node: NodeOption = 1) -> None:
    """A shell inside a host, in the folder with its guests."""
    from nacre.sandbox import exec as inside

    sys.exit(inside.shell(_host(home, node)))


explain_app = typer.Typer(no_args_is_help=True, help="Why something is where it is.")
app.add_typer(explain_app, name="explain")


@explain_app.command("server")
def explain_server(
    server: Annotated[str, typer.Argument(metavar="ID", help="A server's id.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What each filter said of each host, and the smallest change that would fit."""
    from nacre.cli import explain as verb

    verb.show(Home(home), server, as_json=as_json)


@app.command()
def doctor(
    home: HomeOption = DEFAULT_HOME,
    fix: Annotated[bool, typer.Option("--fix", help="Repair, touching no running guest and nothing that others made.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare the database with what the hosts see; exit status 0 when nothing differs."""
    from nacre.cli import doctor as verb

    sys.exit(verb.run(Home(home), fix=fix, as_json=as_json))


@app.command("why")
def tell_why(
    name: Annotated[str, typer.Argument(metavar="ID", help="A request's id (x-openstack-request-id) or a resource's.")],
    home: HomeOption = DEFAULT_HOME,
    request: Annotated[str | None, typer.Option(help="Of a resource: this request instead of the last.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What a request did, from HTTP to the commands of hosts, in milliseconds."""
    from nacre.cli import why as verb

    verb.show(Home(home), name, request, as_json=as_json)


policy_app = typer.Typer(no_args_is_help=True, help="Who may do what.")
app.add_typer(policy_app, name="policy")


@policy_app.callback()
def policies() -> None:
    pass


@policy_app.command("check")
@taking(PolicyCheck)
def policy_check(given: PolicyCheck) -> None:
    """Whether a rule allows a user something, and which line decided; exit status 0 when it does, 1 when not."""
    from nacre.cli import policy as verb

    scope, reference = ("system", "") if given.system else ("project", given.project) if given.project else ("domain", given.domain or "")
    question = {"rule": given.rule, "service": given.service, "user": given.user, "scope": scope if given.system or reference else "",
                "reference": reference, "target": verb.target(given.target or [])}  # fmt: skip
    sys.exit(verb.check(Home(given.home), question, as_json=given.as_json))


node_app = typer.Typer(no_args_is_help=True, help="Further hosts: a token here, join there.")
app.add_typer(node_app, name="node")


@node_app.command()
def token(
    home: HomeOption = DEFAULT_HOME,
    minutes: Annotated[int, typer.Option(min=1, max=10080, help="How long it is good.")] = 60,
) -> None:
    """Print (last) a token with which one host may join, once. With the first the API begins to listen for nodes, on a port of its own."""
    from nacre.cli import join as verb

    print(verb.token(Home(home), minutes * 60))


@node_app.command()
def join(
    given: Annotated[str, typer.Argument(metavar="TOKEN", help="What  nacre node token  printed.")],
    sandbox: Annotated[int, typer.Option(min=2, max=254, help="The number of the further sandbox host.")],
    home: HomeOption = DEFAULT_HOME,
    host: Annotated[str | None, typer.Option(help="Its name.  [nacre-NUMBER]")] = None,
    url: Annotated[str | None, typer.Option(help="Where the cloud's API is.  [this home's]")] = None,
) -> None:
    """Make a further host part of the cloud: its key stays there, the cloud signs its certificate."""
    from nacre.cli import join as verb

    print(verb.join(Home(home), verb.Wish(given, sandbox, host, url)))


keys_app = typer.Typer(no_args_is_help=True, help="What signs tokens and seals credentials.")
app.add_typer(keys_app, name="keys")


@keys_app.callback()
def keys() -> None:
    pass


@keys_app.command("rotate")
def rotate_keys(
    home: HomeOption = DEFAULT_HOME,
    credentials: Annotated[bool, typer.Option("--credentials", help="The key that seals credentials, instead of that of tokens.")] = False,
) -> None:
    """Begin a new key. What those before it signed stays good until it ends; nobody has to sign in again."""
    from nacre.cli import keys as verb

    print(verb.rotate(Home(home), credentials=credentials))


db_app = typer.Typer(no_args_is_help=True, help="Where the cloud keeps its state.")
app.add_typer(db_app, name="db")


@db_app.callback()
def database() -> None:
    pass


@db_app.command("move")
def move_database(url: Annotated[str, typer.Argument(metavar="URL", help=DATABASE)], home: HomeOption = DEFAULT_HOME) -> None:
    """Move the cloud's state from SQLite into an empty PostgreSQL database. The API pauses meanwhile; guests do not notice."""
    from nacre.cli import db
    from nacre.cli import up as verb

    db.move(Home(home), url, lambda: verb.run(Home(home), verb.Order(clients=_clients())))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="It gets this name when it is whole.")],
    home: HomeOption = DEFAULT_HOME,
    disks: Annotated[bool, typer.Option("--disks/--no-disks", help="With the disks of servers, or without.")] = True,
) -> None:
    """Write the whole cloud into one file while it runs; guests do not notice."""
    from nacre.cli import backup as verb

    print(verb.run(Home(home), file, disks=disks))


@app.command()
def restore(file: Annotated[Path, typer.Argument(metavar="FILE", help="What  nacre backup  wrote.")], home: HomeOption = DEFAULT_HOME) -> None:
    """Make the cloud in FILE, in a new home or over the stopped one of the same cloud. Nothing that is there is destroyed."""
    from nacre.cli import restore as verb

    print(verb.run(Home(home), file))


@app.command(hidden=True, context_settings=RUN_INSIDE)
def tool(context: typer.Context, name: str, home: HomeOption = DEFAULT_HOME) -> None:
    """The commands in the home's bin folder: nova-manage, openstack-status, openstack-service."""
    from nacre.cli import operator

    sys.exit(operator.run(Home(home), name, context.args))


@app.command(context_settings=RUN_INSIDE)
def test(context: typer.Context) -> None:
    """Test the program:  nacre test [fast|services|machine|rules|conformance] [pytest arguments]"""
    from nacre.cli import testing

    sys.exit(testing.run(context.args))


@app.command()
@taking(Conformance)
def conformance(given: Conformance) -> None:
    """Run upstream's tests, Tempest, against a cloud made for it and wiped afterwards; the whole of them, or --smoke, or of one service."""
    from nacre.cli import conformance as verb

    sys.exit(verb.run(verb.Asked(**vars(given))))


@app.command(context_settings={**RUN_INSIDE, "help_option_names": []})
def bench(context: typer.Context) -> None:
    """Measure:  nacre bench [SCENARIO...] [--quick] [--against URL] [--json FILE]"""
    from nacre.cli import bench as verb

    verb.run(context.args)


def _clients() -> Path:
    return Path(os.environ.get("NACRE_CLIENTS", "/opt/nacre/clients/bin"))


def _host(home: Path, number: int) -> "Host":
    from nacre.cli import hosts

    if os.geteuid():
        raise Trouble("This needs root: put sudo in front.")
    host = hosts.of(Home(home), number)
    if not host.running():
        raise Trouble(f"Host {host.name} of {home} is not running: type  {typed('up', home)}")
    return host


def main() -> None:
    """Runs one verb. What a person must know comes last, on stderr, with exit status 1."""
    try:
        app(prog_name="nacre")
    except Trouble as trouble:
        sys.stdout.flush()
        print(f"nacre: {trouble}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        traceback.print_exc()
        print(f"nacre: {error}. Correct that, then type the same command again.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
