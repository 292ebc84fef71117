"""docs/conformance.md: a section for each command that was run with `--document`, each with its table."""

import re
from pathlib import Path

from nacre.cli.conformance.results import FAILED, PASSED, SKIPPED, Run, last_line

HEAD = """\
# Conformance

What Tempest 47.0.0, upstream's tests for every OpenStack cloud, says of this program. This page is written by the commands in it, with
`--document`; each makes a cloud, runs the tests inside its host and wipes it. What is skipped has its reason in `tests/conformance/excluded.txt`.
"""


def write(path: Path, run: Run) -> None:
    """The section of this run's command, in the place of what it said before; the others stay."""
    before = path.read_text() if path.exists() else HEAD
    sections = dict(re.findall(r"^## `([^`]+)`\n(.*?)(?=^## |\Z)", before, re.MULTILINE | re.DOTALL))
    sections[run.command] = _section(run)
    path.write_text(HEAD + "".join(f"\n## `{command}`\n\n{text.strip()}\n" for command, text in sorted(sections.items())))


def _section(run: Run) -> str:
    how = "On the fake hypervisor: no guest ran." if run.fake else "With real guests."
    lines = [how, "", "| service | passed | failed | skipped | seconds |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {run.count(PASSED, name)} | {run.count(FAILED, name)} | {run.count(SKIPPED, name)} | {run.time(name):.0f} |"
              for name in run.services()]  # fmt: skip
    lines += ["", f"`{last_line(run)}`", ""]
    lines += [f"* {name}: {count} skipped: {reason}" for name in run.services() for reason, count in run.skips(name).items()]
    return "\n".join(lines)
