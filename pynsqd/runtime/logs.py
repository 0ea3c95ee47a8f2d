"""The log of a daemon: structlog on standard error, as console, plain lines or JSON (PROTOCOL 3.13).

Nothing is global but what stdlib logging reports (aiohttp, asyncio), so two daemons in one process have two logs.
"""

import logging
import os
import sys
from typing import Any, Final, Self

import structlog
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter, plain_traceback
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from pynsqd.runtime.kinds import LogLevel
from pynsqd.runtime.stderr import StderrWriter

_STDERR: Final = 2
_CLOSE_S: Final = 0.25  # for a reader that is slow; one that is gone must not delay the exit
_METHODS: Final = {
    "debug": LogLevel.DEBUG,
    "info": LogLevel.INFO,
    "warning": LogLevel.WARN,
    "error": LogLevel.ERROR,
    "critical": LogLevel.FATAL,
}
_WORDS: Final = {LogLevel.WARN: "WARNING"}  # nsqd's word for it; the others are called by their names
_COLOURS: Final = {
    "DEBUG": "\x1b[2m",
    "INFO": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "FATAL": "\x1b[31m",
}
_DIM: Final = "\x1b[2m"
_CYAN: Final = "\x1b[36m"
_RESET: Final = "\x1b[0m"


class Logs:
    """The log of one daemon. ``logger`` is for its parts; ``level`` may be set at any time (PUT /config/log_level)."""

    def __init__(self, prefix: str, level: LogLevel, log_format: str, descriptor: int = _STDERR) -> None:
        """Begin to log to ``descriptor``; ``log_format`` is auto, console or json.

        Also takes over what libraries report to stdlib logging, until ``close()``: it would go to standard error by
        itself, and wait there.
        """
        self.level = level
        self._writer = StderrWriter(_usable(descriptor), self._report_dropped)
        self.logger: FilteringBoundLogger = structlog.wrap_logger(
            _LineLogger(self._writer),
            processors=[self._filter, *_processors(prefix, log_format, os.isatty(descriptor))],
            wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),  # the level is ours to change
            context_class=dict,
            cache_logger_on_first_use=True,
        )
        self._bridge = _Bridge(self.logger)
        logging.getLogger().addHandler(self._bridge)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write out what is queued, as far as the reader takes it within a quarter of a second."""
        logging.getLogger().removeHandler(self._bridge)
        self._writer.close(_CLOSE_S)

    def _filter(self, _logger: object, method: str, event: EventDict) -> EventDict:
        level = _METHODS[method]
        if level < self.level:
            raise structlog.DropEvent
        return {"level": _WORDS.get(level, level.name), "event": event.pop("event"), **event}

    def _report_dropped(self, lines: int) -> None:
        self.logger.warning("log lines dropped while standard error was blocked", lines=lines)


def _usable(descriptor: int) -> int:
    # Without a standard error, number 2 may soon be a socket of a client.
    if descriptor == _STDERR and sys.stderr is None:
        return os.open(os.devnull, os.O_WRONLY)
    return descriptor


class _LineLogger:
    """What structlog hands its finished lines to."""

    def __init__(self, writer: StderrWriter) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = writer.write


class _Bridge(logging.Handler):
    """Passes the records of stdlib logging on."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        fields: dict[str, Any] = {"exc_info": record.exc_info} if record.exc_info else {}
        self._logger.log(level, record.getMessage(), logger=record.name, **fields)


def _processors(prefix: str, log_format: str, terminal: bool) -> list[Processor]:
    if log_format == "json":
        return [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    stamp = structlog.processors.TimeStamper(fmt="%Y/%m/%d %H:%M:%S.%f", utc=False)
    if log_format == "console" or terminal:
        return [stamp, _console(terminal and "NO_COLOR" not in os.environ)]
    return [stamp, structlog.processors.format_exc_info, _Line(prefix)]


class _Line:
    """Renders ``[nsqd] 2026/11/22 17:00:00.123456 INFO: text key=value``."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        begin = f"{self._prefix}{event.pop('timestamp')} {event.pop('level')}: {_printable(str(event.pop('event')))}"
        exception = event.pop("exception", None)
        fields = "".join(f" {key}={_value(value)}" for key, value in event.items())
        return f"{begin}{fields}\n{exception}" if exception else begin + fields


def _console(coloured: bool) -> ConsoleRenderer:
    dim, cyan, reset, colours = (
        (_DIM, _CYAN, _RESET, _COLOURS) if coloured else ("", "", "", dict.fromkeys(_COLOURS, ""))
    )
    return ConsoleRenderer(
        columns=[
            Column("", KeyValueColumnFormatter(cyan, "", reset if coloured else "", _value)),
            Column("timestamp", KeyValueColumnFormatter(None, dim, reset, str)),
            Column("level", LogLevelColumnFormatter(colours, reset)),
            # Uncoloured: whoever waits for a "listening on" line reads the address up to its end.
            Column("event", KeyValueColumnFormatter(None, "", "", lambda event: _printable(str(event)))),
        ],
        exception_formatter=plain_traceback,
    )


def _value(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(" \"'=") else repr(text)


def _printable(text: str) -> str:
    # A line is a line, whatever a client put in its name.
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
