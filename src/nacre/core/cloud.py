"""What every verb can reach: the cloud it runs in. Made once by `program.py` in each process; nothing here is global."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nacre.core.bells import Bells
from nacre.core.config import Config, Home
from nacre.core.db import Database, Tx

if TYPE_CHECKING:
    from nacre.core.caller import Caller
    from nacre.core.policy import Policy


@dataclass
class Cloud:
    """`policies`: service name -> its rules, overridden by `<home>/policy/<service>.yaml`; `authenticate` turns a token into a caller
    (identity's front); `services` are the mounted ones by name; `public_url` is the address that the catalog is built from;
    `memory` is what services remember in this process; `project_deleted` is what else happens where identity deletes a project."""

    home: Home
    config: Config
    db: Database
    bells: Bells
    policies: "Mapping[str, Policy]"
    authenticate: "Callable[[Cloud, str, str], Caller]"
    public_url: str = ""
    services: Mapping[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    project_deleted: tuple[Callable[[Tx, str], None], ...] = ()
