"""The table of states (PROTOCOL 1.3), and what is said where it forbids (PROTOCOL 1.2, 1.4)."""

import pytest

from pynsqd.core.transitions import CLOSING, INIT, LEGAL, SUBSCRIBED, UNSECURED, illegal


def test_the_numbers_are_those_of_stats() -> None:
    assert (INIT, SUBSCRIBED, CLOSING) == (0, 3, 4)


def test_the_table_is_the_specs() -> None:
    # RDY in closing is legal here, since it is ignored and no error.
    assert {name.decode(): states for name, states in LEGAL.items()} == {
        "IDENTIFY": (0, UNSECURED),
        "AUTH": (0,),
        "SUB": (0,),
        "PUB": (0, 3, 4),
        "MPUB": (0, 3, 4),
        "DPUB": (0, 3, 4),
        "RDY": (3, 4),
        "FIN": (3, 4),
        "REQ": (3, 4),
        "TOUCH": (3, 4),
        "CLS": (3,),
        "NOP": (0, 3, 4),
    }


@pytest.mark.parametrize(
    ("state", "name", "text"),
    [
        (INIT, b"FIN", "cannot FIN in current state"),
        (SUBSCRIBED, b"SUB", "cannot SUB in current state"),
        (INIT, b"FOO", "invalid command FOO"),
        (UNSECURED, b"SUB", "cannot SUB in current state (TLS required)"),
        (UNSECURED, b"FOO", "cannot FOO in current state (TLS required)"),
    ],
)
def test_what_is_not_legal(state: int, name: bytes, text: str) -> None:
    assert illegal(state, name).payload == b"E_INVALID " + text.encode()
