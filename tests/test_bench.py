"""The bench scripts start, ask a question, and stand in run.py. Their figures are for a quiet machine only."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

BENCH: Final = Path(__file__).parents[1] / "bench"
SCRIPTS: Final = sorted(BENCH.glob("*.py"))
NOT_IN_RUN: Final = {"run", "hostile_load", "loop_floor", "loop_or_thread"}  # takes minutes; measure no broker
DEADLINE_S: Final = 90.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_starts_and_prints_help(script: Path) -> None:
    done = run(str(script), "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {script.name}" in done.stdout


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.stem != "run"], ids=lambda path: path.stem)
def test_a_script_begins_with_its_question(script: Path) -> None:
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))

    assert text
    assert "?" in text.splitlines()[0]


def test_run_has_every_row() -> None:
    measured = {
        node.value.id
        for node in ast.walk(ast.parse((BENCH / "run.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"ROW", "ROWS"} and isinstance(node.value, ast.Name)
    }

    assert measured == {path.stem for path in SCRIPTS} - NOT_IN_RUN


def test_one_row_measures_this_node_alone(tmp_path: Path) -> None:
    output = tmp_path / "table.md"

    done = run(str(BENCH / "pub_latency.py"), "--rounds", "1", "--peers", "pynsqd", "--output", str(output))

    assert done.returncode == 0, done.stderr
    lines = output.read_text(encoding="utf-8").splitlines()
    assert "| question | figure | pynsqd |" in lines
    assert any("p99 ms" in line for line in lines)
