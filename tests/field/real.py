"""The real nsqd and nsqlookupd, started as ours are."""

from tests.field.needs import need_nsq
from tests.support.daemons import Daemon


class RealDaemon(Daemon):
    """One process of nsqd's module; ``server`` is "nsqd" or "nsqlookupd"."""

    def command(self) -> list[str]:
        """Return the real program with the flags of ours."""
        flags = [word for word in super().command() if word.startswith("--")]
        return [need_nsq(self.server), *flags]
