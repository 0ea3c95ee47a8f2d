"""Topic and channel names (PROTOCOL 1.16)."""

import re
from typing import Final

EPHEMERAL_SUFFIX: Final = "#ephemeral"

# 64 includes the suffix; \Z and not $, which would let a final newline through.
_NAME: Final = re.compile(r"(?=.{1,64}\Z)[.a-zA-Z0-9_-]+(?:#ephemeral)?\Z")


def is_valid_name(name: str) -> bool:
    """Tell whether ``name`` may name a topic or a channel."""
    return _NAME.match(name) is not None


def is_ephemeral(name: str) -> bool:
    """Tell whether ``name`` is that of a topic or channel that never touches the disk."""
    return name.endswith(EPHEMERAL_SUFFIX)
