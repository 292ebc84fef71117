"""Access rules: which paths a pattern describes, whatever the pattern."""

import time

import pytest

from nacre.core.access import LONGEST, matches


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [("/v2.1/servers", "/v2.1/servers", True), ("/v2.1/servers", "/v2x1/servers", False), ("/v2.1/servers", "/v2.1/servers/1", False),
     ("/v2.1/servers/", "/v2.1/servers", True), ("/", "/", True), ("/v2.1/*", "/v2.1/servers", True), ("/v2.1/*", "/v2.1/", False),
     ("/v2.1/*", "/v2.1/servers/1", False), ("/v2.1/**", "/v2.1/servers/1", True), ("/v2.1/**", "/v2.1/", True), ("/**", "/anything/at/all", True),
     ("/v2.1/{project_id}/servers", "/v2.1/abc/servers", True), ("/v2.1/{project_id}/servers", "/v2.1/a/b/servers", False),
     ("/v2.1/**/interface", "/v2.1/a/b/interface", True), ("/a*c", "/abbc", True), ("/a*c", "/ac", False),
     ("/*/*", "/a/b", True), ("/a.*", "/ab", False), ("/(a|b)+", "/a", False), ("/{}", "/a", True), ("/{", "/{", True),
     ("/***", "/a", True), ("/******", "/", True), ("/****b", "/a/b", True)],
)  # fmt: skip
def test_patterns(pattern: str, path: str, fits: bool) -> None:
    assert matches(pattern, path) == fits


def test_no_pattern_takes_long() -> None:
    started = time.process_time()
    for pattern in ("/" + "**a" * 70, "/" + "*a" * 100, "/" + "{a}" * 70):
        for _ in range(100):
            assert not matches(pattern, "/" + "a" * 2000 + "/b")
    assert time.process_time() - started < 5
    assert not matches("/**", "/" + "a" * LONGEST)
