"""`nacre bench`: the measurements of the clone's `bench/`, with this very interpreter."""

import subprocess
import sys
from pathlib import Path

from nacre.cli.trouble import Trouble


def run(arguments: list[str]) -> int:
    """Exit status: 0 if everything was measured without an error. Raises Trouble when this is no clone."""
    bench = Path(__file__).parents[3] / "bench"
    if not bench.is_dir():
        raise Trouble("The measurements are in the clone: type  sudo ./nacre bench  there.")
    return subprocess.run([sys.executable, "-B", str(bench), *arguments], check=False).returncode
