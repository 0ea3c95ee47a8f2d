"""How an option is declared: one dataclass field with its flag, config key, kind, unit, default and help.

The flags of the command line, the keys of the config file, /config and docs/configuration.md all come from these
fields. Nothing here touches the system, so that the core may import its options.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

from pynsqd.runtime.kinds import Kind, Limit

T = TypeVar("T")


class Applies(Enum):
    """Whether giving an option changes anything; the value is what the docs say."""

    NOW = ""
    NOT_YET = "not yet"
    NEVER = "no effect"


@dataclass(frozen=True, slots=True)
class Flag:
    """One option as the operator sees it."""

    name: str  # without dashes in front
    kind: Kind[Any]
    default: Any
    help: str
    key: str  # in the config file and /config; empty if it has none
    unit: str  # stands for the value in the usage; the kind's word if empty
    shown: str  # the default in words, where it is no fixed value
    applies: Applies
    limit: Limit | None

    @property
    def word(self) -> str:
        """What stands for the value in the usage."""
        return self.unit or self.kind.word

    @property
    def meaning(self) -> str:
        """The help with the limit, where there is one beyond the kind's."""
        special = self.limit if self.limit is not self.kind.limit else None
        return f"{self.help}; {special.text}" if special else self.help

    @property
    def default_text(self) -> str:
        """The default as the operator would write it; empty for none."""
        return self.shown or self.kind.show(self.default)


def flag(
    kind: Kind[T],
    name: str,
    default: T,
    text: str,
    *,
    key: str | None = None,
    unit: str = "",
    shown: str = "",
    applies: Applies = Applies.NOW,
    limit: Limit | None = None,
) -> Flag:
    """Describe a flag; ``key`` is its name with underscores unless given, and ``text`` its help."""
    name_in_file = name.replace("-", "_") if key is None else key
    return Flag(name, kind, default, text, name_in_file, unit, shown, applies, limit or kind.limit)


def option(kind: Kind[T], name: str, default: T, text: str, **more: Any) -> T:
    """Declare a dataclass field; the arguments are those of ``flag``."""
    return field(default=default, metadata={"flag": flag(kind, name, default, text, **more)})


def declared(options: object) -> Iterator[tuple[str, Flag]]:
    """Yield (name of the field, its flag) of an options class or instance, in the order of declaration."""
    for each in fields(options):  # type: ignore[arg-type]  # any dataclass; there is no public name for its type
        if "flag" in each.metadata:
            yield each.name, each.metadata["flag"]


def config_value(options: object, key: str) -> object | None:
    """Give what GET /config/``key`` shows, ready for JSON; None for an unknown key (PROTOCOL 2.6).

    Strings are shown raw, durations are ns, levels and TLS settings numbers, lists lists.
    """
    for name, declaration in declared(options):
        if key and declaration.key == key:
            rendered: object = declaration.kind.render(getattr(options, name))
            return rendered
    return None


def check_limits(options: object) -> None:
    """Raise ValueError for the first option whose value is out of its limit."""
    for name, each in declared(options):
        if each.limit and not each.limit.holds(getattr(options, name)):
            raise ValueError(f"--{each.name} must be {each.limit.text}")


def idle_notice(options: object, given: Iterable[str], unknown_keys: Iterable[str] = ()) -> str:
    """Say in one line which of the ``given`` flags and keys of the config file change nothing; empty if none."""
    names = frozenset(given)
    idle = [
        f"--{each.name} ({each.applies.value})"
        for _, each in declared(options)
        if each.applies is not Applies.NOW and each.name in names
    ]
    idle += [f"{key} (unknown key)" for key in sorted(unknown_keys)]
    return f"options that change nothing: {', '.join(idle)}" if idle else ""
