"""What was rendered before is shown as long as what it is made of is equal, and not a moment longer."""

import msgspec

from nacre.core.rendered import Rendered


def test_rendered_once_while_it_is_equal() -> None:
    known, made = Rendered[dict[str, int]](10), list[dict[str, int]]()

    def render(of: dict[str, int]) -> dict[str, int]:
        made.append(of)
        return {"shown": of["n"]}

    shown = [known.json("a", {"n": n}, render) for n in (1, 1, 2, 2, 1)]
    assert msgspec.json.encode({"all": shown}) == b'{"all":[{"shown":1},{"shown":1},{"shown":2},{"shown":2},{"shown":1}]}'
    assert [of["n"] for of in made] == [1, 2, 1]
    assert bytes(known.json("b", {"n": 1}, render)) == b'{"shown":1}' and len(made) == 4, "each key by itself"


def test_no_more_than_the_most_are_remembered() -> None:
    known, made = Rendered[int](3), list[int]()
    for number in (1, 2, 3, 4, 4, 3, 1):
        known.json(number, number, lambda of: made.append(of) or of)
    assert made == [1, 2, 3, 4, 1]


def test_what_is_large_is_not_remembered() -> None:
    known, made = Rendered[str](10), list[str]()
    for _ in range(2):
        assert len(bytes(known.json("a", "x" * 40_000, lambda of: made.append(of) or of))) == 40_002
    assert len(made) == 2
