"""Access rules of an application credential: the requests that its tokens are good for.

A rule names a service's type, a method and a pattern of paths, in which `*` and `{tag}` stand for a part without a slash and `**` for
anything. The path is the one that the request was routed by, with and without what the service is mounted under, so that a rule written
for `https://cloud/compute/v2.1/servers` and one for `https://cloud:8774/v2.1/servers` mean the same. Validating a token is always allowed.

Patterns are users' own, so they are not made into regular expressions, which some make run for minutes: `matches` follows all readings
of a pattern at once, as the bits of a number, in one pass over the path.
Source: keystonemiddleware's configuration, "Access rules".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from nacre.core.errors import Unauthorized

LONGEST = 2048
_PARTS = re.compile(r"\{[^}]*\}|\*\*(?:\*\*)*|\*|.", re.DOTALL)


def permit(credential: Mapping[str, Any], service: str, prefix: str, method: str, segments: Sequence[str]) -> None:
    """`credential`: as tokens show it; `segments`: of the path below `prefix`. Raises Unauthorized."""
    rules = credential.get("access_rules")
    if not rules:
        return
    path = "".join(f"/{quote(part, safe=_UNQUOTED)}" for part in segments if part) or "/"
    if service == "identity" and method == "GET" and path == "/v3/auth/tokens":
        return
    for rule in rules:
        if rule["service"] == service and rule["method"] == method and (matches(rule["path"], path) or matches(rule["path"], prefix + path)):
            return
    raise Unauthorized(f"No access rule of application credential {credential['id']} allows {method} {path[:200]} of {service}.")


_UNQUOTED = "~:@!$&'()*+,;="  # what a client may leave as it is in a path


@dataclass(frozen=True)
class _Pattern:
    """Its parts as bits, the first part lowest: where `**` and `*` are, where each literal character is, and the place behind the last."""

    many: int
    some: int
    literal: Mapping[str, int]
    end: int


@lru_cache(maxsize=1024)
def _parsed(text: str) -> _Pattern:
    many, some, literal, bit = 0, 0, dict[str, int](), 1
    for part in _PARTS.findall(text if text == "/" else text.rstrip("/")):
        if part.startswith("**"):
            many |= bit
        elif part == "*" or (len(part) > 1 and part.startswith("{")):
            some |= bit
        else:
            literal[part] = literal.get(part, 0) | bit
        bit <<= 1
    return _Pattern(many, some, literal, bit)


def matches(text: str, path: str) -> bool:
    """Whether the whole path is one that the pattern describes."""
    if len(path) > LONGEST:
        return False
    pattern, at = _parsed(text), 1
    for character in path:
        at |= (at & pattern.many) << 1  # `**` may take nothing
        wild = at & pattern.some if character != "/" else 0
        at = (at & pattern.many) | wild | (wild | at & pattern.literal.get(character, 0)) << 1
        if not at:
            return False
    return bool((at | (at & pattern.many) << 1) & pattern.end)
