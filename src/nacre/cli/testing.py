"""`nacre test [layer] [--all] [pytest arguments]`: the tests of the clone, with this very interpreter.

Layers, in the order of CI: `rules` (the house rules, lint and types), `fast` (no privileges, no network but loopback), `services`
(a real PostgreSQL and friends: what needs them, then whatever keeps state in a cloud, again on PostgreSQL; not what types commands of
clients, which is about the wire), `machine` (real guests, switches, namespaces, on a fresh home), `conformance` (what upstream calls smoke
tests, by `nacre conformance` with real guests). Without a layer all of them run, each to its end, and one failure fails the whole; of
conformance those of identity and image, which need no guest. `--all` adds the tests marked `long`, which take long or need large packages
(a browser).
"""

import subprocess
import sys
import time
from pathlib import Path

from nacre.cli.trouble import Trouble

_BOTH_CORES = ["-n", "2", "--dist", "loadfile"]
_APIS = ("core", "identity", "image", "placement", "network", "compute")
_ALONE = "not services and not machine"


def _layers(also: str, failures: int) -> dict[str, list[list[str]]]:
    """The pytest runs of each layer; `also` narrows what they choose."""
    return {
        "rules": [["tests/rules"]],
        "fast": [["tests", "--ignore=tests/rules", "-m", f"{_ALONE}{also}", *_BOTH_CORES]],
        "services": [
            ["tests", "--ignore=tests/rules", "-m", f"services{also}"],
            [*(f"tests/{api}" for api in _APIS), "--database", "postgresql", "-m", f"{_ALONE} and not commands{also}", *_BOTH_CORES],
        ],
        "machine": [["tests", "--ignore=tests/rules", f"--maxfail={failures}", "-m", f"machine{also}"]],
    }


CONFORMANCE = "conformance"
_WITHOUT_GUESTS = ["--fake", r"^tempest\.api\.(identity|image)\."]
LAYERS, _ALL = _layers(" and not long", 5), _layers("", 10)


def run(arguments: list[str]) -> int:
    """Exit status: 0 if every layer passed. Raises Trouble when this is no clone."""
    clone = Path(__file__).parents[3]
    if not (clone / "tests").is_dir():
        raise Trouble("The tests are in the clone: type  sudo ./nacre test  there.")
    table = _ALL if "--all" in arguments else LAYERS
    layers, rest = list(LAYERS), [argument for argument in arguments if argument != "--all"]
    if rest and rest[0] in (*LAYERS, CONFORMANCE):
        layers, rest = rest[:1], rest[1:]
    elif not rest:
        layers.append(CONFORMANCE)
    upstream = rest if layers == [CONFORMANCE] else _WITHOUT_GUESTS
    pytest = [sys.executable, "-m", "pytest"]
    commands = {layer: [[*pytest, *run, *rest] for run in runs] for layer, runs in table.items()}
    commands[CONFORMANCE] = [[str(clone / "nacre"), "conformance", "--smoke", *upstream]]
    failed = [layer for layer in layers if not _passes(clone, layer, commands[layer])]
    if len(layers) > 1:
        print("\n" + "\n".join(f"{layer:<11} {'FAILED' if layer in failed else 'passed'}" for layer in layers))
    return 1 if failed else 0


def _passes(clone: Path, layer: str, commands: list[list[str]]) -> bool:
    print(f"\n== {layer}", flush=True)
    begun = time.monotonic()
    passed = [not subprocess.run(command, cwd=clone, check=False).returncode for command in commands]
    print(f"== {layer}: {'passed' if all(passed) else 'FAILED'} in {time.monotonic() - begun:.0f} s", flush=True)
    return all(passed)
