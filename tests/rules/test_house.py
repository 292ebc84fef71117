"""Sizes, names and words of the source, and what ruff and mypy say of it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rules.source import ROOT, Module, modules

FILE_LINES, FUNCTION_LINES, PARAMETERS = 600, 80, 6
# Where bytes stream, sockets stay open, or a request waits for a node.
ASYNC = {
    "compute.api.actions", "core.connections", "core.consoles.meetings", "core.http", "core.joining", "core.serve", "core.node_api", "core.streams",
    "image.service.data", "image.service.snapshots", "node.metadata_child",
}  # fmt: skip
NEVER_A_NAME = {"utils", "util", "helpers", "helper", "misc"}
# Words of other places than this program's world; written in pieces so that this file does not hold them.
FORBIDDEN = re.compile(
    "|".join(rf"\b{word}\b" for word in ("chat" + "gpt", "clau" + "de", "anthro" + "pic", "open" + "ai", "co" + "pilot", "ll" + "m"))
    + "|" + "|".join(("/wo" + r"rk/(main|shared)", "/opt/" + "dev", "/opt/" + "pypi", "/tmp/" + "setup", r"\bA" + r"I (model|assistant|session)")),
    re.IGNORECASE,
)  # fmt: skip


def every(module: Module) -> str:
    return module.name or "nacre"


@pytest.mark.parametrize("module", modules(), ids=every)
def test_sizes(module: Module) -> None:
    grown = module.name.startswith("core.migrations.versions.")
    assert module.lines <= FILE_LINES or grown, f"{module.path} has {module.lines} lines: make it a folder with one module a resource."
    for function in module.functions():
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        assert length <= FUNCTION_LINES or grown, f"{module.path}:{function.lineno} {function.name} has {length} lines, at most {FUNCTION_LINES}."
        arguments = function.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        first = (arguments.posonlyargs + arguments.args)[:1]
        count -= bool(first) and first[0].arg in ("self", "cls")
        assert count <= PARAMETERS, f"{module.path}:{function.lineno} {function.name} takes {count} parameters, at most {PARAMETERS}."


@pytest.mark.parametrize("module", modules(), ids=every)
def test_names(module: Module) -> None:
    word = module.name.rpartition(".")[2]
    assert word not in NEVER_A_NAME, f"{module.path}: a name that says what is in it, please."


@pytest.mark.parametrize("module", modules(), ids=every)
def test_a_file_opens_with_its_account(module: Module) -> None:
    assert module.lines < 10 or ast.get_docstring(module.tree), f"{module.path} does not say how it works."


@pytest.mark.parametrize("module", modules(), ids=every)
def test_async_only_where_bytes_stream(module: Module) -> None:
    found = [function for function in module.functions() if isinstance(function, ast.AsyncFunctionDef)]
    allowed = any(module.name == name or module.name.startswith(name + ".") for name in ASYNC)
    assert allowed or not found, f"{module.path}:{found[0].lineno} {found[0].name} is async: plain functions in threads, elsewhere."


@pytest.mark.parametrize("module", modules(), ids=every)
def test_no_shell_strings(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            shell = any(word.arg == "shell" and not (isinstance(word.value, ast.Constant) and not word.value.value) for word in node.keywords)
            system = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ("os.system", "os.popen")
            assert not (shell or system), f"{module.path}:{node.lineno}: a host command is a list of arguments."


def texts() -> Iterator[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.splitlines() if not listed.returncode else [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    for name in names:
        path = ROOT / name
        if path.is_file() and path.suffix not in (".lock", ".qcow2", ".pyc") and ".git/" not in name:
            yield path


def test_words() -> None:
    for path in texts():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            assert not (found := FORBIDDEN.search(line)), f"{path}:{number} says {found[0]!r}, which is no matter of this program."


def test_locks_hold_hashes_and_no_addresses() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert locks
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text and "--index-url" not in text and "--find-links" not in text, f"{lock} names an address."
        for block in re.findall(r"^[a-z0-9][^\n]*==[^\n]*(?:\n    [^\n]*)*", text, re.MULTILINE | re.IGNORECASE):
            assert "--hash=sha256:" in block, f"{lock}: {block.splitlines()[0]} has no hash."


LINT, TYPES = ["ruff", "check", "--no-cache", "src", "tests"], ["mypy", "--cache-dir=.mypy_cache/rules"]


@pytest.mark.parametrize("command", [LINT, TYPES], ids=["ruff", "mypy"])
def test_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
