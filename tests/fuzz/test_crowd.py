"""The short form of the crowd."""

from pathlib import Path

from tests.fuzz.crowd import FLAGS, run
from tests.support.daemons import Daemon


async def test_nobody_notices_a_crowd_of_strangers(tmp_path: Path) -> None:
    with Daemon("nsqd", *FLAGS, data_path=tmp_path) as node:
        strangers = await run(node, 200, "short")
        assert all(stranger.done > 5 for stranger in strangers)  # a crowd that does nothing disturbs nobody
        assert sum(stranger.frames for stranger in strangers) > 1000
        assert node.stop() == 0
