"""Verbs with more options than a function should have parameters: the options are the fields of a dataclass."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from nacre.cli.trouble import DEFAULT_HOME

T = TypeVar("T")
HomeOption = Annotated[Path, typer.Option("--home", envvar="NACRE_HOME", help="The folder that holds this cloud.")]

DATABASE = "postgresql://user:password@host/database; - takes it from NACRE_DATABASE or standard input."


def taking(options: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Makes `verb(options)` a command whose parameters are the fields of `options`."""

    def decorate(verb: Callable[[T], None]) -> Callable[..., None]:
        def command(**given: object) -> None:
            verb(options(**given))

        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        command.__annotations__ = inspect.get_annotations(options)
        command.__signature__ = inspect.signature(options)  # type: ignore[attr-defined]
        return command

    return decorate


@dataclass(frozen=True)
class Up:
    """None: as it is in nacre.toml."""

    home: HomeOption = DEFAULT_HOME
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the API.  [15000 at first]")] = None
    http_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Plain HTTP on 127.0.0.1, too; 0: no more.  [none at first]")] = None
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; ending this command ends the cloud's processes.")] = False
    hypervisor: Annotated[str | None, typer.Option(help="libvirt, or fake: the same program on pretended hosts.")] = None
    nodes: Annotated[int | None, typer.Option(min=1, max=64, help="How many hosts on this machine.  [1 at first]")] = None
    fake_hosts: Annotated[int | None, typer.Option(min=1, max=1000, help="How many hosts to pretend.")] = None
    on_host: Annotated[bool, typer.Option("--on-host", help="The machine itself is the host, in no sandbox; said once, at first.")] = False
    uplink: Annotated[str | None, typer.Option(help="nat: guests reach what this machine reaches; none.  [none at first]")] = None
    database: Annotated[str | None, typer.Option(metavar="URL", help=f"{DATABASE}  [SQLite at first]")] = None


@dataclass(frozen=True)
class Conformance:
    """Which tests, and what of the last report."""

    regex: Annotated[str | None, typer.Argument(metavar="REGEX", help="Only tests whose name it finds.")] = None
    smoke: Annotated[bool, typer.Option("--smoke", help="The tests that upstream calls smoke.")] = False
    service: Annotated[str | None, typer.Option(help="The tests of one service: compute, identity, image, network, scenario.")] = None
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many classes of tests at once.")] = 2
    out: Annotated[Path, typer.Option(file_okay=False, help="Where results.json and junit.xml go.")] = Path("conformance-report")
    fake: Annotated[bool, typer.Option("--fake", help="On the fake hypervisor: no guest runs, and every report says so.")] = False
    list_failures: Annotated[bool, typer.Option("--list-failures", help="What failed in the last report; runs nothing.")] = False
    rerun_failed: Annotated[bool, typer.Option("--rerun-failed", help="Only what failed in the last report.")] = False
    document: Annotated[bool, typer.Option("--document", help="Write the table into docs/conformance.md.")] = False


@dataclass(frozen=True)
class PolicyCheck:
    """Who asks, for which scope (none: unscoped), and which rule. Users, projects and domains by id or name."""

    rule: Annotated[str, typer.Argument(metavar="RULE", help="As identity:list_users or create_network.")]
    user: Annotated[str, typer.Option(help="Who asks.")]
    project: Annotated[str | None, typer.Option(help="With a token for this project.")] = None
    domain: Annotated[str | None, typer.Option(help="With a token for this domain.")] = None
    system: Annotated[bool, typer.Option("--system", help="With a token for the system.")] = False
    service: Annotated[str | None, typer.Option(help="Whose rule, if several have one of that name.")] = None
    target: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="What the rule looks at.  [the asker's project and user]")] = None
    home: HomeOption = DEFAULT_HOME
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
