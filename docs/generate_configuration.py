"""Writes docs/configuration.md from the options. Run it after changing one: python docs/generate_configuration.py."""

from pathlib import Path
from typing import Final

import lookupd.options
import pynsqd.options
from pynsqd.runtime.fields import Applies, Flag
from pynsqd.runtime.flags import flags_of

PAGE: Final = Path(__file__).with_name("configuration.md")

_INTRODUCTION: Final = """\
# Configuration

<!-- Written by docs/generate_configuration.py from the options themselves: change them there. -->

`pynsqd` and `pynsqlookupd` take the flags of nsqd and nsqlookupd 1.3.0 under the same names, and a TOML file with the
same keys. A flag that is given wins over the file, the file over the default. Environment variables are not read.

## Flags

- One dash or two, `--name value` or `--name=value`. A flag without a value column is a boolean: bare it is true, and
  another value needs the equals sign, as in `--snappy=false`. `1 t T TRUE true True` and `0 f F FALSE false False` are
  booleans.
- Durations are written as Go writes them: `250ms`, `1m30s`, `1.5h`, with the units `ns us ms s m h`. A bare number is
  an error, except 0.
- Integers may be decimal, `0x10`, `0o20` or `0b10000`, with underscores between digits.
- "Repeatable" flags may be given several times.
- The first argument that is no flag ends the flags.
- An unknown flag or a bad value is told on standard error with the usage, exit code 2. Values that cannot work, an
  unreadable file or a bad value in it are told in one line, exit code 1.
- `--help` lists all flags; `--version` says which nsqd this speaks like, `--build-info` which pynsqd it is.
- An option that applies "not yet" or has "no effect" is accepted, and the log says so once at the start.

## The file

`--config pynsqd.toml` names it:

```toml
data_path = "/var/lib/pynsqd"
nsqlookupd_tcp_addresses = ["127.0.0.1:4160", "127.0.0.1:4162"]
msg_timeout = "90s"
max_msg_size = 2097152
snappy = false
e2e_processing_latency_percentiles = [1, 0.99, 0.95]
```

| Kind | In the file |
|---|---|
| int | an integer, or a string of digits |
| duration | a string such as `"1m30s"`, or an integer: milliseconds |
| boolean | `true`, `false`, `0`, `1`, or one of the flag's spellings as a string |
| repeatable string | a list of strings, or one comma-separated string |
| floats | a list of numbers, or one comma-separated string |
| words (`log_level`, `tls_required`, ...) | as the flag |

Only the top level is read; unknown keys and tables are ignored, and the log says so at the start.

## While it runs

`GET /config/<key>` on a node shows the option with that key: strings as they are, everything else as JSON, durations in
nanoseconds. `PUT /config/log_level` and `PUT /config/nsqlookupd_tcp_addresses` change those two until the next start.
The body is the word itself, or a JSON list of all addresses that there are to be:
`curl -X PUT -d '["lookup1:4160", "lookup2:4160"]' http://127.0.0.1:4151/config/nsqlookupd_tcp_addresses`.
"""


def page() -> str:
    """Write the whole page."""
    return (
        f"{_INTRODUCTION}\n## pynsqd\n\n{_table(pynsqd.options.Options)}"
        f"\n## pynsqlookupd\n\n{_table(lookupd.options.Options)}"
    )


def _table(options: type) -> str:
    head = "| Flag | Value | Default | Key in the file | Meaning |\n|---|---|---|---|---|\n"
    return head + "".join(map(_row, flags_of(options)))


def _row(flag: Flag) -> str:
    value = "" if flag.kind.bare else f"{flag.word}, repeatable" if flag.kind.join else flag.word
    default = flag.shown or _code(flag.default_text)
    applies = "" if flag.applies is Applies.NOW else f" **({flag.applies.value})**"
    cells = (f"`--{flag.name}`", value, default, _code(flag.key), f"{flag.meaning}{applies}")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
