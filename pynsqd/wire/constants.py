"""Numbers and byte strings of the NSQ wire (PROTOCOL 1.1, 1.5, 5.1)."""

from typing import Final

MAGIC_V1: Final = b"  V1"
MAGIC_V2: Final = b"  V2"

FRAME_RESPONSE: Final = 0
FRAME_ERROR: Final = 1
FRAME_MESSAGE: Final = 2

# nsqd's read buffer, and so its longest command line, including the newline.
MAX_LINE: Final = 16384

# A message frame: int32 size, int32 type, int64 timestamp, uint16 attempts, 16-byte id, body.
MESSAGE_HEADER: Final = 34
ATTEMPTS_AT: Final = 16
ID_AT: Final = 18
ID_LENGTH: Final = 16

# What IDENTIFY, /info and lookupd report as ``version``. Clients split it on dots and nsqadmin parses it as
# a semver, so it names the nsqd release whose behaviour this is (PROTOCOL 7).
NSQ_VERSION: Final = "1.3.0"
