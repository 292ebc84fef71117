"""`nacre`: the command line for people, and the processes that the supervisor starts.

Run as `python -I <program>/nacre VERB ...`, so that a process shows as `... nacre api --home <home>`. The processes of a cloud do not
load the command line's libraries.
"""

import os
import sys

if not __package__:  # run as a folder: make the package itself importable, and nothing inside it by a short name
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> None:
    arguments = sys.argv[1:]
    typed = arguments[:2] in (["node", "token"], ["node", "join"])
    if (not typed and "--home" in arguments and arguments[0] in ("api", "worker", "node", "job")) or arguments[:2] == ["up", "--supervise"]:
        from nacre.cli import processes

        processes.main(arguments)
    else:
        from nacre.cli import app

        app.main()


if __name__ == "__main__":
    main()
