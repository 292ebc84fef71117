"""commands.py openstack|glance: runs command lines of an unmodified client one after the other in one process: run with the client's own Python.
Reads JSON lists of arguments, a line each, and writes {"code", "out", "err"} for each."""

import contextlib
import io
import json
import sys


class Terminal(io.StringIO):
    """What the client thinks it is typed into: it must not wait for an image's data there."""

    def isatty(self) -> bool:
        return True


def openstack(arguments: list[str]) -> int:
    from openstackclient import shell

    return int(shell.OpenStackShell().run(arguments) or 0)


def glance(arguments: list[str]) -> int:
    from glanceclient import shell

    sys.argv = ["glance", *arguments]
    return int(shell.main() or 0)


def main() -> None:
    client = {"openstack": openstack, "glance": glance}[sys.argv[1]]
    lines, sys.stdin = sys.stdin, Terminal()
    for line in lines:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = client(json.loads(line))
            except SystemExit as ended:
                code = ended.code
        print(json.dumps({"code": code or 0, "out": out.getvalue(), "err": err.getvalue()}), flush=True)


if __name__ == "__main__":
    main()
