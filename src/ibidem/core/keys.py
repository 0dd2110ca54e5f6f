"""Keys: an exact text for the arguments of a call, or a refusal.

Injective: two values have one text only if they are the same value of the same type. Plain JSON values take a short
way through the C encoder; everything else is written as a JSON object with one key that begins with NUL, and a
dictionary that has such a key itself is written that way too, so nothing can pretend to be a tag.

Rejected alternatives: `repr` and `default=str` (two values, one text), pickle (one value, two texts), orjson (NaN and
None are one text, integers from 2**64 are refused).
"""

from __future__ import annotations

import dataclasses
import enum
import hmac
import json
import json.encoder
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from zoneinfo import ZoneInfo

_DEPTH = 100
"""Levels of nesting beyond which a value is refused: far below the recursion limit, far above real arguments."""

_CONTAINERS = 100_000
"""Lists and the like beyond which arguments are refused: one held twice at each of 60 levels is small, and endless."""

_PYTHON_CLASS = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: set for classes made by a class statement, not for the built-in ones."""

_SCALARS = frozenset({str, int, float, bool, type(None)})


def _encoder() -> Callable[[Any], str]:
    """Make the encoder once: `JSONEncoder.encode` makes one of C anew at every call, which takes longer than the rest."""
    plain = json.JSONEncoder(
        ensure_ascii=False,  # escapes would give a pair of lone surrogates and the character they spell one text
        sort_keys=True,
        separators=(",", ":"),
        check_circular=False,  # the walk below has a depth
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    chunks = make(None, plain.default, json.encoder.encode_basestring, None, ":", ",", True, False, True)
    return lambda value: "".join(chunks(value, 0))


_encode = _encoder()


class NoExactKey(ValueError):  # noqa: N818
    """A value that has no exact encoding; the message names it."""


def canonical(arguments: Mapping[str, Any]) -> bytes:
    """Encode the arguments of a call, exactly: key order does not matter, types and values do.

    Args:
        arguments: By name.

    Raises:
        NoExactKey: A value has no exact encoding; the call is then not remembered.
    """
    name = ""
    try:
        for value in arguments.values():
            if type(value) not in _SCALARS:
                break
        else:
            return _encode(arguments).encode("utf-8", "surrogatepass")
        ready, walk = {}, _Walk()
        for name, value in arguments.items():  # named by the refusals below
            ready[name] = walk.exact(value, _DEPTH)
        return _encode(ready).encode("utf-8", "surrogatepass")
    except NoExactKey as problem:
        raise NoExactKey(f"argument {name!r}: {problem}") from None
    except Exception as problem:  # a hostile value may raise anything while it is looked at, unprintable things too
        raise NoExactKey(f"the arguments have no exact encoding: {type(problem).__name__}") from None


def exact(value: Any) -> bytes:
    """Encode one value of any supported type.

    Raises:
        NoExactKey: It has no exact encoding.
    """
    return canonical({"": value})


class _Walk:
    """Turns one call's arguments into what the JSON encoder writes exactly."""

    def __init__(self) -> None:
        self._left = _CONTAINERS

    def exact(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if depth == 0:
            raise NoExactKey(f"nested deeper than {_DEPTH} levels")
        self._left -= 1
        if self._left < 0:
            raise NoExactKey(f"more than {_CONTAINERS} lists, dicts and the like")
        if kind is list:
            return [self.exact(element, depth - 1) for element in value]
        if kind is dict:
            if all(type(name) is str and name[:1] != "\0" for name in value):
                return {name: self.exact(element, depth - 1) for name, element in value.items()}
            pairs = [[self.exact(name, depth - 1), self.exact(element, depth - 1)] for name, element in value.items()]
            return {"\0dict": sorted(pairs, key=lambda pair: _encode(pair[0]))}
        return self._tagged(value, kind, depth)

    def _tagged(self, value: Any, kind: type, depth: int) -> dict[str, Any]:
        if kind is tuple:
            return {"\0tuple": [self.exact(element, depth - 1) for element in value]}
        if kind is set or kind is frozenset:
            return {f"\0{kind.__name__}": sorted((self.exact(element, depth - 1) for element in value), key=_encode)}
        told = tagged(value, kind)
        if told is not None:
            return told
        if kind is Veiled:
            return {"\0secret": value.digest}
        if issubclass(kind, enum.Enum):
            return {"\0enum": [_type(kind), self.exact(value.name, 1), self.exact(value.value, depth - 1)]}
        if issubclass(kind, PurePath) and kind.__module__.startswith("pathlib"):
            return {"\0path": [_type(kind), str(value)]}
        fields = _fields(value, kind)
        if fields is None:
            raise NoExactKey(f"a value of type {_type(kind)} has no exact encoding")
        return {"\0object": [_type(kind), {name: self.exact(field, depth - 1) for name, field in fields}]}


def tagged(value: Any, kind: type) -> dict[str, Any] | None:
    """Write a value of one of the standard library's plain types as a tagged object; None for any other type.

    Raises:
        NoExactKey: Its time zone has no exact encoding.
    """
    if kind is bytes or kind is bytearray:
        return {f"\0{kind.__name__}": value.hex()}
    if kind in (datetime, time):
        return {f"\0{kind.__name__}": [value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)]}
    if kind is date:
        return {"\0date": value.isoformat()}
    if kind is timedelta:
        return {"\0timedelta": [value.days, value.seconds, value.microseconds]}
    if kind is Decimal:
        return {"\0decimal": str(value)}
    if kind is complex:
        return {"\0complex": [value.real, value.imag]}
    if kind is uuid.UUID:
        return {"\0uuid": value.hex}
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Veiled:
    """What stands in a key for an argument that was declared secret."""

    digest: str

    @classmethod
    def of(cls, value: Any, pepper: bytes) -> Veiled:
        """Hash a value so that who does not know the pepper can neither read nor guess it.

        Raises:
            NoExactKey: It has no exact encoding.
        """
        return cls(hmac.digest(pepper, exact(value), "sha256").hex())


def veiled(arguments: Mapping[str, Any], secret: Iterable[str], pepper: bytes) -> dict[str, Any]:
    """Give the arguments with the secret ones hashed.

    Raises:
        NoExactKey: A secret one has no exact encoding.
    """
    return {**arguments, **{name: Veiled.of(arguments[name], pepper) for name in secret if name in arguments}}


def _fields(value: Any, kind: type) -> Iterable[tuple[str, Any]] | None:
    """Give the whole state of a dataclass or pydantic model; None for anything else or anything more."""
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        if set(getattr(value, "__dict__", ())) <= set(names) and holds_no_more(kind, names):
            return [(name, getattr(value, name)) for name in names]
    elif hasattr(kind, "__pydantic_validator__") and hasattr(value, "__pydantic_fields_set__"):
        given = sorted(value.__pydantic_fields_set__)
        if not value.__pydantic_private__ and holds_no_more(kind, ()):
            return [("\0set", given), ("\0extra", value.__pydantic_extra__), *vars(value).items()]
    return None


def holds_no_more(kind: type, names: Iterable[str]) -> bool:
    """Whether no base class keeps something beside the named fields: as `str` and `list` do, or `__slots__`."""
    for base in kind.__mro__[:-1]:
        if not base.__flags__ & _PYTHON_CLASS:
            return False
        slots = base.__dict__.get("__slots__", ())
        more = {slots} if isinstance(slots, str) else set(slots)
        if any(not slot.startswith("__") for slot in more - set(names)):
            return False
    return True


def _zone(zone: Any) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        return [zone.utcoffset(None) // timedelta(microseconds=1), zone.tzname(None)]
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    raise NoExactKey(f"a time zone of type {_type(type(zone))} has no exact encoding")


def _type(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
