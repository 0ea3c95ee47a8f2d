"""What is kept of topics and channels: after each turn all of it can be read back, whatever comes then."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd import registry
from pynsqd.core.broker import Broker
from pynsqd.options import Options
from pynsqd.registry import Registry
from pynsqd.storage import metadata
from pynsqd.wire.errors import StorageError
from tests.support.failing_files import FailingFiles
from tests.support.memory_logs import MemoryLogs

_TOPICS = ["a", "b", "t#ephemeral"]
_CHANNELS = ["c", "d", "c#ephemeral"]


class Kept:
    """A broker without a node, and the file of its topics and channels."""

    def __init__(self, folder: Path) -> None:
        self.broker = Broker(Options(id=1), MemoryLogs(), 1, 1)
        self.folder = folder
        self.registry = Registry(self.broker, folder, structlog.wrap_logger(structlog.ReturnLogger()))
        self.registry.load(None, [])

    def do(self, step: str, topic: str, channel: str = "") -> None:
        """Carry out a step, if it is possible."""
        if step == "create":
            found = self.broker.topic(topic)
            if channel:
                found.channel(channel)
            return
        there = self.broker.find_topic(topic)
        if there is None or (channel and channel not in there.channels):
            return
        if step == "delete":
            if channel:
                there.delete_channel(channel)
            else:
                self.broker.delete_topic(topic)
        elif step == "memory":
            there.set_durability("memory")
        else:
            owner = there.channels[channel] if channel else there
            owner.pause() if step == "pause" else owner.unpause()

    def end_turn(self) -> None:
        """Keep what has changed, as the turn does before its replies leave."""
        self.registry.on_changes(self.broker.take_changes())

    def there(self) -> dict[str, Any]:
        """Return what the broker has and is to be kept."""
        return {
            topic.name: (
                topic.paused,
                topic.durability,
                {one.name: one.paused for one in topic.channels.values() if not one.ephemeral},
            )
            for topic in self.broker.topics.values()
            if not topic.ephemeral
        }

    def kept(self) -> dict[str, Any]:
        """Return what a start would find."""
        return {
            topic.name: (topic.paused, topic.durability, {one.name: one.paused for one in topic.channels})
            for topic in metadata.load(self.folder, pytest.fail)
        }

    @property
    def file(self) -> int:
        """Which file it is: another one after it was written anew."""
        return (self.folder / metadata.FILE_NAME).stat().st_ino


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


_STEP = st.tuples(
    st.sampled_from(["create", "create", "delete", "pause", "unpause", "memory"]),
    st.sampled_from(_TOPICS),
    st.sampled_from(["", *_CHANNELS]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_STEP, min_size=1, max_size=5), max_size=12), st.sampled_from([1 << 18, 100]))
def test_after_each_turn_all_can_be_read_back(
    tmp_path_factory: pytest.TempPathFactory, turns: list[list[tuple[str, str, str]]], anew_from: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_APPENDED_BYTES", anew_from)
        kept = Kept(tmp_path_factory.mktemp("kept"))
        for steps in turns:
            for step in steps:
                kept.do(*step)
            kept.end_turn()
            assert kept.kept() == kept.there()


def test_a_change_is_appended_and_the_file_is_written_anew_now_and_then(kept: Kept) -> None:
    files = []
    for number in range(8000):
        kept.do("create", f"t{number}")
        kept.end_turn()
        files.append(kept.file)
    assert 1 <= sum(one != before for before, one in pairwise(files)) <= 3
    assert kept.kept() == kept.there()


def test_what_was_created_is_synced_with_what_is_published_to_it(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFiles(monkeypatch)
    kept.do("create", "t", "c")
    kept.end_turn()
    assert failing.calls["fdatasync"] == 0
    assert list(kept.broker.unsynced) == [kept.broker.topics["t"]]
    kept.registry.sync()
    kept.registry.sync()
    assert failing.calls["fdatasync"] == 1


@pytest.mark.parametrize("step", ["pause", "memory", "delete"])
def test_an_order_is_synced_at_once(step: str, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.do("create", "t")
    kept.end_turn()
    failing = FailingFiles(monkeypatch)
    kept.do(step, "t")
    kept.end_turn()
    assert failing.calls["fdatasync"] == 1


@pytest.mark.parametrize("room", [0, 5])
def test_an_append_that_fails_writes_the_file_anew(room: int, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is appended behind what a failed append has left."""
    with monkeypatch.context() as patch:
        FailingFiles(patch).full_after(room, refusals=1)
        kept.do("create", "t", "c")
        kept.end_turn()
    assert kept.kept() == kept.there()
    assert not kept.broker.metadata_error
    kept.do("create", "t", "d")
    kept.end_turn()
    assert kept.kept() == kept.there()


def test_while_nothing_can_be_written_the_node_is_not_well_and_then_writes_all(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = FailingFiles(monkeypatch)
    failing.full_after(5)
    kept.do("create", "t")
    kept.end_turn()
    assert kept.broker.metadata_error
    kept.do("create", "u")
    kept.end_turn()
    assert kept.kept() == {}
    failing.heal()
    kept.registry.save()
    assert kept.kept() == kept.there()
    assert not kept.broker.metadata_error


def test_after_a_failed_sync_all_is_written_anew(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.do("create", "t")
    kept.end_turn()
    with monkeypatch.context() as patch:
        FailingFiles(patch).fail("fdatasync")
        with pytest.raises(StorageError, match=r"sync .*/pynsqd\.meta"):
            kept.registry.sync()
    assert kept.broker.metadata_error
    with pytest.raises(StorageError):  # else an OK could leave for a message whose channel is on no disk
        kept.registry.sync()
    before = kept.file
    kept.do("create", "u")
    kept.end_turn()
    kept.registry.sync()
    assert kept.file != before
    assert kept.kept() == kept.there()
