"""Durations and options: how what a user wrote is read, and refused."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from datetime import timedelta

TTL = float | str | timedelta | None
"""A duration: seconds, a text such as `"10m"`, a `timedelta`, or None where there may be none."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")


def seconds(value: TTL, *, what: str = "ttl", instead: str = "what is never remembered is Live()") -> float | None:
    """Read a duration as seconds.

    Args:
        value: What the user wrote.
        what: The name of the option.
        instead: What to write where no time at all is meant.

    Raises:
        ValueError: It is not a positive, finite time.
    """
    if value is None:
        return None
    advice = "give seconds, a text such as '30s', '10m', '2h' or '7d', a timedelta, or None"
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, str):
        match = _AMOUNT.fullmatch(value)
        if match is None:
            raise ValueError(f"{what}={value!r} is not a time: {advice}")
        result = float(match[1]) * _UNITS[match[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        result = float(value)
    else:
        raise ValueError(f"{what}={value!r} is not a time: {advice}")  # noqa: TRY004
    if not math.isfinite(result) or result <= 0:
        raise ValueError(f"{what}={value!r} makes no sense: {advice}; {instead}")
    return result


def some_seconds(value: TTL, *, what: str, instead: str = "without a time leave it out") -> float:
    """Read a duration that there must be."""
    found = seconds(value, what=what, instead=instead)
    if found is None:
        raise ValueError(f"{what}=None makes no sense: {instead}")
    return found


def reject_unknown(owner: str, unknown: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that do not exist, and name the likely ones.

    Raises:
        TypeError: There are any.
    """
    known = list(known)
    for name in unknown:
        near = difflib.get_close_matches(name, [each for each in known if abs(len(each) - len(name)) <= 2], n=1)
        hint = f"did you mean {near[0]}=?" if near else f"it takes {', '.join(known) or 'none'}"
        raise TypeError(f"{owner} has no option {name!r}: {hint}")
