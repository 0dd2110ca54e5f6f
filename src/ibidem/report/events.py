"""Events: what happened to a call, told to `Guard(on_event=...)` and to the logger `ibidem`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger("ibidem")

Kind = Literal[
    "ran",
    "memo",
    "shared",
    "batch",
    "fallback",
    "failed",
    "interrupted",
    "not remembered",
    "mismatch",
    "retried",
    "opened",
    "closed",
    "waited",
    "passed",
]


class IbidemWarning(UserWarning):
    """Something that was declared has no effect, or nothing was declared."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one call."""

    kind: Kind
    """`ran`, `memo`, `shared`, `batch` or `fallback`: how its outcome came; `failed`: `reason` is the kind of the fault;
    `interrupted`: control flow passed; `not remembered`: a result was not kept, for `reason`; `mismatch`: a run answered
    otherwise than the memo did or, with `mode="shadow"`, would have; `retried`: it is tried again, after a fault of that
    kind; `waited`: it was ordered after the call of its turn in `reason`; `passed`: it was to be, but that one did not
    come in time; `opened`, `closed`: the circuit of the dependency in `reason`."""
    tool: str
    conversation: str
    elapsed: float = 0.0
    """Seconds that the run took."""
    age: float = 0.0
    """Seconds since a replayed value was read."""
    reason: str = ""
