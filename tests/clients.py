"""Where the unmodified upstream clients are: the environment that the launcher made, else beside this interpreter."""

import os
import sys
from pathlib import Path


def client(name: str) -> str:
    """The path of `openstack`, `glance`, ..."""
    return str(Path(os.environ.get("NACRE_CLIENTS") or Path(sys.executable).parent) / name)
