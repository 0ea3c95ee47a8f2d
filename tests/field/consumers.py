"""Consumers in processes of their own that print each body as a line: go-nsq (as nsq_tail) and pynsq."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.field.needs import need_nsq
from tests.field.program import Program


def go_nsq_command(topic: str, channel: str, lookupds: Sequence[str]) -> list[str]:
    """Return nsqd's own nsq_tail, asking ``lookupds`` every second, with heartbeats every second."""
    options = ["lookupd_poll_interval,1s", "heartbeat_interval,1s", "read_timeout,3s", "write_timeout,1s"]
    command = [need_nsq("nsq_tail"), f"--topic={topic}", f"--channel={channel}", "--max-in-flight=200"]
    command += [f"--consumer-opt={option}" for option in options]
    return command + [f"--lookupd-http-address={each}" for each in lookupds]


def pynsq_command(topic: str, channel: str, lookupds: Sequence[str]) -> list[str]:
    """Return a pynsq reader, asking ``lookupds`` every second, with heartbeats every second."""
    return [sys.executable, str(Path(__file__).with_name("pynsq_consumer.py")), topic, channel, *lookupds]


def go_nsq(topic: str, channel: str, lookupds: Sequence[str], folder: Path) -> Program:
    """Return the go-nsq consumer as a program."""
    return Program(go_nsq_command(topic, channel, lookupds), folder / f"{channel}.stderr")


def pynsq(topic: str, channel: str, lookupds: Sequence[str], folder: Path) -> Program:
    """Return the pynsq consumer as a program."""
    return Program(pynsq_command(topic, channel, lookupds), folder / f"{channel}.stderr")
