"""The short form of ``make fuzz``: every target with the same inputs each time, and with all that ever failed."""

import importlib.util
from pathlib import Path

import pytest

from tests.fuzz.run import FINDINGS, fuzz
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="there is no atheris for this Python")
SEED = 1


@pytest.mark.parametrize("name", TARGETS)
def test_takes_anything(name: str, tmp_path: Path) -> None:
    fine, said = fuzz(name, TARGETS[name], SEED, tmp_path)
    assert fine, said


def test_findings_are_those_of_targets() -> None:
    assert {path.name for path in FINDINGS.iterdir()} <= TARGETS.keys()


def test_a_finding_is_told_and_kept(tmp_path: Path) -> None:
    """A fuzzer that finds nothing anywhere may just not look."""
    fine, said = fuzz("planted", 300_000, SEED, tmp_path)
    assert not fine
    assert "AssertionError: four bytes deep" in said
    assert [path.read_bytes()[:4] for path in tmp_path.iterdir()] == [b"FUZZ"]
