"""The options of a guard: their names, what they may be, and the environment variable that overrides them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from ibidem.core.classify import check_mappings
from ibidem.core.faults import Fault
from ibidem.core.policies import Defaults, check_options

OPTIONS = (
    "effects",
    "reads",
    "writes",
    "live",
    "default",
    "store",
    "user",
    "trust_mcp",
    "timeout",
    "retry",
    "breaker",
    "errors",
    "faults",
    "outside",
    "inside",
    "on_event",
)
"""What `Guard` and `wrap` take."""

Errors = Literal["message", "raise"] | Callable[[Fault], str] | None
"""What a model reads of failures."""

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


def defaults(options: Mapping[str, Any]) -> Defaults:
    """Read what a guard says about failures of all its declared tools.

    Raises:
        TypeError: A value of the wrong kind.
        ValueError: A time that makes no sense, or an unknown kind.
    """
    given = check_options("Guard", {name: options[name] for name in ("timeout", "retry", "breaker")})
    errors = options["errors"]
    if errors not in ("message", "raise", None) and (not callable(errors) or isinstance(errors, type)):
        raise TypeError(f'errors= is "message", "raise", or a function from a Fault to text, not {errors!r}')
    faults = {} if options["faults"] is None else check_mappings(options["faults"])
    return Defaults(**{name: value or None for name, value in given.items()}, faults=faults)


def switch() -> Switch:
    """Read the environment variable `IBIDEM`.

    Raises:
        ValueError: It says something unknown; an emergency switch that silently does nothing is worse than none.
    """
    found = os.environ.get("IBIDEM", "")
    if found not in ("", "off", "memory"):
        raise ValueError(f"the environment variable IBIDEM={found!r} is unknown: set it to off or memory, or unset it")
    return cast("Switch", found)
