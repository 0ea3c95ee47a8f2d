"""Consumers in processes of their own that print each body as a line: go-nsq (as nsq_tail) and pynsq."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.field.needs import need_nsq
from tests.field.program import Program


def go_nsq(topic: str, channel: str, lookupds: Sequence[str], folder: Path) -> Program:
    """Return nsqd's own nsq_tail, asking ``lookupds`` every second."""
    command = [need_nsq("nsq_tail"), f"--topic={topic}", f"--channel={channel}", "--max-in-flight=200"]
    command += ["--consumer-opt=lookupd_poll_interval,1s", *(f"--lookupd-http-address={each}" for each in lookupds)]
    return Program(command, folder / f"{channel}.stderr")


def pynsq(topic: str, channel: str, lookupds: Sequence[str], folder: Path) -> Program:
    """Return a pynsq reader, asking ``lookupds`` every second."""
    command = [sys.executable, Path(__file__).with_name("pynsq_consumer.py"), topic, channel, *lookupds]
    return Program(command, folder / f"{channel}.stderr")
