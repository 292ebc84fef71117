"""`nacre bench` as it is typed, against a small cloud: what it measures, what it writes, and its one sentence when it cannot."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Running
from fake_node import FakeNode

PROGRAM = Path(__file__).resolve().parents[2] / "src" / "nacre"


def bench(*words: str, **credentials: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OS_")} | credentials
    command = [sys.executable, "-I", "-B", str(PROGRAM), "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)


def test_measures_any_endpoint_and_compares(running: Running, node: FakeNode, tmp_path: Path) -> None:
    admin = {"OS_USERNAME": "admin", "OS_PASSWORD": "secret"}
    url, file = f"{running.url}/identity/v3", tmp_path / "told.json"
    done = bench("token-appcred", "validate", "network", "--seconds", "0.1", "--against", url, "--against", url, "--json", str(file), **admin)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(file.read_text())
    assert {"cpu", "cores", "kernel", "commit"} <= told["machine"].keys()
    assert [endpoint["url"] for endpoint in told["endpoints"]] == [url, url]
    rows = told["endpoints"][0]["rows"]
    assert {row["scenario"] for row in rows} >= {"token by application credential", "validate token", "POST network", "add router interface"}
    for row in rows:
        assert row["value"] > 0 and row["errors"] == {} and row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    asked = {(row["connections"], row["kept"]) for row in rows if row["scenario"] == "validate token"}
    assert asked == {(1, True), (10, True), (16, True), (16, False)}
    ratios = done.stdout.partition("compared with")[2].splitlines()[1:]
    assert len(ratios) == len(rows) and all(line.endswith(" x") for line in ratios)
    assert not running.http().get("/network/v2.0/networks").json()["networks"], "what was made is gone again"


@pytest.mark.parametrize(
    ("words", "password", "sentence"),
    [
        (("nosuch",), "secret", "There is no scenario nosuch"),
        (("validate",), "wrong", "does not accept the password of admin"),
        (("validate", "--json", "/nowhere/at/all"), "secret", "cannot be written"),
        (("burst",), "secret", "has no image to make servers of"),
    ],
)
def test_what_cannot_be_is_one_sentence(running: Running, words: tuple[str, ...], password: str, sentence: str) -> None:
    done = bench(*words, "--against", f"{running.url}/identity/v3", OS_USERNAME="admin", OS_PASSWORD=password)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and sentence in done.stderr, done.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v3", "nonsense"])
def test_nobody_there_is_one_sentence(url: str) -> None:
    done = bench("validate", "--against", url, OS_USERNAME="admin", OS_PASSWORD="x")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("nacre: "), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_a_signal_is_one_sentence(running: Running, number: signal.Signals) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OS_")} | {"OS_USERNAME": "admin", "OS_PASSWORD": "secret"}
    command = [sys.executable, "-I", "-B", str(PROGRAM), "bench", "validate", "--seconds", "60", "--against", f"{running.url}/identity/v3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        while "errors" not in process.stdout.readline():
            pass
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (1, f"nacre: ended by {number.name}; no throwaway cloud is left.\n")
