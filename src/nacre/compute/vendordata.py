"""What the operator tells every guest: the JSON object in `[api] vendordata_jsonfile_path`, upstream's provider StaticJSON.

The file is read when a guest asks and its content remembered until the file changes. One that cannot be used is named in the log, once
for each state it is in, and guests are told nothing: they boot all the same.
"""

import functools
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nacre.core.cloud import Cloud

_LARGEST = 1 << 20
log = logging.getLogger("nacre.compute")


def static(cloud: Cloud) -> Mapping[str, Any]:
    """A path without a folder before it lies in the cloud's home."""
    if cloud.config.api.vendordata_jsonfile_path is None:
        return {}
    path = cloud.home.path / cloud.config.api.vendordata_jsonfile_path
    if path.is_relative_to(cloud.home.path):
        path = cloud.home.reach / path.relative_to(cloud.home.path)
    try:
        state = path.stat()
    except OSError as error:
        return _read(path, str(error), 0)
    return _read(path, "", state.st_mtime_ns ^ state.st_size)


@functools.lru_cache(8)
def _read(path: Path, broken: str, state: int) -> Mapping[str, Any]:
    try:
        if broken:
            raise ValueError(broken)
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ValueError("it is larger than 1 MiB")
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
        return found
    except (OSError, ValueError) as error:
        log.error("[api] vendordata_jsonfile_path = %s cannot be used: %s", path, error)
        return {}
