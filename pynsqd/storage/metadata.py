"""Which topics and channels exist and which are paused: one msgpack file in the data path, replaced whole.

The file is a map: ``version`` (1) and ``topics``, a list of {name, paused, durability, channels:
[{name, paused}]}. Ephemeral topics and channels are left out. It is written before the answer to whatever changed it.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from pynsqd.core.log import FSYNC, LOG, MEMORY
from pynsqd.wire.errors import StartupError, StorageError
from pynsqd.wire.names import is_valid_name

FILE_NAME: Final = "pynsqd.meta"
_VERSION: Final = 1
_DURABILITIES: Final = (MEMORY, LOG, FSYNC)


@dataclass(frozen=True, slots=True)
class ChannelMeta:
    """One channel as it is kept."""

    name: str
    paused: bool


@dataclass(frozen=True, slots=True)
class TopicMeta:
    """One topic as it is kept."""

    name: str
    paused: bool
    durability: str
    channels: tuple[ChannelMeta, ...]


def load(folder: Path) -> list[TopicMeta]:
    """Read the topics of ``folder``; none if there is no file.

    Raises StartupError if the file is damaged or of a newer version: nothing is guessed and nothing overwritten.
    """
    path = folder / FILE_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StartupError(f"failed to load metadata - {path}: {error.strerror}") from None
    try:
        return _parse(msgpack.unpackb(raw))
    except _NewerVersionError as error:
        raise StartupError(
            f"failed to load metadata - {path} is of version {error}, this is version {_VERSION}"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise StartupError(f"failed to load metadata - failed to parse metadata in {path} - {error}") from None


def save(folder: Path, topics: Iterable[TopicMeta]) -> None:
    """Replace the file by ``topics``, whole and synced, or leave it as it is. Raises StorageError."""
    kept = [
        {
            "name": topic.name,
            "paused": topic.paused,
            "durability": topic.durability,
            "channels": [{"name": channel.name, "paused": channel.paused} for channel in topic.channels],
        }
        for topic in topics
    ]
    replace_file(folder / FILE_NAME, msgpack.packb({"version": _VERSION, "topics": kept}))


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, sync it, move it into place and sync the folder. Raises StorageError."""
    draft = path.with_name(path.name + ".tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(draft, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"write {path}: {error.strerror}") from error


class _NewerVersionError(Exception):
    """The file was written by a later release."""


def _parse(document: Any) -> list[TopicMeta]:
    version = document["version"]
    if not isinstance(version, int):
        raise TypeError("version is no integer")
    if version > _VERSION:
        raise _NewerVersionError(version)
    topics = []
    for topic in document["topics"]:
        channels = tuple(ChannelMeta(_name(one), bool(one["paused"])) for one in topic["channels"])
        if topic["durability"] not in _DURABILITIES:
            raise ValueError(f"{topic['durability']!r} is no durability")
        topics.append(TopicMeta(_name(topic), bool(topic["paused"]), topic["durability"], channels))
    return topics


def _name(entry: Any) -> str:
    name = entry["name"]
    if not isinstance(name, str) or not is_valid_name(name):
        raise ValueError(f"{name!r} is not a valid name")
    return name
