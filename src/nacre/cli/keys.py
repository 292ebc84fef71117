"""`nacre keys rotate`: a new key for tokens, or for credentials. Every process of the cloud takes it up at its next request."""

from nacre.cli.asking import ask
from nacre.core.config import Home

SECONDS = 600


def rotate(home: Home, *, credentials: bool) -> str:
    """What was done, in a sentence. Raises Trouble."""
    told = ask(home, "keys", {"credentials": credentials}, SECONDS)
    verb, what = ("seals", "credentials") if credentials else ("signs", "tokens")
    parts = [f"Key {told['key']} {verb} {what} from now on"]
    parts += [f"honoured besides: {', '.join(map(str, told['honoured']))}"] if told["honoured"] else []
    parts += [f"sealed anew: {told['sealed']}"] if credentials else []
    parts += [f"no longer needed and gone: {told['gone']}"] if told["gone"] else []
    return "; ".join(parts) + "."
