"""`nacre bench`: the measurements of the clone's `bench/`, with this very interpreter, in this very process: signals reach them."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from nacre.cli.trouble import Trouble


def run(arguments: list[str]) -> NoReturn:
    """Raises Trouble when this is no clone."""
    bench = Path(__file__).parents[3] / "bench"
    if not bench.is_dir():
        raise Trouble("The measurements are in the clone: type  sudo ./nacre bench  there.")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-B", str(bench), *arguments])
