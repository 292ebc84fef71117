"""`./nacre conformance` as it is typed: ended by a signal it leaves nothing of its cloud, and what it cannot do it says in a sentence."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.machine, pytest.mark.long]


def start(*words: str, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([str(ROOT / "nacre"), "conformance", "--fake", "--out", str(out), *words], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)  # fmt: skip


def clouds() -> set[Path]:
    return set(Path("/tmp").glob("nacre-conformance-*"))


def processes(home: Path) -> list[str]:
    found = subprocess.run(["pgrep", "-af", "--", f"--home {home}"], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def test_one_test_and_its_report(tmp_path: Path) -> None:
    before = clouds()
    run = start("--smoke", r"identity\.v3\.test_api_discovery.*media", out=tmp_path)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert re.fullmatch(r"all: 1 passed, 0 failed, 0 skipped in \d+ s", said.splitlines()[-1])
    assert json.loads((tmp_path / "results.json").read_text())["fake"] is True and (tmp_path / "junit.xml").exists()
    assert clouds() == before


@pytest.mark.parametrize("listening", [True, False], ids=["heard", "to nobody"])
def test_a_signal_ends_it_and_nothing_is_left(tmp_path: Path, listening: bool) -> None:
    before = clouds()
    run = start("--smoke", "identity", out=tmp_path)
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "tempest" / "chosen.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        (home,) = clouds() - before
        assert processes(home)
    finally:
        if not listening:
            run.stdout.close()  # type: ignore[union-attr]
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=120)[0] if listening else str(run.wait(120))
    assert run.returncode == 1 and (not listening or "ended by SIGTERM" in said.splitlines()[-1]), said
    assert clouds() == before and not processes(home)


@pytest.mark.parametrize(
    ("words", "why"),
    [(("[",), "regular expression"), (("--service", "nothing"), "no such test"), (("--list-failures",), "no report"),
     (("--smoke", "--service", "image"), "not both")],
)  # fmt: skip
def test_what_it_cannot_do_is_a_sentence(tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    run = start(*words, out=tmp_path / "out")
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 1 and why in said.splitlines()[-1] and "Traceback" not in said
