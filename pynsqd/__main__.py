"""``python -m pynsqd``."""

import sys

from pynsqd.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="pynsqd"))
