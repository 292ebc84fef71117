"""Expressions of users are bounded before they are followed."""

import pytest

from nacre.core.patterns import checked

PLAIN = ("web", "^web", "web.*prod", "^web.*prod.*$", ".*foo.*", "a{2,5}b", "[a-z]+-[0-9]+", "(web|db)-01", "^(web|db).?[0-9]+$", "(ab){3}", "",
         "10\\.9\\.", "(?i)WEB")  # fmt: skip
HOSTILE = ("(a+)+$", "(a*)*b", "((a|b)*c)*", "(a|aa)+$", "(.*)*x", "(a{1,50}){1,50}$", ".*.*.*x", "a?" * 30 + "a" * 30, "(?:a?){30}a{30}",
           "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y", "(?=(a+)+b)", "^(a?b?){20}$")  # fmt: skip
WRONG = ("(", "[a", "*a", "a{99999999999}", "(" * 500)


@pytest.mark.parametrize("text", PLAIN)
def test_what_people_ask_for_is_taken(text: str) -> None:
    assert checked(text).pattern == text


@pytest.mark.parametrize("text", HOSTILE)
def test_what_would_never_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too complex"):
        checked(text)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="regex"):
        checked(text)


def test_the_worst_that_is_taken_ends() -> None:
    for text in (".*.*!", "^.*.*.*!", "[a-z]*[a-z]*!", "^a*a*a*!"):
        assert checked(text).search("a" * 255) is None
