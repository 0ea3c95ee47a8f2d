"""--max-topics and --max-channels."""

from tests.support.session_wire import OK, Node, command, error, mpub


def test_topics() -> None:
    """Those that are there go on; a new one is refused to whoever asks; a deleted one makes room."""
    node = Node(max_topics=2)
    client = node.client()
    assert client.ask(command(b"PUB a", b"x") + command(b"PUB b#ephemeral", b"x")) == [OK, OK]
    for line, verb in (
        (command(b"PUB c", b"x"), "PUB"),
        (command(b"DPUB c 5", b"x"), "DPUB"),
        (mpub(b"c", [b"x"]), "MPUB"),
        (b"SUB c ch\n", "SUB"),
    ):
        other = node.client()
        assert other.ask(line) == [error(f"E_{verb}_FAILED {verb} failed topics exceed limit of 2")]
        assert other.closed
    assert sorted(node.broker.topics) == ["a", "b#ephemeral"]
    assert client.ask(command(b"PUB a", b"x") * 2) == [OK, OK]
    node.broker.delete_topic("b#ephemeral")
    assert client.ask(command(b"PUB c", b"x")) == [OK]


def test_a_topic_that_was_deleted_counts_when_its_publisher_makes_it_again() -> None:
    node = Node(max_topics=1)
    client = node.client()
    assert client.ask(command(b"PUB a", b"x") * 2) == [OK, OK]
    node.broker.delete_topic("a")
    assert node.client().ask(command(b"PUB b", b"x")) == [OK]
    assert client.ask(command(b"PUB a", b"x")) == [error("E_PUB_FAILED PUB failed topics exceed limit of 1")]


def test_channels() -> None:
    """Per topic."""
    node = Node(max_channels=2)
    for line in (b"SUB t a\n", b"SUB t b\n", b"SUB t a\n", b"SUB other c\n"):
        assert node.client().ask(line) == [OK]
    client = node.client()
    assert client.ask(b"SUB t c\n") == [error("E_SUB_FAILED SUB failed channels of t exceed limit of 2")]
    assert client.closed
    node.topic().delete_channel("b")
    assert node.client().ask(b"SUB t c\n") == [OK]
