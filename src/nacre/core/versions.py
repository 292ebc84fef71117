"""Microversions: which one a request asks for, and bodies derived per version.

A body is declared once, as a class whose fields say since and until which microversion they exist:

    class CreateServer:
        name: Name
        description: Annotated[str | None | UnsetType, since(2, 19)] = UNSET

`Body("server", CreateServer)` decodes `{"server": {...}}` into a msgspec struct derived for the request's version: an unknown field
at that version is a 400 that names it. Services without microversions use the same face with no `since`.
Source: OpenStack API working group, "Microversion Specification".
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from nacre.core.errors import BadRequest, NotAcceptable

Version = tuple[int, int]
ALWAYS: Version = (0, 0)
UNSET = msgspec.UNSET
UnsetType = msgspec.UnsetType


class since:
    """Marks a body's field: first version it exists in, and the last one (`until`) if it went."""

    def __init__(self, major: int, minor: int, until: Version | None = None) -> None:
        self.first, self.last = (major, minor), until


_EVER = since(0, 0)


def _window(hint: Any) -> since:
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, since)), _EVER)


def _windows(hint: Any) -> Iterator[since]:
    """The windows of a shape's fields, those of shapes inside it included."""
    if isinstance(hint, type) and not get_args(hint):
        for inner in get_type_hints(hint, include_extras=True).values():
            yield _window(inner)
            yield from (found for part in _parts(inner) for found in _windows(part))


def _parts(hint: Any) -> Iterator[type]:
    """The versioned shapes named in a type."""
    if getattr(hint, "__versioned__", False):
        yield hint
    for argument in get_args(hint):
        yield from _parts(argument)


class Body:
    """The wire shape of a request: `{wrapper: {...}}`, or the bare object when `wrapper` is None."""

    def __init__(self, wrapper: str | None, shape: type, *, lax: bool = True, extra: bool = False) -> None:
        self.wrapper, self.shape, self.lax, self.extra = wrapper, shape, lax, extra
        windows = list(_windows(shape))
        self._edges = sorted({ALWAYS} | {w.first for w in windows} | {(w.last[0], w.last[1] + 1) for w in windows if w.last})
        self._derive = functools.cache(self._derived)

    def _derived(self, edge: Version) -> Any:
        kind = derive(self.shape, edge, forbid_unknown=not self.extra)
        if self.wrapper is None:
            return msgspec.json.Decoder(kind, strict=not self.lax)
        inner, wrapped = self.shape.__name__ + "Body", {"inner": self.wrapper}
        outer = msgspec.defstruct(inner, [("inner", kind)], forbid_unknown_fields=not self.extra, rename=wrapped)
        return msgspec.json.Decoder(outer, strict=not self.lax)

    def decode(self, raw: bytes, version: Version) -> Any:
        """The body as an object with the shape's fields. Raises BadRequest naming the field."""
        edge = max(edge for edge in self._edges if edge <= max(version, ALWAYS))
        try:
            value = self._derive(edge).decode(raw or b"null")
        except msgspec.ValidationError as error:
            raise BadRequest(explain(str(error), raw)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"Malformed request body: {error}") from error
        return value if self.wrapper is None else value.inner


def derive(shape: type, version: Version, *, forbid_unknown: bool = True) -> type[msgspec.Struct]:
    """`shape` as a msgspec struct with only the fields of `version`; nested shapes marked by `versioned` likewise. A struct is itself."""
    if issubclass(shape, msgspec.Struct):
        return shape
    required, optional = [], []
    for name, hint in get_type_hints(shape, include_extras=True).items():
        window = _window(hint)
        if window.first <= version and (window.last is None or version <= window.last):
            field = _inner(hint, version)
            if hasattr(shape, name):
                optional.append((name.rstrip("_"), field, getattr(shape, name)))
            else:
                required.append((name.rstrip("_"), field))
    rename = getattr(shape, "__rename__", {})
    return msgspec.defstruct(shape.__name__, [*required, *optional], forbid_unknown_fields=forbid_unknown, rename=rename or None)


def _inner(hint: Any, version: Version) -> Any:
    if isinstance(hint, type) and getattr(hint, "__versioned__", False):
        return derive(hint, version)
    arguments = get_args(hint)
    if not arguments or get_origin(hint) is None:
        return hint
    if get_origin(hint) is Annotated:
        marks = tuple(mark for mark in hint.__metadata__ if not isinstance(mark, since))
        inner = _inner(arguments[0], version)
        return Annotated[(inner, *marks)] if marks else inner
    changed = tuple(_inner(argument, version) for argument in arguments)
    if changed == arguments:
        return hint
    if get_origin(hint) in (list, dict, tuple):
        return get_origin(hint)[changed if len(changed) > 1 else changed[0]]
    return functools.reduce(lambda left, right: left | right, changed)


def versioned(shape: type) -> type:
    """Marks a shape used inside another body, so that its fields follow the version too."""
    shape.__versioned__ = True  # type: ignore[attr-defined]
    return shape


_WHERE = re.compile(r" - at `\$\.?(?:\[\.\.\.\])?(.*?)`$")


def explain(message: str, raw: bytes) -> str:
    """A decoder's complaint in upstream's words, naming the field."""
    if not raw:
        return "The request has no body."
    where = _WHERE.search(message)
    field = (where.group(1) if where else "").replace("[...]", "[]")
    what = _WHERE.sub("", message)
    missing = re.search(r"missing required field `(.*?)`", what)
    unknown = re.search(r"unknown field `(.*?)`", what)
    if missing:
        return f"Invalid input for field/attribute {field or 'body'}. '{missing.group(1)}' is a required property"
    if unknown:
        name = unknown.group(1)
        return f"Invalid input for field/attribute {field or 'body'}. Additional properties are not allowed ('{name}' was unexpected)"
    return f"Invalid input for field/attribute {field or 'body'}. {what}"


class Microversions:
    """What a service offers: `service` is its name in the header ("compute"), `low` and `high` the range, `legacy` an old header."""

    def __init__(self, service: str, low: Version, high: Version, legacy: str = "") -> None:
        self.service, self.low, self.high, self.legacy = service, low, high, legacy

    def asked(self, headers: Mapping[str, str]) -> Version:
        """The request's version. Raises BadRequest (malformed) and NotAcceptable (not offered)."""
        text = ""
        for part in headers.get("openstack-api-version", "").split(","):
            words = part.split()
            if len(words) == 2 and words[0].lower() == self.service:
                text = words[1]
        text = text or (headers.get(self.legacy.lower(), "") if self.legacy else "")
        if not text:
            return self.low
        if text == "latest":
            return self.high
        match = re.fullmatch(r"([1-9]\d*)\.([1-9]\d*|0)", text.strip())
        if match is None:
            raise BadRequest(f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum.",
                             kind="InvalidAPIVersionString")  # fmt: skip
        version = (int(match[1]), int(match[2]))
        if not self.low <= version <= self.high:
            offered = f"Minimum is {show(self.low)} and maximum is {show(self.high)}."
            raise NotAcceptable(f"Version {text} is not supported by the API. {offered}", kind="InvalidGlobalAPIVersion")
        return version

    def headers(self, version: Version) -> dict[str, str]:
        both = {"openstack-api-version": f"{self.service} {show(version)}", "vary": "OpenStack-API-Version"}
        return both | ({self.legacy.lower(): show(version), "vary": f"OpenStack-API-Version, {self.legacy}"} if self.legacy else {})


def show(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
