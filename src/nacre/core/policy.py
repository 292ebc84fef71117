"""Who may do what: the rule language of oslo.policy, compiled once.

An expression becomes a small tree (Always, Atom, Negation, Junction) and the tree a closure `(target, credentials) -> bool`. Equal
expressions share a closure and a `rule:x` holds the closure of x itself, so a check costs one dictionary read and a few calls, and a
cycle is found while compiling. Verdicts are those of oslo.policy, oddities included: target keys are flat (`%(target.user.id)s` reads
the key "target.user.id"), credentials are walked at the dots, both sides are compared as text, so None equals None. A `rule:` that
nobody defines is the rule "default", or False without one.

Stricter than oslo.policy where that denies silently, allows by accident or fails a request: what it cannot parse, a rule file's empty
value (it reads `"x":` as allow), formats other than %(key)s, `http:` checks and cycles are refused here, with file, rule and
position. A credential that cannot be walked further (`a.b` where a is None) is a missing one; there it is a TypeError.

`check` may run in many threads while one `refresh` compiles: the new table replaces the old one in one assignment. A file read while
somebody writes it is read again at the next refresh, since its size or time moved after the look taken before reading. A change that
cannot be used is logged once and the rules before it stay. A file that does not exist overrides nothing, from the moment it is gone.
"""

import ast
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

Target = Mapping[str, Any]
Credentials = Mapping[str, Any]
Verdict = Callable[[Target, Credentials], bool]
Expression = str | list[str | list[str]]
Signature = tuple[int, int, int] | None

_log = logging.getLogger("nacre.policy")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORD = re.compile(r"\S+")
_SUBSTITUTION = re.compile(r"%(?:%|\([^()]*\)s)")
_WHOLE = re.compile(r"%\(([^()]*)\)s")
_TEXT = "tag:yaml.org,2002:str"


class PolicyError(Exception):
    """A rule cannot be used. `where` is a file with its line or the built-in defaults; `rule` and `position` (from 1, in the
    expression) are None when the file as a whole is meant."""

    def __init__(self, where: str, reason: str, rule: str | None = None, position: int | None = None) -> None:
        self.where, self.rule, self.position, self.reason = where, rule, position, reason
        named = f' rule "{rule}":' if rule is not None else ""
        placed = f" at character {position}:" if position is not None else ""
        super().__init__(f"{where}:{named}{placed} {reason}")


class _Unusable(Exception):
    """An expression is wrong at `position`, None for the whole of it."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.position = position


@dataclass(frozen=True)
class Always:
    verdict: bool


@dataclass(frozen=True)
class Atom:
    """`kind:match`."""

    kind: str
    match: str
    position: int


@dataclass(frozen=True)
class Negation:
    part: "Tree"


@dataclass(frozen=True)
class Junction:
    """`and` (every) or `or` (not every) over two parts or more."""

    every: bool
    parts: "tuple[Tree, ...]"


Tree = Always | Atom | Negation | Junction


# Text to tree


def _atom(word: str, position: int) -> Always | Atom:
    if word in ("@", "!"):
        return Always(word == "@")
    kind, colon, match = word.partition(":")
    if not colon:
        raise _Unusable(f"{word!r} is no check: kind:match, @ and ! are", position)
    if kind in ("http", "https"):
        raise _Unusable(f"{kind}: checks are not supported, a verdict may not wait for another server", position)
    if kind != "rule" and "%" in _SUBSTITUTION.sub("", match):
        raise _Unusable(f"{word!r}: the only substitution is %(key)s, and %% is a percent sign", position)
    return Atom(kind, match, position)


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Words, and the parentheses at their outer ends, with the position of each. Parentheses inside a word belong to it."""
    for found in _WORD.finditer(text):
        word, position = found.group(), found.start() + 1
        inner = word.lstrip("(")
        for offset in range(len(word) - len(inner)):
            yield "(", position + offset
        position += len(word) - len(inner)
        bare = inner.rstrip(")")
        if bare:
            if len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "'\"":
                raise _Unusable(f"{inner} is a quoted word, not a check", position)
            yield bare, position
        for offset in range(len(bare), len(inner)):
            yield ")", position + offset


class _Parser:
    """Recursive descent: `or` binds loosest, then `and`, then `not`; the three words in any case."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text), ("", len(text) + 1)]
        self._next = 0

    def tree(self) -> Tree:
        tree = self._junction("or")
        if self._token[0]:
            raise self._unexpected("and, or, or the end")
        return tree

    @property
    def _token(self) -> tuple[str, int]:
        return self._tokens[self._next]

    def _unexpected(self, wanted: str) -> _Unusable:
        word, position = self._token
        return _Unusable(f"{word!r} where {wanted} should stand" if word else f"it ends where {wanted} should stand", position)

    def _junction(self, word: str) -> Tree:
        parts = [self._part(word)]
        while self._token[0].lower() == word:
            self._next += 1
            parts.append(self._part(word))
        return parts[0] if len(parts) == 1 else Junction(word == "and", tuple(parts))

    def _part(self, word: str) -> Tree:
        return self._junction("and") if word == "or" else self._negation()

    def _negation(self) -> Tree:
        word, position = self._token
        if word.lower() in ("", ")", "and", "or"):
            raise self._unexpected("a check")
        self._next += 1
        if word.lower() == "not":
            return Negation(self._negation())
        if word != "(":
            return _atom(word, position)
        inner = self._junction("or")
        if self._token[0] != ")":
            raise self._unexpected("and, or, or )")
        self._next += 1
        return inner


def parse(expression: Expression) -> Tree:
    """The tree of an expression in the language, or in the older form: a list (or) of checks or of lists (and) of checks."""
    if isinstance(expression, str):
        return _Parser(expression).tree() if expression else Always(True)
    alternatives: list[Tree] = []
    for inner in filter(None, expression):
        checks = tuple(_atom(word, 1) for word in ([inner] if isinstance(inner, str) else inner))
        alternatives.append(checks[0] if len(checks) == 1 else Junction(True, checks))
    if not alternatives:
        return Always(not expression)
    return alternatives[0] if len(alternatives) == 1 else Junction(False, tuple(alternatives))


# Tree to closure


def _wanted(match: str) -> Callable[[Target], str | None]:
    """What a check with a substitution compares with; None when the target lacks the key."""
    whole = _WHOLE.fullmatch(match)
    key = whole[1] if whole else ""

    def one_key(target: Target) -> str | None:
        try:
            return str(target[key])
        except KeyError:
            return None

    def template(target: Target) -> str | None:
        try:
            return match % target
        except KeyError:
            return None

    return one_key if whole else template


def _role(match: str) -> Verdict:
    if "%" not in match:
        fixed = match.lower()

        def has_fixed(_: Target, credentials: Credentials) -> bool:
            return fixed in [role.lower() for role in credentials.get("roles") or ()]

        return has_fixed
    wanted = _wanted(match)

    def has_wanted(target: Target, credentials: Credentials) -> bool:
        name = wanted(target)
        return name is not None and name.lower() in [role.lower() for role in credentials.get("roles") or ()]

    return has_wanted


def _credential(kind: str) -> Callable[[Credentials, str], bool]:
    """Whether the credential at a dotted path equals a text. In a list on the way, or at its end, one element is enough."""
    first, *rest = kind.split(".")
    path = tuple(rest)

    def holds(value: Any, depth: int, text: str) -> bool:
        if depth == len(path):
            return str(value) == text
        try:
            value = value[path[depth]]
        except (KeyError, TypeError):
            return False
        if isinstance(value, list):
            return any(holds(element, depth + 1, text) for element in value)
        return holds(value, depth + 1, text)

    def equals(credentials: Credentials, text: str) -> bool:
        if first not in credentials:
            return False
        value = credentials[first]
        if isinstance(value, list):
            return any(holds(element, 0, text) for element in value)
        return holds(value, 0, text)

    def system(credentials: Credentials, text: str) -> bool:
        scope = credentials.get("system_scope")
        return equals({"system": scope} if scope else credentials, text)

    return system if first == "system" else equals


def _generic(atom: Atom) -> Verdict:
    fixed = atom.match % {} if not _WHOLE.search(atom.match.replace("%%", "")) else None
    wanted = _wanted(atom.match)
    try:
        literal = str(ast.literal_eval(atom.kind))
    except ValueError:
        equals = _credential(atom.kind)
        if fixed is not None:
            return lambda _, credentials: equals(credentials, fixed)

        def compare(target: Target, credentials: Credentials) -> bool:
            text = wanted(target)
            return text is not None and equals(credentials, text)

        return compare
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        raise _Unusable(f"{atom.kind!r} is neither a credential's name nor a literal", atom.position) from None
    return lambda target, _: wanted(target) == literal


def _field(match: str, position: int) -> Verdict:
    """The network service's own check, `field:resource:attribute=value` or `=~regular expression`: an attribute of the target."""
    found = re.fullmatch(r"[^:]+:([^=]+)=(.*)", match)
    if found is None:
        raise _Unusable(f"'field:{match}' is not field:resource:attribute=value", position)
    name, value = found.groups()
    if not value.startswith("~"):
        return lambda target, _: target.get(name) is not None and str(target[name]) == value
    try:
        pattern = re.compile(value[1:])
    except re.error as error:
        raise _Unusable(f"'field:{match}': {error}", position) from None
    return lambda target, _: target.get(name) is not None and pattern.match(str(target[name])) is not None


def _junction(every: bool, parts: Sequence[Verdict]) -> Verdict:
    if len(parts) == 2:
        a, b = parts
        if every:
            return lambda target, credentials: a(target, credentials) and b(target, credentials)
        return lambda target, credentials: a(target, credentials) or b(target, credentials)

    def together(target: Target, credentials: Credentials) -> bool:
        for part in parts:
            if part(target, credentials) is not every:
                return not every
        return every

    return together


def _negated(part: Verdict) -> Verdict:
    return lambda target, credentials: not part(target, credentials)


def _allow(_: Target, __: Credentials) -> bool:
    return True


def _deny(_: Target, __: Credentials) -> bool:
    return False


@dataclass(frozen=True)
class Written:
    """An expression and where it stands."""

    expression: Expression
    where: str


class _Compiler:
    """Compiles a whole table, referenced rules first. `used` are the names that some rule refers to."""

    def __init__(self, table: Mapping[str, Written]) -> None:
        self._table = table
        self._shared: dict[str, Verdict] = {}
        self._open: list[str] = []
        self.done: dict[str, Verdict] = {}
        self.used: set[str] = set()

    def rule(self, name: str) -> Verdict:
        """Raises PolicyError."""
        if name in self.done:
            return self.done[name]
        written = self._table[name]
        if name in self._open:
            circle = " -> ".join([*self._open[self._open.index(name) :], name])
            raise PolicyError(written.where, f"refers to itself: {circle}", name)
        self._open.append(name)
        try:
            verdict = self._expression(written.expression)
        except _Unusable as error:
            raise PolicyError(written.where, str(error), name, error.position) from error
        except RecursionError:
            raise PolicyError(written.where, "nested too deeply", name) from None
        self._open.pop()
        self.done[name] = verdict
        return verdict

    def _expression(self, expression: Expression) -> Verdict:
        if not isinstance(expression, str):
            return self._tree(parse(expression))
        if expression not in self._shared:
            self._shared[expression] = self._tree(parse(expression))
        return self._shared[expression]

    def _tree(self, tree: Tree) -> Verdict:
        match tree:
            case Always(verdict):
                return _allow if verdict else _deny
            case Negation(part):
                return _negated(self._tree(part))
            case Junction(every, parts):
                return _junction(every, [self._tree(part) for part in parts])
            case Atom("rule", name):
                self.used.add(name)
                known = name if name in self._table else "default"
                return self.rule(known) if known in self._table else _deny
            case Atom("role", match):
                return _role(match)
            case Atom("field", match):
                return _field(match, tree.position)
        return _generic(tree)


def alone(check: Atom) -> Verdict:
    """The verdict of one check that is no reference to a rule."""
    return _Compiler({})._tree(check)


# Files


def _line(path: Path, node: Any) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _value(path: Path, name: str, node: Any) -> Expression:
    """A text, or a list of texts and lists of texts."""

    def text(part: Any) -> str:
        if part.tag != _TEXT or (part.value == "" and not part.style):
            raise PolicyError(_line(path, part), 'a rule is a text or a list of lists of texts; "" allows everybody, "!" nobody', name)
        return str(part.value)

    if not isinstance(node, yaml.SequenceNode):
        return text(node)
    return [[text(part) for part in inner.value] if isinstance(inner, yaml.SequenceNode) else text(inner) for inner in node.value]


def read_file(path: Path, content: bytes) -> dict[str, Written]:
    """The rules of a policy file, YAML or JSON (which YAML contains). The last of equal names wins. Raises PolicyError."""
    try:
        loader = _LOADER(content.decode("utf-8-sig"))
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise PolicyError(_line(path, root), "a policy file is a mapping of rule names to expressions")
        loader.flatten_mapping(root)
    except (UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(str(path), str(error)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise PolicyError(where, getattr(error, "problem", None) or str(error)) from error
    rules: dict[str, Written] = {}
    for key, value in root.value:
        if key.tag != _TEXT:
            raise PolicyError(_line(path, key), "a rule's name is a text")
        rules[key.value] = Written(_value(path, key.value, value), _line(path, key))
    return rules


def _signature(path: Path) -> Signature:
    """Changes when the file does; None when there is none. Raises OSError."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


class Policy:
    """The rules in force: `defaults` (name -> expression), overridden by `files` in their order.

    Raises PolicyError when a default or a file cannot be used.
    """

    def __init__(self, defaults: Mapping[str, str], files: Sequence[Path] = ()) -> None:
        self._defaults = {name: Written(expression, "built-in defaults") for name, expression in defaults.items()}
        self._files = tuple(files)
        self._refreshing = threading.Lock()
        self._seen = self._look()
        self.written: Mapping[str, Written] = {}
        self._rules = self._compile()

    def check(self, rule: str, target: Target, credentials: Credentials) -> bool:
        """Whether `rule` allows it; a rule that nobody defined is "default", or no."""
        rules = self._rules
        verdict = rules.get(rule) or rules.get("default")
        return verdict is not None and verdict(target, credentials)

    def refresh(self) -> None:
        """Takes up changed files: a stat of each when nothing changed. Returns at once while another thread is at it."""
        if not self._files or not self._refreshing.acquire(blocking=False):
            return
        try:
            seen = self._look()
            if seen == self._seen:
                return
            self._seen = seen
            self._rules = self._compile()
            _log.info("policy rules taken up again: %s", ", ".join(map(str, self._files)))
        except PolicyError as error:
            _log.error("policy change refused, the rules before it stay in force: %s", error)
        finally:
            self._refreshing.release()

    def _look(self) -> tuple[Signature | str, ...]:
        def look(path: Path) -> Signature | str:
            try:
                return _signature(path)
            except OSError as error:
                return str(error)

        return tuple(look(path) for path in self._files)

    def _compile(self) -> dict[str, Verdict]:
        table = dict(self._defaults)
        overrides: dict[str, Written] = {}
        for path in self._files:
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise PolicyError(str(path), error.strerror or str(error)) from error
            overrides.update(read_file(path, content))
        table.update(overrides)
        compiler = _Compiler(table)
        for name in table:
            compiler.rule(name)
        for name in overrides.keys() - self._defaults.keys() - compiler.used - {"default"}:
            _log.warning("%s: nothing asks for the rule %r", overrides[name].where, name)
        self.written = table
        return compiler.done
