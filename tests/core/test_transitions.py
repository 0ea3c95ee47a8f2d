"""The table of states (PROTOCOL 1.3)."""

from pynsqd.core.transitions import CLOSING, INIT, LEGAL, SUBSCRIBED, UNSECURED


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
