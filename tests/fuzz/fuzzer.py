"""One target in a process of its own, under libFuzzer: ``python -m tests.fuzz.fuzzer TARGET CORPUS -runs=N -seed=N``.

With a file in place of the corpus that one input is run. ``tests.fuzz.run`` prepares the corpus and starts this.
"""

import sys

import atheris

from tests.fuzz.targets import target

# What the fuzzer is led by: the code under test, and the planted bug.
INSTRUMENTED = ["pynsqd", "lookupd", "tests.fuzz.targets.planted"]


def main() -> None:
    """Run the target that is named first; the rest is libFuzzer's."""
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        run = target(name).run
    atheris.Setup([sys.argv[0], *arguments], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
