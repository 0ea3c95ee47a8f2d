"""How fast is a backlog drained that lies on disk? As deliver_fin.py, with nsqd told to keep one message in memory."""

from deliver_fin import measure
from load.command import main
from load.row import NSQD_ON_DISK, Row

ROW = Row(
    "drain a backlog of 1 M messages of 200 B that lies on disk",
    measure,
    nsqd_flags=NSQD_ON_DISK,
    targets={"messages/s": "at least 2, goal 3"},
)

if __name__ == "__main__":
    main(ROW)
