"""What do nsqd's own bench_writer (batches of 200 and of 1) and bench_reader (RDY 2500) report? Two connections."""

import re
import subprocess
from collections.abc import Sequence

from load.broker import PEERS_BIN, Broker
from load.command import main
from load.failed import Failed
from load.processes import Job, Start, run
from load.row import NSQD_IN_MEMORY, Figures, Row

WRITE_S = 3
READ_S = 2  # less than it takes to read what was written: bench_reader goes on to its end when nothing is left
SIZE = 200


def measure(broker: Broker) -> Figures:
    if not (PEERS_BIN / "bench_writer").exists():
        return {}  # build.sh has said why
    with broker.topic() as topic:
        single = _measure_tool(broker, topic, "bench_writer", "--batch-size=1", f"--runfor={READ_S}s")
    with broker.topic("ch") as topic:
        writer = _measure_tool(broker, topic, "bench_writer", "--batch-size=200", f"--runfor={WRITE_S}s")
        reader = _measure_tool(broker, topic, "bench_reader", "--rdy=2500", f"--runfor={READ_S}s")
        if not broker.depth(topic, "ch"):
            raise Failed("bench_reader read all there was before its time was over, so its rate says nothing")
        return writer | reader | single


def _measure_tool(broker: Broker, topic: str, name: str, option: str, run_for: str) -> Figures:
    address = "{}:{}".format(*broker.tcp)
    own = [f"--nsqd-tcp-address={address}", f"--topic={topic}", f"--size={SIZE}"]
    done = run(broker, _tool(name, [*own, option, run_for]))
    duration_s, rate = done.results[0]
    figures = done.rates(round(duration_s * rate), duration_s)
    return {f"{name} {option}, {figure}": value for figure, value in figures.items()}


def _tool(name: str, options: Sequence[str]) -> Job[tuple[float, float]]:
    def job(start: Start) -> tuple[float, float]:
        start()
        done = subprocess.run([PEERS_BIN / name, *options], capture_output=True, text=True, check=False)
        found = re.search(r"duration: ([\d.]+)s - .* - ([\d.]+)ops/s", done.stderr)
        if not found:
            raise Failed(f"{name}: {done.stderr.strip()[:200]}")
        return float(found[1]), float(found[2])

    return job


ROW = Row("nsqd's own bench tools, 200 B", measure, nsqd_flags=NSQD_IN_MEMORY)

if __name__ == "__main__":
    main(ROW)
