"""Private copies: what one caller does to a value must not reach another's."""

from __future__ import annotations

import copy
import sys
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
        if _is_tree(value, 100):
            return _copied(value)
        return copy.deepcopy(value)
    except Exception as problem:
        raise NotCopied(f"a value of type {kind.__qualname__} cannot be copied: {problem}") from problem


def _is_tree(value: Any, depth: int) -> bool:
    """Whether a value is built of plain containers and atoms only, and not too deeply."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if depth == 0:
        return False
    if kind is list or kind is tuple:
        return all(_is_tree(element, depth - 1) for element in value)
    return kind is dict and all(
        type(name) in _ATOMS and _is_tree(element, depth - 1) for name, element in value.items()
    )


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_copied(element) for element in value]
    if kind is dict:
        return {name: _copied(element) for name, element in value.items()}
    if kind is tuple:
        return tuple(_copied(element) for element in value)
    return value


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
