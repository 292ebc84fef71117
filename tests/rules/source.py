"""The source tree as the rules read it: parsed once."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "nacre"
SERVICES = (
    "identity", "image", "placement", "compute", "network", "volume", "object_store", "orchestration", "telemetry", "load_balancer",
    "dashboard",
)  # fmt: skip


@dataclass(frozen=True)
class Module:
    """`name` without the leading package, as "core.http"; `imports` likewise, of our own modules at any depth of the file."""

    name: str
    path: Path
    lines: int
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, text.count("\n"), ast.parse(text)))
    return tuple(found)


@cache
def names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def imports(module: Module, *, typing_too: bool = False) -> dict[str, int]:
    """Our modules that `module` imports, with a line each; what is only for the type checker is left out unless asked for."""
    found: dict[str, int] = {}
    skipped = set() if typing_too else {id(inner) for node in ast.walk(module.tree) if _for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(module.tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.update((_target(node.module, alias.name), node.lineno) for alias in node.names)
    return {name.removeprefix("nacre."): line for name, line in found.items() if name.startswith("nacre.")}


def _target(module: str, name: str) -> str:
    whole = f"{module}.{name}".removeprefix("nacre.")
    return f"nacre.{whole}" if whole in names() else module


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
