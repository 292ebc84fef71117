"""Regular expressions of users, which Python's `re` might follow for longer than anybody lives, holding the interpreter all the while.

How often it tries is the product of the lengths that each repeat may take, and without bound where one stands inside another. So a repeat
holds neither repeats nor alternatives, and there are three of them at most, an open beginning being one: some 10 ms for a name of 255 letters.
"""

import re
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MOST = 3
_REPEATS = (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT)


def checked(text: str) -> re.Pattern[str]:
    """The expression. Raises ValueError with the reason why it cannot be used."""
    try:
        found, tree = re.compile(text), parser.parse(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError("is not a 'regex'") from error
    anchored = bool(tree.data) and tree.data[0] in ((code.AT, code.AT_BEGINNING), (code.AT, code.AT_BEGINNING_STRING))
    if _repeats(tree.data, inside=False) + (not anchored) > MOST:
        raise ValueError(f"is too complex a 'regex': at most {MOST} repeats, none inside another, an open beginning counts as one")
    return found


def _repeats(items: Any, *, inside: bool) -> int:
    """How many parts may take more than one length; more than MOST for what stands inside a repeat."""
    count = 0
    for operation, argument in items:
        if operation in _REPEATS:
            least, most, part = argument
            varies = least != most
            count += (varies and (MOST + 1 if inside else 1)) + _repeats(part, inside=inside or most > 1)
        elif operation is code.BRANCH:
            count += MOST + 1 if inside else max(_repeats(part, inside=inside) for part in argument[1])
        elif operation is code.SUBPATTERN:
            count += _repeats(argument[-1], inside=inside)
        elif operation in (code.ASSERT, code.ASSERT_NOT):
            count += _repeats(argument[1], inside=inside)
        elif operation is code.ATOMIC_GROUP:
            count += _repeats(argument, inside=inside)
        elif operation is code.GROUPREF_EXISTS:
            count += sum(_repeats(part, inside=inside) for part in argument[1:] if part is not None)
    return count
