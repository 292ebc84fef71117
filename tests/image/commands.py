"""Runs command lines of the unmodified `openstack` client one after the other in one process: run with the client's own Python. Reads JSON
lists of arguments, a line each, and writes {"code", "out", "err"} for each."""

import contextlib
import io
import json
import sys


def main() -> None:
    from openstackclient import shell

    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = shell.OpenStackShell().run(json.loads(line))
            except SystemExit as ended:
                code = ended.code
        print(json.dumps({"code": code or 0, "out": out.getvalue(), "err": err.getvalue()}), flush=True)


if __name__ == "__main__":
    main()
