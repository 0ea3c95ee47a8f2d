"""What does the log cost? MPUB and deliver + FIN with `--durability=memory` beside the default, `log`, in turn."""

import deliver_fin
import mpub
from load.broker import PYNSQD, Broker
from load.command import main
from load.row import Figures, Row


def measure(broker: Broker) -> Figures:
    figures: Figures = {}
    for name, row in (("MPUB", mpub.ROW), ("deliver + FIN", deliver_fin.ROW)):
        figures |= {f"{name}, {figure}": value for figure, value in row.measure(broker).items()}
    return figures


ROW = Row(
    "what durability costs, 200 B",
    measure,
    peers=(PYNSQD.with_flags("--durability=memory"), PYNSQD.with_flags("--durability=log")),
    targets={f"{name}, messages/s": "at least 0.85" for name in ("MPUB", "deliver + FIN")},
)

if __name__ == "__main__":
    main(ROW)
