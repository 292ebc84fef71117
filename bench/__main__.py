"""`nacre bench crash ...`: what is in this folder, each by its name (crash.py)."""

import sys

import crash

if sys.argv[1:2] != ["crash"]:
    sys.exit("nacre: There is one scenario:  nacre bench crash --help")
crash.run_as_verb(sys.argv[2:])
