"""Conditions: whether a step runs, told from what a reference leads to. There are six operators and no expressions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ibidem.plan.references import NotThere, Reference
from ibidem.plan.steps import Condition

_COMPARED: dict[str, Callable[[Any, Any], Any]] = {"lt": operator.lt, "gt": operator.gt}


def holds(condition: Condition, look: Callable[[Reference], Any]) -> bool:
    """Whether a condition holds.

    Raises:
        NotThere: What is compared does not exist, or cannot be compared.
    """
    op, value = condition.op, condition.value
    try:
        found = look(condition.reference)
    except NotThere:
        if op == "exists":
            return not value
        raise
    if op == "exists":
        return (found is not None) is value
    try:
        if op == "in":
            return any(equal(found, each) for each in value)
        if op in _COMPARED:
            return bool(_COMPARED[op](found, value))
        return equal(found, value) is (op == "eq")
    except NotThere:
        raise
    except Exception as problem:
        raise NotThere(
            f"{condition.reference.spelled} is {_kind(found)}, which cannot be compared with {_kind(value)} by {op!r}"
        ) from problem


def equal(one: Any, other: Any) -> bool:
    """Whether two values are equal; true and 1 are not."""
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    return bool(one == other)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
