"""`nacre node token` and `nacre node join`: how a further host becomes part of a cloud.

A token is `<secret>.<fingerprint of the API's certificate>`: who joins compares the fingerprint before it sends the secret, so a token
cannot be given to another cloud. The key is made here and stays; nothing is written and nothing started before the cloud has signed.
Joining ends with `up`, whose supervisor looks after the new host too.
"""

import http.client
import json
import os
import re
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nacre.cli import alive, certificates, credentials, hosts, layout, supervisor, up
from nacre.cli.processes import all_numbers, host_name, host_numbers
from nacre.cli.trouble import Trouble, typed
from nacre.core import tls
from nacre.core.config import Config, Home, load


@dataclass(frozen=True)
class Wish:
    """What was typed: `number` of the sandbox host; `host` None: named after it; `url` None: the API of the home."""

    token: str
    number: int
    host: str | None
    url: str | None


def token(home: Home, seconds: int) -> str:
    """Raises Trouble."""
    config = _config(home)
    if not config.nacre.node_port:
        with layout.exclusive(home):
            layout.set_options(home.path / "nacre.toml", "nacre", {"node_port": up.free_port(config)})
    if not config.nacre.node_port or not alive.holder(home.path / "run", "api"):
        up.run(home, up.Order(clients=_clients()))
    done = subprocess.run(supervisor.command(home, "job", "node-token"), input=json.dumps({"seconds": seconds}), capture_output=True, text=True,
                          env=supervisor.ENVIRONMENT, cwd="/", timeout=60, check=False)  # fmt: skip
    if done.returncode:
        raise Trouble(f"No token can be made: {done.stderr.strip().rpartition(chr(10))[2]}. More:  {typed('logs', home.path)} api")
    return f"{done.stdout.strip()}.{tls.fingerprint((home.path / 'keys/server.crt').read_bytes())}"


def join(home: Home, wish: Wish) -> str:
    """What was done, in a sentence. Raises Trouble."""
    config = _config(home)
    host = wish.host or host_name(wish.number)
    if host != host_name(wish.number):
        raise Trouble(f"Sandbox host {wish.number} is named {host_name(wish.number)}: leave --host out.")
    if wish.number in all_numbers(config) and not certificates.refused(home, wish.number):
        raise Trouble(f"Host {host} is part of this cloud already.")
    if config.nacre.hypervisor == "fake":
        raise Trouble("Pretended hosts do not join: start the cloud without  --hypervisor fake.")
    if hosts.on_host(home):
        raise Trouble("This cloud's host is the machine itself, which has no cables for sandbox hosts: they join a cloud in a sandbox.")
    key, csr = tls.request(host)
    url = wish.url or credentials.authority(config)
    answer = ask(url, wish.token, {"host": host, "csr": csr.decode()})
    certificates.keep(home, wish.number, key, answer, answer["port"])
    with layout.exclusive(home):
        now = load(home.path / "nacre.toml")
        if wish.number not in host_numbers(now):
            layout.set_options(home.path / "nacre.toml", "nacre", {"joined": sorted({*now.nacre.joined, wish.number})})
    up.run(home, up.Order(clients=_clients()))
    return f"Host {host} has joined {url}."


def _clients() -> Path:
    """Where the launcher put the clients; as they were written when it did not say."""
    found = os.environ.get("NACRE_CLIENTS")
    return Path(found) if found else max(up.STORE.glob("clients-*/bin"), key=lambda path: path.stat().st_mtime, default=up.STORE / "clients")


def _config(home: Home) -> Config:
    if os.geteuid():
        raise Trouble("This needs root: put sudo in front.")
    if not layout.is_home(home.path):
        raise Trouble(f"There is no cloud in {home.path}: type  {typed('up', home.path)}")
    return load(home.path / "nacre.toml")


def ask(url: str, given: str, body: dict[str, str]) -> dict[str, Any]:
    """The cloud's answer to a machine that would join. Raises Trouble: with its reason when it refuses."""
    secret, _, pin = given.strip().rpartition(".")
    if not secret or not re.fullmatch(r"[0-9a-f]{64}", pin):
        raise Trouble("That is no token: type  sudo ./nacre node token  on the controller.")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who answers is known by the fingerprint
    place = urlsplit(url)
    connection = http.client.HTTPSConnection(place.hostname or "", place.port or 443, timeout=30, context=context)
    try:
        connection.connect()
        seen = connection.sock.getpeercert(binary_form=True)
        if tls.fingerprint(seen or b"") != pin:
            raise Trouble(f"This token is not of the cloud at {url}, or its certificate is a new one: have a new token made there.")
        connection.request("POST", "/node/v1/join", json.dumps({"token": secret, **body}), {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Trouble(f"{url} does not answer: {error}. Look whether the cloud is up there.") from error
    finally:
        connection.close()
    try:
        found: dict[str, Any] = json.loads(content)
    except ValueError:
        found = {}
    if answer.status != 200:
        raise Trouble(f"{url} refuses: {found.get('error') or answer.status}.")
    return found
