"""Kill nodes side by side, report, exit 1 if one broke a promise.

``python -m tests.behaviour.kill_nine.run --kills 5000 --seed N`` is the long form. ``NSQD_BINARY`` names another nsqd
to kill. What follows ``--`` are flags for the node.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.behaviour.kill_nine.campaign import Campaign, Plan
from tests.behaviour.kill_nine.ledger import Limits
from tests.behaviour.kill_nine.records import Tally

# Each node of a run gets the next of these: small segments and queues make it roll, fall behind and read back often.
VARIANTS: Final[tuple[list[str], ...]] = (
    [],
    ["--mem-queue-size=20", "--max-bytes-per-file=65536"],
    ["--mem-queue-size=500", "--max-bytes-per-file=1048576"],
)
_LONG_RUN: Final = 1000
_FAR_MS: Final = 90_000  # far enough to be put away in another file
_SHORT_MS: Final = 3_000


def plans(kills: int, seed: str, nodes: int, flags: list[str], limits: Limits) -> list[Plan]:
    """Share ``kills`` between ``nodes`` nodes of different kinds; only a long run has far deferrals."""
    return [
        Plan(
            kills=(kills + number) // nodes,
            seed=f"{seed} node {number}",
            flags=[*VARIANTS[number % len(VARIANTS)], *flags],
            far_ms=_FAR_MS if kills >= _LONG_RUN else _SHORT_MS,
            limits=limits,
        )
        for number in range(nodes)
    ]


async def run(plans: list[Plan], folder: Path) -> list[Campaign]:
    """Carry out ``plans`` with the data in ``folder``; lines on stderr tell how it goes."""
    campaigns = [Campaign(plan, folder / f"node-{number}") for number, plan in enumerate(plans)]
    kills = sum(plan.kills for plan in plans)
    started = time.monotonic()
    done = 0

    def progress() -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty() or done % 100 == 0:
            end = "\r" if sys.stderr.isatty() else "\n"
            sys.stderr.write(f"{done} of {kills} kills, {time.monotonic() - started:.0f} s{end}")
            sys.stderr.flush()

    async with asyncio.TaskGroup() as group:
        for campaign in campaigns:
            group.create_task(campaign.run(progress))
    return campaigns


def report(campaigns: list[Campaign], seed: str, folder: Path) -> str:
    """Return what happened, and everything about each broken promise."""
    total = Tally()
    for campaign in campaigns:
        total.add(campaign.ledger.tally)
    lines = [f"seed {seed}: {total}"]
    for number, campaign in enumerate(campaigns):
        flags = " ".join(campaign.plan.flags) or "default flags"
        lines += [
            f"\n{violation.kind.upper()} on node {number} ({flags}): {violation.text}"
            for violation in campaign.ledger.violations
        ]
        if campaign.ledger.broken:
            lines.append(f"\nnode {number} in all: {dict(campaign.ledger.broken)}")
    if has_failed(campaigns):
        lines.append(f"\nseed {seed}; data paths, as they are and as the last lives left them: {folder}")
    return "\n".join(lines)


def has_failed(campaigns: list[Campaign]) -> bool:
    """Tell whether a promise was broken."""
    return any(campaign.ledger.violations for campaign in campaigns)


def main() -> int:
    """Read the command line, run, print the report and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.behaviour.kill_nine.run", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many in all")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of an earlier run, to do about the same again")
    parser.add_argument("--nodes", type=int, default=3, help="how many at a time")
    parser.add_argument("flags", nargs="*", help="flags of the node, after --")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-nine-"))
    planned = plans(arguments.kills, arguments.seed, arguments.nodes, arguments.flags, Limits())
    campaigns = asyncio.run(run(planned, folder))
    sys.stdout.write(report(campaigns, arguments.seed, folder) + "\n")
    if has_failed(campaigns):
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
