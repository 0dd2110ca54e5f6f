"""Private copies: what one caller does to a value must not reach another's."""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Mapping
from typing import Any

_ATOMS = frozenset({str, int, float, bool, type(None), bytes, complex})


class NotCopied(ValueError):  # noqa: N818
    """A value of which no equal copy can be made: a generator, an open file, a lock."""


def private(value: Any) -> Any:
    """Copy a value so deeply that nothing mutable is shared; plain values at a fraction of the cost of `deepcopy`.

    Raises:
        NotCopied: It cannot be copied.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    try:
        try:
            return _copied(value, 100)
        except _NotPlain:
            return copy.deepcopy(value)
    except Exception as problem:
        raise NotCopied(f"a value of type {kind.__qualname__} cannot be copied: {problem}") from problem


def are_atoms(args: Collection[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether arguments need no copy, because nobody can change them."""
    for value in args:
        if type(value) not in _ATOMS:
            return False
    for value in kwargs.values():  # noqa: SIM110  # all() with a generator takes three times as long, on every call
        if type(value) not in _ATOMS:
            return False
    return True


class _NotPlain(Exception):  # noqa: N818
    """A value holds more than plain containers and atoms, or is nested too deeply."""


def _copied(value: Any, depth: int) -> Any:
    """Copy plain containers in one pass; looking first whether they are plain would take twice as long."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if depth == 0:
        raise _NotPlain
    if kind is dict:
        twin = {}
        for name, part in value.items():
            if type(name) not in _ATOMS:
                raise _NotPlain
            twin[name] = part if type(part) in _ATOMS else _copied(part, depth - 1)
        return twin
    if kind is list:
        return [part if type(part) in _ATOMS else _copied(part, depth - 1) for part in value]
    if kind is tuple:
        return tuple([part if type(part) in _ATOMS else _copied(part, depth - 1) for part in value])
    raise _NotPlain


def size(value: Any) -> int:
    """Estimate how many bytes a value takes, its parts included."""
    total = 0
    stack = [value]
    seen: set[int] = set()
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        total += sys.getsizeof(part, 64)
        if isinstance(part, dict):
            stack.extend(part.keys())
            stack.extend(part.values())
        elif isinstance(part, (list, tuple, set, frozenset)):
            stack.extend(part)
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            stack.append(vars(part))
    return total
