"""What the tests need in the cloud beforehand: two images, two flavors, an external network; and a web server where images are fetched from."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.cli import ready, up
from nacre.cli.conformance.cloud import Place
from nacre.cli.trouble import Trouble
from nacre.core.config import load

_NETWORK = {"name": "tempest-external", "router:external": True, "provider:network_type": "flat", "provider:physical_network": "external"}
_SUBNET = {"name": "tempest-external", "ip_version": 4, "cidr": "172.24.4.0/24", "gateway_ip": "172.24.4.1", "enable_dhcp": False,
           "allocation_pools": [{"start": "172.24.4.10", "end": "172.24.4.250"}]}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """Ids, and where the images' files are. `image_file` is on the machine, `http_image` for who fetches."""

    image: str
    image_alt: str
    flavor: str
    flavor_alt: str
    network: str
    network_name: str
    image_file: Path
    http_image: str


def make(place: Place, folder: Path) -> Made:
    """Raises Trouble when the cloud lacks or refuses something."""
    guest = up.guest_image(load(place.home.path / "nacre.toml"))
    first = place.want("GET", "/image/v2/images?name=nacre-guest")["images"]
    if not first:
        raise Trouble("The cloud has no image nacre-guest, which the tests start their guests from.")
    network = place.want("POST", "/network/v2.0/networks", {"network": _NETWORK})["network"]
    place.want("POST", "/network/v2.0/subnets", {"subnet": {**_SUBNET, "network_id": network["id"]}})
    return Made(image=first[0]["id"], image_alt=_image(place, guest), flavor=_flavor(place, "tempest-small", 64),
                flavor_alt=_flavor(place, "tempest-large", 96), network=network["id"], network_name=network["name"],
                image_file=guest, http_image=_serve(place, folder, guest))  # fmt: skip


def _image(place: Place, file: Path) -> str:
    """The guest once more under another name."""
    said = {"name": "nacre-guest-alt", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"}
    made: dict[str, Any] = place.want("POST", "/image/v2/images", said)
    try:
        status = place.client.upload(f"/image/v2/images/{made['id']}/file", file.read_bytes())
    except ready.NotReady as error:
        raise Trouble(f"The cloud does not answer: {error}") from error
    if status != 204:
        raise Trouble(f"The cloud refuses the second image: {status}")
    return str(made["id"])


def _flavor(place: Place, name: str, memory: int) -> str:
    flavor = {"name": name, "ram": memory, "vcpus": 1, "disk": 1}
    return str(place.want("POST", "/compute/v2.1/flavors", {"flavor": flavor})["flavor"]["id"])


def _serve(place: Place, folder: Path, guest: Path) -> str:
    """A web server beside the cloud's worker, who fetches, with the guest's image in it; it ends with the run. Its address. Raises Trouble."""
    files = folder / "www"
    files.mkdir(exist_ok=True)
    shutil.copyfile(guest, files / "guest.qcow2")
    reading, writing = os.pipe()
    script = (
        "import functools, http.server, os, sys\n"
        "handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)\n"
        "print(server.server_address[1], flush=True)\n"
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 1), os.dup2(1, 2)\n"
        "server.serve_forever()\n"
    )
    server = subprocess.Popen([sys.executable, "-I", "-c", script, str(files)], stdin=subprocess.DEVNULL, stdout=writing)
    place.helpers.append(server)
    os.close(writing)
    with os.fdopen(reading) as told:
        port = told.readline().strip()
    if not port.isdecimal():
        raise Trouble(f"The web server for images does not start: {port or server.poll()}")
    return f"http://127.0.0.1:{port}/guest.qcow2"
