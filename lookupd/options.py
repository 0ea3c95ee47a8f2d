"""Every option of the lookupd, once: flag, config key, unit, default and help (PROTOCOL 4.2)."""

# ruff: noqa: RUF009  # option() is dataclasses.field() with its metadata spelled out

from dataclasses import dataclass

from pynsqd.runtime.duration import MINUTE, SECOND
from pynsqd.runtime.fields import Applies, option
from pynsqd.runtime.kinds import BOOLEAN, DURATION, LEVEL, STRING, LogLevel, word_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one lookupd. Times are ns; ``given`` holds the flags that were set, by name."""

    log_level: LogLevel = option(
        LEVEL, "log-level", LogLevel.INFO, "log this and what is worse: debug, info, warn, error, fatal"
    )
    log_prefix: str = option(STRING, "log-prefix", "[nsqlookupd] ", "what every line of the text log begins with")
    log_format: str = option(
        word_of("auto", "console", "json"),
        "log-format",
        "auto",
        "how the log is written; auto is console in a terminal and plain lines elsewhere",
    )
    verbose: bool = option(BOOLEAN, "verbose", False, "deprecated, use --log-level", key="", applies=Applies.NEVER)
    tcp_address: str = option(
        STRING, "tcp-address", "0.0.0.0:4160", "where nodes connect: host:port, or a path", unit="address"
    )
    http_address: str = option(
        STRING, "http-address", "0.0.0.0:4161", "where clients ask: host:port, or a path", unit="address"
    )
    http_api_key_file: str = option(
        STRING, "http-api-key-file", "", "file with the keys that HTTP requests need to change anything", unit="file"
    )
    broadcast_address: str = option(
        STRING, "broadcast-address", "", "the host that nodes are told", unit="host", shown="the host name"
    )
    inactive_producer_timeout_ns: int = option(
        DURATION, "inactive-producer-timeout", 5 * MINUTE, "time without a ping after which a node is not listed"
    )
    tombstone_lifetime_ns: int = option(
        DURATION, "tombstone-lifetime", 45 * SECOND, "time that a tombstone hides a node from a topic"
    )

    given: frozenset[str] = frozenset()
    unknown_keys: frozenset[str] = frozenset()  # of the config file
