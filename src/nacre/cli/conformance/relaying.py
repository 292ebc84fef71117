"""Our side of `relay.py`: the folder that Tempest works in, the names of its tests, a run of some of them."""

import configparser
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.cli.conformance.cloud import Place
from nacre.cli.conformance.results import Outcome
from nacre.cli.trouble import Trouble

Settings = Mapping[str, Mapping[str, Any]]
RELAY = Path(__file__).with_name("relay.py")


class Tempest:
    """`folder` holds tempest.conf, which has a password, and what Tempest writes."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "tempest"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        self.python = Path(os.environ.get("NACRE_CONFORMANCE", "")) / "python"
        if not self.python.is_file():
            raise Trouble("Tempest's environment is not there: type  sudo ./nacre conformance  in a clone.")
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}

    def _words(self, *rest: str) -> list[str]:
        return [str(self.python), "-I", str(RELAY), str(self.folder), *rest]

    def names(self) -> list[str]:
        """Every test there is, with its attributes in brackets. Raises Trouble."""
        (self.folder / "tempest.conf").write_text("")
        done = subprocess.run(self._words("list"), env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise Trouble(f"Tempest cannot list its tests; its words are in {self.folder}/tempest.log. {done.stderr.strip()[-300:]}")
        return [json.loads(line)["name"] for line in done.stdout.splitlines()]

    def run(self, place: Place, settings: Settings, names: Sequence[str], workers: int) -> Iterator[Outcome]:
        """What becomes of each, as it ends. Raises Trouble."""
        if not names:
            return
        self._configure(settings)
        self.env["SSL_CERT_FILE"] = str(place.home.path / "ca.pem")  # some tests open pages with Python's own list of authorities
        chosen = self.folder / "chosen.txt"
        chosen.write_text("\n".join(names) + "\n")
        reading, writing = os.pipe()
        process = place.start(self._words("run", str(workers), str(chosen)), self.env, writing)
        os.close(writing)
        rest = []
        with os.fdopen(reading) as told:
            for line in told:
                try:
                    yield Outcome(**json.loads(line))
                except (ValueError, TypeError):
                    rest.append(line.strip())
        if process.wait():
            raise Trouble(f"Tempest cannot run: {' '.join(rest)[-300:] or process.returncode}. Its words are in {self.folder}/tempest.log.")

    def _configure(self, settings: Settings) -> None:
        parser = configparser.RawConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        for section, values in settings.items():
            parser[section] = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in values.items()}
        with (self.folder / "tempest.conf").open("w") as file:
            parser.write(file)
