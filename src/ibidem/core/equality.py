"""Equality of results: whether two runs answered the same, as exactly as that can be told.

Beside yes and no there is "it cannot be told": what compares by being the very same object differs from its own copy,
and would make a change out of every second look. Ids that a framework draws for a block of content are left out: they
are random, and no two runs have the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from ibidem.core.keys import holds_no_more

_DEPTH = 100
"""Levels of nesting beyond which nothing is told."""

_PARTS = 1_000_000
"""Values beyond which nothing is told: one list held twice at each of 60 levels is small, and endless."""

_DRAWN = re.compile(r"lc_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The id that LangChain draws for a content block."""


def same(one: Any, other: Any) -> bool | None:
    """Tell whether two results are equal: types, values and order, NaN included; None where that cannot be told."""
    try:
        return _Comparison().same(one, other, _DEPTH)
    except Exception:  # a hostile value may raise anything while it is looked at
        return None


class _Comparison:
    """One comparison of two results."""

    def __init__(self) -> None:
        self._left = _PARTS

    def same(self, one: Any, other: Any, depth: int) -> bool | None:
        self._left -= 1
        if depth == 0 or self._left < 0:
            return None
        kind = type(one)
        if kind is not type(other):
            return False
        if kind is dict:
            return one.keys() == other.keys() and self._all((_field(n, one[n], other[n]) for n in one), depth)
        if kind in (list, tuple):
            return len(one) == len(other) and self._all(zip(one, other, strict=True), depth)
        equal = _equal(one, other)
        if equal is True:
            return True
        state, another = _state(one), _state(other)
        if state is not None and another is not None:
            return self.same(state, another, depth - 1)
        return None if _is_itself_only(kind) else equal

    def _all(self, pairs: Iterable[tuple[Any, Any]], depth: int) -> bool | None:
        """Compare pairs: one that differs decides, whatever else cannot be told."""
        told = True
        for one, other in pairs:
            equal = self.same(one, other, depth - 1)
            if equal is False:
                return False
            told = told and equal is True
        return True if told else None


def _field(name: Any, one: Any, other: Any) -> tuple[Any, Any]:
    """Give what is to be compared of a field; ids that were drawn count as equal."""
    drawn = name == "id" and all(type(each) is str and _DRAWN.fullmatch(each) for each in (one, other))
    return (None, None) if drawn else (one, other)


def _is_itself_only(kind: Any) -> bool:
    """Whether values of a class equal nothing but themselves."""
    return kind.__eq__ is object.__eq__


def _equal(one: Any, other: Any) -> bool | None:
    try:
        return bool(one == other or (one != one and other != other))  # noqa: PLR0124
    except Exception:  # an array has no truth
        return None


def _state(value: Any) -> dict[str, Any] | None:
    """Give the whole state of a value, where that lies open; None where its own `==` says more."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
    if hasattr(kind, "__pydantic_validator__"):
        return {"fields": vars(value), "extra": value.__pydantic_extra__, "private": value.__pydantic_private__}
    if _is_itself_only(kind) and holds_no_more(kind, ()):
        return dict(getattr(value, "__dict__", ())) or None  # without any, it is there to be told apart
    return None
