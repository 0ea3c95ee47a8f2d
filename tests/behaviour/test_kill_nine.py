"""Nodes under load, killed with -9 again and again (ARCHITECTURE 3, P1 to P3). The long form is ``make soak``.

``KILL_NINE_KILLS`` and ``KILL_NINE_SEED`` choose the size and the seed. A failure names its seed, shows the message's
whole history and leaves the data paths where it says.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import anyio
import pytest

from tests.behaviour.kill_nine.campaign import Campaign
from tests.behaviour.kill_nine.ledger import Limits
from tests.behaviour.kill_nine.run import has_failed, plans, report, run
from tests.support.daemons import is_reference

KILLS: Final = int(os.environ.get("KILL_NINE_KILLS", "200"))
SEED: Final = os.environ.get("KILL_NINE_SEED") or secrets.token_hex(4)
NSQD: Final = Path(__file__).parents[2] / "bench" / "peers" / "bin" / "nsqd"


def kill(
    kills: int, nodes: int, flags: list[str], folder: Path, limits: Limits | None = None, seed: str = SEED
) -> list[Campaign]:
    return anyio.run(run, plans(kills, seed, nodes, flags, limits or Limits()), folder)


def kill_until(found: set[str], kills: int, flags: list[str], folder: Path, limits: Limits | None = None) -> Campaign:
    """Return the first campaign that has ``found`` what is broken: one alone may miss it, as its kills are random."""
    for number in range(6):
        (campaign,) = kill(kills, 1, flags, folder, limits, f"{SEED}-{number}")
        if found <= campaign.ledger.broken.keys():
            return campaign
        shutil.rmtree(folder)
        folder.mkdir()
    raise AssertionError(f"{found} was never seen")


@pytest.mark.skipif(is_reference(), reason="the other broker does not promise it")
def test_nothing_acknowledged_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="kill-nine-"))  # tmp_path would go with one of the next runs
    campaigns = kill(KILLS, 3, [], folder)
    text = report(campaigns, SEED, folder)
    if has_failed(campaigns):
        pytest.fail(text, pytrace=False)
    shutil.rmtree(folder)
    with capsys.disabled():
        sys.stdout.write(f"\n{text}\n")
    for campaign in campaigns:  # a harness that does nothing finds nothing
        tally = campaign.ledger.tally
        assert tally.kills >= campaign.plan.kills
        assert tally.clean_stops > 0
        assert tally.acknowledged > 20 * tally.kills
        assert tally.redeliveries > tally.kills
        assert tally.settled >= tally.acknowledged


@pytest.mark.skipif(is_reference(), reason="a flag of ours")
def test_reports_what_is_lost_with_memory_durability(tmp_path: Path) -> None:
    kill_until({"owes too little", "lost"}, 20, ["--durability=memory"], tmp_path)


@pytest.mark.skipif(is_reference(), reason="a flag of ours")
def test_reports_what_comes_again_when_checkpoints_are_rare(tmp_path: Path) -> None:
    kill_until({"duplicate"}, 10, ["--checkpoint-interval=5s"], tmp_path)


@pytest.mark.skipif(not NSQD.exists(), reason="bench/peers/build.sh has not built the real nsqd")
def test_reports_what_the_real_nsqd_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSQD_BINARY", str(NSQD))
    campaign = kill_until({"owes too little", "lost"}, 25, [], tmp_path, Limits(ids_per_topic=True))
    text = report([campaign], SEED, tmp_path)
    assert f"seed {SEED}" in text
    assert str(tmp_path) in text
    assert " ends: SIGKILL" in text
    assert "acknowledged" in text
    assert any((tmp_path / "node-0").glob("after-life-*"))


def test_command_line_runs_and_says_how_it_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.behaviour.kill_nine.run", "--kills=1", "--nodes=1", "--seed=words"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.startswith("seed words: ")
    assert list(tmp_path.iterdir()) == [] if done.returncode == 0 else list(tmp_path.iterdir())
