"""A cloud for one run of tests: `nacre up` in a home and on a port of its own, wiped at the end, whatever the end is."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.cli import hosts, layout, ready
from nacre.cli.trouble import Trouble
from nacre.core.config import Home, load
from nacre.sandbox.face import Host, HostError

PATIENCE = 900.0
# The rules for passwords that the cloud of the tests has; there are tests of them, and the others do not mind.
PASSWORDS = {"lockout_failure_attempts": 2, "lockout_duration": 5, "unique_last_password_count": 2}
OPTIONS = """\
[DEFAULT]
enabled_backends = ["file:file", "second:file", "web:http"]

[second]
filesystem_store_datadir = "second"

[import_filtering_opts]
allowed_hosts = ["127.0.0.1"]
allowed_ports = []
"""
"""Several stores, and images from the web server of the tests."""


@dataclass
class Place:
    """A cloud that answers. `host` is where API and floating IPs both do; a fake one has none, its API answers on the machine."""

    home: Home
    client: ready.Client
    catalog: list[dict[str, Any]]
    password: str
    url: str
    host: Host | None
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
        """Status and body, as the administrator. Raises Trouble when nobody answers."""
        try:
            status, _, answer = self.client.ask(method, path, body, headers)
        except ready.NotReady as error:
            raise Trouble(f"The cloud does not answer: {error}") from error
        return status, answer

    def want(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The body of an answer that is a success. Raises Trouble."""
        status, answer = self.ask(method, path, body)
        if status >= 300:
            raise Trouble(f"The cloud refuses what the tests need: {method} {path}: {status} {json.dumps(answer)[:300]}")
        return answer

    def start(self, argv: list[str], env: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
        """A process where the tests run, ended with the place. Raises Trouble."""
        try:
            if self.host is not None:
                started = self.host.spawn(argv, env=env, output=output)
            else:
                started = subprocess.Popen(argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/")
        except (HostError, OSError) as error:
            raise Trouble(f"{argv[0]} cannot be started where the tests run: {error}") from error
        self.helpers.append(started)
        return started

    def leave(self) -> None:
        for helper in self.helpers:
            if helper.poll() is None:
                helper.terminate()
        for helper in self.helpers:
            helper.wait()


@contextmanager
def throwaway(clone: Path, *, fake: bool, logs: Path) -> Iterator[Place]:
    """Raises Trouble. The logs of the cloud's processes are in `logs` afterwards."""
    path = Path(tempfile.mkdtemp(prefix="nacre-conformance-"))
    up: subprocess.Popen[str] | None = None
    try:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        layout.claim(Home(path))
        compliance = "".join(f"{name} = {value}\n" for name, value in PASSWORDS.items())
        layout.write(path / "nacre.toml", f"{OPTIONS}\n[security_compliance]\n{compliance}", 0o600)
        print(f"Starting a cloud with {'a fake hypervisor' if fake else 'real guests'} ...", flush=True)
        words = [str(clone / "nacre"), "up", "--home", str(path), "--port", str(port), *(["--hypervisor", "fake"] if fake else [])]
        up = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        said, _ = up.communicate(timeout=PATIENCE)
        if up.returncode:
            raise Trouble(f"The cloud for the tests does not start: {said.strip().rpartition(chr(10))[2]}")
        found = place(Home(path), fake=fake)
        try:
            yield found
        finally:
            found.leave()
    except subprocess.TimeoutExpired:
        raise Trouble(f"The cloud for the tests does not start within {PATIENCE:.0f} s.") from None
    finally:
        if up is not None and up.poll() is None:
            up.terminate()
            up.wait()
        shutil.rmtree(logs, ignore_errors=True)
        if (path / "logs").is_dir():
            shutil.copytree(path / "logs", logs)
        _wipe(clone, path)


def _wipe(clone: Path, path: Path) -> None:
    if layout.is_home(path):
        with suppress(OSError):  # who listened may have gone
            print("Wiping the cloud ...", flush=True)
        words = [str(clone / "nacre"), "down", "--wipe", "--home", str(path)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, check=False)
        if done.returncode:
            with suppress(OSError):
                print(f"nacre: {(done.stderr or done.stdout).strip()}", file=sys.stderr)
            return
    shutil.rmtree(path, ignore_errors=True)


def place(home: Home, *, fake: bool) -> Place:
    """The cloud in `home`, asked as its administrator. Raises Trouble when it does not answer or refuses the password."""
    config = load(home.path / "nacre.toml")
    client, password = ready.Client(home, config), layout.password(home, "admin")
    try:
        catalog = client.catalog(password)
    except PermissionError as error:
        raise Trouble(f"The cloud refuses its administrator: {error}.") from error
    except ready.NotReady as error:
        raise Trouble(f"The cloud does not answer: {error}.") from error
    url = f"https://{config.nacre.host}:{config.nacre.port}"
    return Place(home, client, catalog, password, url, None if fake else hosts.of(home, 1))
