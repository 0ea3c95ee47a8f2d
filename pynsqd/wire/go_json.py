"""JSON as Go's ``encoding/json`` reads and writes it: what nsqd takes, and what its answers look like. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

_INT64_MAX: Final = 2**63 - 1
# Characters that Go escapes in a JSON string and Python does not; lone surrogates stand for bytes that are no UTF-8.
_GO_ESCAPES: Final = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def _go_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"


def encode_json(value: object) -> bytes:
    r"""Encode ``value`` as Go does: compact, UTF-8 as it is, ``<``, ``>`` and ``&`` as ``\u003c`` and so on.

    Floats come as Python prints them.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Hardly any answer has one of them, and a long one is searched much faster than it is rewritten.
    if "<" in text or ">" in text or "&" in text or not text.isascii():
        text = _GO_ESCAPES.sub(_go_escape, text)
    return text.encode()


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, told from a JSON array."""


class _Float(str):
    """A JSON number with a point or an exponent: no integer for Go, whatever its value."""

    __slots__ = ()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity, which are no JSON


def decode_json(body: bytes) -> object:
    """Decode ``body`` for ``fields`` to look at. Raises ValueError, also for what is nested too deeply."""
    try:
        # A list of pairs, since Go folds the case of keys and lets the last one win.
        return json.loads(
            body.decode("utf-8", "replace"), object_pairs_hook=_Pairs, parse_constant=_refuse, parse_float=_Float
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def fields(value: object, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return what a decoded object has under the keys of ``kinds``; a null, there or instead, leaves a field out.

    Keys match whatever their case, unknown ones are ignored. Raises ValueError for a value of another type, or an
    integer beyond 64 bits.
    """
    if value is None:
        return {}
    if not isinstance(value, _Pairs):
        raise ValueError("not an object")
    found: dict[str, Any] = {}
    for key, one in value:
        name = key.lower()
        kind = kinds.get(name)
        if kind is None or one is None:
            continue
        if type(one) is not kind or (isinstance(one, int) and not -_INT64_MAX - 1 <= one <= _INT64_MAX):
            raise ValueError(f"{name} is no {kind.__name__}")
        found[name] = scalars(one) if isinstance(one, str) else one
    return found


def scalars(text: str) -> str:
    r"""Replace what a lone ``\ud800`` in JSON gives: no text in UTF-8, and Go replaces it too."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
