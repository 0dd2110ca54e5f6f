"""The options of a guard: their names, what they may be, and the environment variable that overrides them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, cast

OPTIONS = (
    "effects",
    "reads",
    "writes",
    "live",
    "default",
    "store",
    "user",
    "trust_mcp",
    "outside",
    "inside",
    "on_event",
)
"""What `Guard` and `wrap` take."""

Switch = Literal["", "off", "memory"]


def check(options: Mapping[str, Any]) -> None:
    """Refuse values of the wrong kind; declarations are checked where they are read.

    Raises:
        TypeError: It says what to give instead.
    """
    store = options["store"]
    if store is not None and not hasattr(store, "stamps"):
        raise TypeError(f"store={store!r} is no store: give ibidem.Memory(...), or None for one of its own")
    for name in ("user", "on_event"):
        if options[name] is not None and not callable(options[name]):
            raise TypeError(f"{name}= is a callable, not {options[name]!r}")
    for name in ("outside", "inside"):
        layers = options[name]
        if callable(layers) or not all(callable(layer) for layer in layers):
            raise TypeError(f"{name}= is a list of layers, async callables (call, inner) -> Outcome, not {layers!r}")


def switch() -> Switch:
    """Read the environment variable `IBIDEM`.

    Raises:
        ValueError: It says something unknown; an emergency switch that silently does nothing is worse than none.
    """
    found = os.environ.get("IBIDEM", "")
    if found not in ("", "off", "memory"):
        raise ValueError(f"the environment variable IBIDEM={found!r} is unknown: set it to off or memory, or unset it")
    return cast("Switch", found)
