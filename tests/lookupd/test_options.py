"""The options of the lookupd: every flag of nsqlookupd with its key and default (PROTOCOL 4.2)."""

import json

import pytest

from lookupd.options import Options
from pynsqd.runtime.fields import check_limits, config_value, idle_notice
from pynsqd.runtime.flags import flags_of

NSQLOOKUPD = [
    ("log-level", "log_level", 2),
    ("log-prefix", "log_prefix", "[nsqlookupd] "),
    ("tcp-address", "tcp_address", "0.0.0.0:4160"),
    ("http-address", "http_address", "0.0.0.0:4161"),
    ("inactive-producer-timeout", "inactive_producer_timeout", 300_000_000_000),
    ("tombstone-lifetime", "tombstone_lifetime", 45_000_000_000),
]
OURS = ["log-format", "build-info", "http-api-key-file"]


@pytest.mark.parametrize(("flag", "key", "default"), NSQLOOKUPD)
def test_a_flag_of_nsqlookupd_has_its_key_and_default(flag: str, key: str, default: object) -> None:
    (declaration,) = [each for each in flags_of(Options) if each.name == flag]
    assert declaration.key == key
    assert json.dumps(config_value(Options(), key)) == json.dumps(default)


def test_there_are_no_other_flags() -> None:
    names = {flag for flag, _, _ in NSQLOOKUPD} | {"version", "config", "verbose", "broadcast-address", *OURS}
    assert {each.name for each in flags_of(Options)} == names


def test_times_carry_their_unit() -> None:
    assert Options().inactive_producer_timeout_ns == 300_000_000_000
    assert Options().tombstone_lifetime_ns == 45_000_000_000


def test_a_negative_time_is_refused() -> None:
    with pytest.raises(ValueError, match="--tombstone-lifetime must be at least 0"):
        check_limits(Options(tombstone_lifetime_ns=-1))


def test_the_notice_names_the_deprecated_flag() -> None:
    assert idle_notice(Options, ["verbose", "log-level"]) == "options that change nothing: --verbose (no effect)"
