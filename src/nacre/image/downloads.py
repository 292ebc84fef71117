"""Where the data of an import comes from: an address of the web, or an image of a region's image service, which may be our own.

Our own region is read without HTTP, with what its user may see; another one's service is asked by HTTP with the user's own token, which
the task carries sealed. Either way the address passes the operator's lists (fetching.py).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa

from nacre import identity
from nacre.core import db
from nacre.core.caller import Caller
from nacre.core.errors import Error
from nacre.core.tasks import Run, StepFailed
from nacre.image import fetching, stores, tables
from nacre.image.domain import Image
from nacre.image.service import access, data
from nacre.image.service.imports import mark

METHODS = ("web-download", "glance-download")
_MOST_METADATA = 1 << 20


def opened(run: Run) -> stores.Reader:
    """The data, from its beginning. Raises Error."""
    method = run.args["import_req"]["method"]
    if method["name"] == "web-download":
        return fetching.open_url(method["uri"], run.cloud.config.import_filtering_opts, {})
    with run.cloud.db.read() as conn:
        url = _endpoint(conn, run)
        local = _local(conn, run, "download_image") if _ours(run, url) else None
    if local is not None:
        return data.opened(run.cloud, local)
    return _ask(run, f"{url}/v2/images/{method['glance_image_id']}/file")


def _endpoint(conn: db.Conn, run: Run) -> str:
    method = run.args["import_req"]["method"]
    found = identity.endpoint(conn, "image", str(method["glance_region"]), str(method["glance_service_interface"]))
    if found is None:
        raise StepFailed(f"The catalog has no image service in region {method['glance_region']} ({method['glance_service_interface']}).")
    return found.rstrip("/")


def _ours(run: Run, url: str) -> bool:
    return url == f"{run.cloud.public_url}/image"


def _ask(run: Run, url: str) -> fetching.Answer:
    return fetching.open_url(url, run.cloud.config.import_filtering_opts, {"x-auth-token": identity.unsealed(run.cloud, run.args["token"])})


def _local(conn: sa.Connection, run: Run, rule: str) -> Image:
    """An image of this cloud that the user of the task may see and, by the rule, use. Raises NotFound, Forbidden, StepFailed."""
    caller = Caller(run.cloud, run.request_id, user_id=run.user_id, project_id=run.project_id, roles=frozenset(run.args["roles"]), service="image",
                    rule=rule)  # fmt: skip
    image, whole = access.load(conn, caller, run.args["import_req"]["method"]["glance_image_id"])
    caller.require(whole)
    if image.status != "active":
        raise StepFailed(f"The source image {image.id} is not active.")
    return image


@contextmanager
def described(run: Run) -> Iterator[dict[str, Any]]:
    """What the source image says of itself. Raises StepFailed."""
    try:
        with run.cloud.db.read() as conn:
            url = _endpoint(conn, run)
            local = _described(_local(conn, run, "get_image")) if _ours(run, url) else None
        yield local if local is not None else _remote(run, url)
    except Error as error:
        raise StepFailed(error.message) from error


def take_over(tx: db.Tx, run: Run, image: Image, source: dict[str, Any]) -> dict[str, Any]:
    """The image has the source's formats and those of its properties that the operator lets through. How much data there should be."""
    allowed = run.cloud.config.glance_download_properties.extra_properties
    own = ("os_hidden", "os_hash_algo", "os_hash_value")
    kept = {name: value for name, value in source.items() if isinstance(value, str) and name.startswith(allowed) and name not in own
            and not name.startswith("os_glance")}  # fmt: skip
    tx.update(tables.images, {"id": image.id}, updated_at=tx.now, **{name: source.get(name) for name in ("disk_format", "container_format")})
    mark(tx, image.id, kept)
    return {"size": source.get("size")}


def _described(image: Image) -> dict[str, Any]:
    return {**image.properties, "disk_format": image.disk_format, "container_format": image.container_format, "size": image.size}


def _remote(run: Run, url: str) -> dict[str, Any]:
    answer = _ask(run, f"{url}/v2/images/{run.args['import_req']['method']['glance_image_id']}")
    try:
        source: dict[str, Any] = json.loads(b"".join(iter(partial(answer.read, _MOST_METADATA), b""))[:_MOST_METADATA])
    except ValueError as error:
        raise StepFailed(f"{url} did not describe the image") from error
    finally:
        answer.close()
    if source.get("status") != "active":
        raise StepFailed("The source image is not active.")
    return source
