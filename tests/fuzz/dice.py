"""Choices that come from the fuzzer's bytes, so that it can steer what is not bytes by itself."""


class Dice:
    """Decides by one byte after the other; when they are used up, always for 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is left to decide by."""
        return self._at >= len(self._data)

    def below(self, limit: int) -> int:
        """Return a number from 0 up to ``limit``, itself excluded."""
        number = int.from_bytes(self.take(1 if limit <= 256 else 2), "big")
        return number % limit

    def take(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut ``data`` into pieces of ``size`` bytes, as a network might; 0 leaves it whole."""
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]
