"""What do ten million waiting messages of 200 bytes cost? Memory, disk, a restart, the rate at which they are drained.

With one channel and with eight. The node is ended with kill -9 and with SIGTERM; a start is timed from the exec until
/ping answers 200 and until a consumer that connects then holds its first message. nsqd would take many minutes for its
eight copies of ten million, so it stands beside pynsqd in a second table with fewer, all on its disk.
"""

import signal
import time
from functools import partial

from load.broker import PYNSQD, Broker
from load.command import main
from load.drain import TAIL, drain_channels
from load.processes import run
from load.publish import publish_batches
from load.row import NSQD_ON_DISK, Figures, Row
from load.wire import BATCH, HEAD_SIZE, send_ready, subscribe

WAITING = 10_000_000
WAITING_BESIDE_NSQD = 500_000
CHANNEL_COUNTS = (1, 8)
DRAINED = 2_000_000  # enough to know the rate
PING_LIMIT_S = 30.0
MB = 1e6


def measure(broker: Broker, waiting: int) -> Figures:
    figures: Figures = {}
    for count in CHANNEL_COUNTS:
        channels = [f"channel_{number}" for number in range(count)]
        measured = _measure_channels(broker, channels, waiting)
        figures |= {f"{count} channel{'s' * (count > 1)}, {name}": value for name, value in measured.items()}
    return figures


def _measure_channels(broker: Broker, channels: list[str], waiting: int) -> Figures:
    with broker.topic(*channels) as topic:
        publish_batches(broker, topic, waiting)
        for channel in channels:
            broker.wait_for_depth(topic, channel, waiting)
        figures = {
            "RSS MB": broker.rss_bytes() / MB,
            "disk bytes/message": broker.disk_bytes() / waiting,  # what was there before is removed by now
        }
        figures |= _restart(broker, topic, channels[0], signal.SIGKILL, "kill -9")
        figures |= _restart(broker, topic, channels[0], signal.SIGTERM, "SIGTERM")
        messages = min(DRAINED // len(channels), waiting - TAIL)
        drained = run(broker, drain_channels(broker, topic, channels, messages)).rates(messages * len(channels))
        return figures | {f"drain, {name}": value for name, value in drained.items()}


def _restart(broker: Broker, topic: str, channel: str, how: signal.Signals, name: str) -> Figures:
    asked_s = time.monotonic()
    began_s = broker.restart(how)
    broker.wait_for_ping(PING_LIMIT_S)
    pinged_s, pinged_cpu_s = time.monotonic(), broker.cpu_s()
    consumer = subscribe(broker.tcp, topic, channel)
    send_ready(consumer, 1)
    consumer.recv(HEAD_SIZE)
    delivered_s = time.monotonic()
    consumer.close()
    return {
        f"{name} to exit s": began_s - asked_s,
        f"start after {name} to /ping s": pinged_s - began_s,
        f"start after {name} to /ping, broker CPU s": pinged_cpu_s,
        f"start after {name} to first message s": delivered_s - began_s,
        f"RSS MB after {name}": broker.rss_bytes() / MB,
    }


def row(waiting: int = WAITING) -> Row:
    waiting -= waiting % BATCH
    return Row(
        f"{waiting:,} messages of 200 B wait",
        partial(measure, waiting=waiting),
        peers=(PYNSQD,),
        targets={
            f"{channels}, {figure}": target
            for channels in ("1 channel", "8 channels")
            for figure, target in {
                "RSS MB": "at most 150, goal 100",
                "RSS MB after kill -9": "at most 150, goal 100",
                "RSS MB after SIGTERM": "at most 150, goal 100",
                "start after kill -9 to /ping s": "at most 2, goal 0.5",
                "start after SIGTERM to /ping s": "at most 2, goal 0.5",
            }.items()
        },
        at_most=lambda most: row(min(waiting, most)),
    )


def row_beside_nsqd(waiting: int = WAITING_BESIDE_NSQD) -> Row:
    waiting -= waiting % BATCH
    return Row(
        f"{waiting:,} messages of 200 B wait on disk",
        partial(measure, waiting=waiting),
        nsqd_flags=NSQD_ON_DISK,
        at_most=lambda most: row_beside_nsqd(min(waiting, most)),
    )


ROWS = (row(), row_beside_nsqd())

if __name__ == "__main__":
    main(*ROWS)
