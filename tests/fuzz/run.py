"""Fuzz targets, report, exit 1 if one has a finding.

``python -m tests.fuzz.run --runs 1000000 --seed 7 [TARGET ...]`` is the long form, shared between the targets.
``findings/TARGET/`` holds every input that has ever failed; each run begins with those.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha1
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS, target

FINDINGS: Final = Path(__file__).parent / "findings"
_MAX_LENGTH: Final = 4096  # bytes of an input
_MAX_RSS_MB: Final = 1024
_MAX_RUN_S: Final = 20  # one input


def fuzz(name: str, runs: int, seed: int, artifacts: Path) -> tuple[bool, str]:
    """Give a target ``runs`` inputs; whether it took them all, and what there is to say about it.

    An input that failed is left in ``artifacts``.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory()) as folder:
        corpus = Path(folder, "corpus")
        shutil.copytree(FINDINGS / name, corpus) if (FINDINGS / name).is_dir() else corpus.mkdir()
        environment = os.environ | {"TMPDIR": folder}
        _write_seeds(name, corpus, environment)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.fuzzer", name, str(corpus)),
                *(f"-runs={runs}", f"-seed={seed}", f"-max_len={_MAX_LENGTH}", f"-artifact_prefix={artifacts}/{name}-"),
                *(f"-rss_limit_mb={_MAX_RSS_MB}", f"-timeout={_MAX_RUN_S}", "-print_final_stats=1", "-verbosity=1"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
    return done.returncode == 0, done.stdout + done.stderr


def _memory() -> str | None:
    """Return where files cost no disk, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _write_seeds(name: str, corpus: Path, environment: dict[str, str]) -> None:
    """Write what the target gives to start with, in a process of its own, as its scratch files are the fuzzer's."""
    code = f"from tests.fuzz.run import write_seeds; write_seeds({name!r}, {str(corpus)!r})"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def write_seeds(name: str, corpus: str) -> None:
    """Write the seeds of a target as files."""
    for data in target(name).seeds():
        Path(corpus, sha1(data).hexdigest()).write_bytes(data)


def main() -> None:
    """Run the targets that are named, or all, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--artifacts", type=Path, default=Path(".fuzz"), help="where inputs that fail are left")
    arguments = parser.parse_args()
    chosen = arguments.targets or list(TARGETS)
    runs = arguments.runs // len(chosen)
    failed = False
    for name in chosen:
        fine, said = fuzz(name, runs, arguments.seed, arguments.artifacts)
        failed |= not fine
        sys.stdout.write(f"{name}: {runs} inputs, {'no finding' if fine else 'FAILED'}\n{'' if fine else said}")
        sys.stdout.flush()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
