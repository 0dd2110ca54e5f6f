"""The codec: plain values to bytes and back, exactly, without naming anything that could be called.

A text is written as it is; everything else as JSON, and one object with one key that begins with NUL for what JSON cannot
say, as in `core/keys.py`; but here the order of dictionaries is kept, and everything can be read back. What is not of these
types is not written: no class is ever looked up by a name that stands in a file. Values of other types stay in the memory
of the process that read them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from ibidem.core.keys import NoExactKey, tagged

_DEPTH = 100
"""Levels of nesting beyond which a value is refused."""

LARGEST = 4 * 2**20
"""Bytes beyond which nothing is written or read."""

_SCALARS = frozenset({str, int, float, bool, type(None)})
_NUL = "\\u0000"
"""How JSON writes the character that begins a tag: where it does not occur, there is nothing to translate."""

_TEXT, _JSON = b"t", b"j"
scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
"""Reads JSON from a place in a text, and gives the value and where it ends; `json.loads` looks for white space first."""


_STRANGE = (
    *(ValueError, TypeError, AttributeError, ArithmeticError, LookupError, StopIteration, RecursionError),
    OSError,  # a time zone that is named like a folder of time zones
)
"""What reading may raise that nobody has written here."""


class NotEncoded(ValueError):  # noqa: N818
    """A value that is not written; the message says why."""


class NotDecoded(ValueError):  # noqa: N818
    """Bytes that this codec has not written."""


def encode(value: Any) -> bytes:
    """Write a value.

    Raises:
        NotEncoded: A part of it is of a type that is not written, or nested too deeply, or not equal to itself.
    """
    try:
        if type(value) is str:
            return _TEXT + value.encode("utf-8", "surrogatepass")
        telling = _Telling()
        told = telling.told(value, _DEPTH)
        telling.check()
        text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), check_circular=False)
        return _JSON + text.encode("utf-8", "surrogatepass")
    except (NotEncoded, NoExactKey) as problem:
        raise NotEncoded(str(problem)) from None
    except (ValueError, RecursionError) as problem:  # more digits than the interpreter prints
        raise NotEncoded(f"it cannot be written: {problem}") from None


def decode(raw: bytes | memoryview) -> Any:
    """Read what `encode` wrote.

    Raises:
        NotDecoded: Something else wrote it.
    """
    try:
        kind, text = raw[:1], str(raw[1:], "utf-8", "surrogatepass")
        if kind == _TEXT:
            return text
        value, end = scan(text, 0)
        value = _meant(value, _DEPTH) if _NUL in text else value
    except _STRANGE as problem:
        raise NotDecoded(f"not of this codec: {type(problem).__name__}") from None
    if kind != _JSON or end != len(text):
        raise NotDecoded("not of this codec")
    return value


class _Telling:
    """Turns one value into what JSON can say; what is sure to become too long it refuses before it is made.

    A list may hold one long text a million times: in memory that is short.
    """

    def __init__(self) -> None:
        self._left = LARGEST

    def told(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            if kind is str:
                self._left -= len(value)
            elif kind is int:
                self._left -= value.bit_length() >> 2
            return value
        if depth == 0:
            raise NotEncoded(f"it is nested deeper than {_DEPTH} levels")
        self._left -= 2 if kind is list or kind is dict else 14  # as many characters as it takes at the least
        self.check()
        told, depth = self.told, depth - 1
        if kind is list:
            return [told(part, depth) for part in value]
        if kind is dict:
            if all(type(name) is str and name[:1] != "\0" for name in value):
                self._left -= sum(map(len, value))
                return {name: told(part, depth) for name, part in value.items()}
            return {"\0dict": [[told(name, depth), told(part, depth)] for name, part in value.items()]}
        if kind in (tuple, set, frozenset):
            return {f"\0{kind.__name__}": [told(part, depth) for part in value]}
        if kind is bytes or kind is bytearray:
            self._left -= 2 * len(value)
            self.check()
        found = tagged(value, kind)
        if found is None:
            raise NotEncoded(f"a value of type {kind.__module__}.{kind.__qualname__} is kept in memory only")
        return found

    def check(self) -> None:
        if self._left < 0:
            raise NotEncoded(f"a result of more than {LARGEST:,} bytes is kept in memory only")


def _meant(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth < 0:
        raise NotDecoded(f"nested deeper than {_DEPTH} levels")
    if kind is list:
        return [_meant(part, depth - 1) for part in value]
    if len(value) == 1:
        ((name, told),) = value.items()
        if name[:1] == "\0":
            read = _TAGS.get(name)
            if read is not None:
                return read(told)
            if name == "\0dict":
                return {_meant(key, depth - 1): _meant(part, depth - 1) for key, part in told}
            return _CONTAINERS[name](_meant(part, depth - 1) for part in told)
    return {name: _meant(part, depth - 1) for name, part in value.items()}


def _zone(told: Any) -> timezone | ZoneInfo | None:
    if told is None:
        return None
    if isinstance(told, str):
        return ZoneInfo(told)
    return UTC if told == [0, "UTC"] else timezone(timedelta(microseconds=told[0]), told[1])  # programs ask `is`


_CONTAINERS: Mapping[str, Callable[[Any], Any]] = {"\0tuple": tuple, "\0set": set, "\0frozenset": frozenset}

_TAGS: Mapping[str, Callable[[Any], Any]] = {
    "\0bytes": bytes.fromhex,
    "\0bytearray": bytearray.fromhex,
    "\0date": date.fromisoformat,
    "\0datetime": lambda told: datetime.fromisoformat(told[0]).replace(fold=told[1], tzinfo=_zone(told[2])),
    "\0time": lambda told: time.fromisoformat(told[0]).replace(fold=told[1], tzinfo=_zone(told[2])),
    "\0timedelta": lambda told: timedelta(*told),
    "\0decimal": Decimal,
    "\0complex": lambda told: complex(*told),
    "\0uuid": lambda told: uuid.UUID(hex=told),
}
"""How each type that `core.keys.tagged` writes is read."""
