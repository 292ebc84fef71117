"""Why a rule allows or refuses: the same walk as the compiled closures make, but told.

Of an `or` that holds, the first part that does decides; of one that does not, all of them. Of an `and` it is the other way round. A step is one
check with the rule that it stands in and where that is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nacre.core.policy import Always, Atom, Credentials, Expression, Negation, Policy, Target, Tree, Written, alone, parse


@dataclass(frozen=True)
class Step:
    """`expression`: the whole rule, as it is written."""

    check: str
    holds: bool
    rule: str
    where: str
    expression: Expression


def explain(policy: Policy, rule: str, target: Target, credentials: Credentials) -> tuple[bool, list[Step]]:
    """The verdict, and the steps that decided. Raises KeyError for a rule that nobody defined."""
    known = {name: value for name, value in target.items() if value is not None}
    return _Walk(policy.written, known, credentials).rule(rule)


class _Walk:
    def __init__(self, table: Mapping[str, Written], target: Target, credentials: Credentials) -> None:
        self._table, self._target, self._credentials = table, target, credentials

    def rule(self, name: str) -> tuple[bool, list[Step]]:
        return self._tree(parse(self._table[name].expression), name)

    def _step(self, name: str, check: str, *, holds: bool) -> tuple[bool, list[Step]]:
        written = self._table[name]
        return holds, [Step(check, holds, name, written.where, written.expression)]

    def _tree(self, tree: Tree, name: str) -> tuple[bool, list[Step]]:
        match tree:
            case Always(verdict):
                return self._step(name, "@" if verdict else "!", holds=verdict)
            case Negation(part):
                holds, steps = self._tree(part, name)
                return not holds, steps
            case Atom("rule", match):
                other = match if match in self._table else "default"
                return self.rule(other) if other in self._table else self._step(name, f"rule:{match}", holds=False)
            case Atom(kind, match):
                return self._step(name, f"{kind}:{match}", holds=alone(tree)(self._target, self._credentials))
        decided: list[Step] = []
        for part in tree.parts:
            holds, steps = self._tree(part, name)
            if holds is not tree.every:
                return holds, steps
            decided += steps
        return tree.every, decided


def told(verdict: tuple[bool, list[Step]]) -> dict[str, Any]:
    """For programs; each step once."""
    allowed, steps = verdict
    once = {(step.check, step.rule): {**vars(step), "expression": str(step.expression)} for step in steps}
    return {"allowed": allowed, "steps": list(once.values())}
