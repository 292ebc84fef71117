"""What stops a command: one sentence for the person who typed it, which says what to do."""


from pathlib import Path

DEFAULT_HOME = Path("/var/lib/nacre")


class Trouble(Exception):
    """The command cannot go on; the message is the last line that it prints."""


def typed(verb: str, home: Path) -> str:
    """What a person types for `verb` on this home."""
    return f"sudo ./nacre {verb}" + ("" if home == DEFAULT_HOME else f" --home {home}")
