"""``python -m lookupd``."""

import sys

from lookupd.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="pynsqlookupd"))
