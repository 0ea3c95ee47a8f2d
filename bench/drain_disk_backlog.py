"""How fast is a backlog drained that lies on disk? As deliver_fin.py, with nsqd's default memory queue of 10,000."""

from deliver_fin import measure
from load.command import main
from load.row import Row

ROW = Row(
    "drain a backlog of 1 M messages of 200 B that lies on disk",
    measure,
    targets={"messages/s": "at least 2, goal 3"},
)

if __name__ == "__main__":
    main(ROW)
