"""What can happen to files: decided by dice."""

from pathlib import Path

from tests.fuzz.dice import Dice


def damage(paths: list[Path], dice: Dice) -> set[Path]:
    """Do to the files what the dice say, and return those that are as they were."""
    untouched = set(paths)
    for _ in range(4):
        if not paths or dice.empty:
            break
        path = paths[dice.below(len(paths))]
        untouched.discard(path)
        if path.exists():
            _harm(path, dice)
    return untouched


def _harm(path: Path, dice: Dice) -> None:
    kind = dice.below(9)
    raw = bytearray(path.read_bytes())
    at = dice.below(len(raw)) if raw else 0
    size = 1 + dice.below(80)
    if kind == 0 and raw:
        raw[at] ^= 1 << dice.below(8)
    elif kind == 1:
        del raw[at:]
    elif kind == 2:
        raw[at : at + size] = bytes(len(raw[at : at + size]))
    elif kind == 3:
        raw += raw[at : at + size]
    elif kind == 4:
        raw[at:at] = raw[:size]
    elif kind == 5:
        del raw[at : at + size]
    elif kind == 6:
        raw[:] = dice.take(200)
    elif kind == 7:
        raw += dice.take(size)
    elif kind == 8:
        path.unlink()
        return
    path.write_bytes(raw)
