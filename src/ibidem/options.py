"""The options of a guard: their names, what they may be, and the environment variable that overrides them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from ibidem.core.classify import check_mappings
from ibidem.core.faults import Fault
from ibidem.core.policies import Defaults, check_options
from ibidem.stores.memory import Memory
from ibidem.stores.protocol import Store

OPTIONS = (
    "effects",
    "reads",
    "writes",
    "live",
    "default",
    "store",
    "key",
    "mode",
    "check",
    "user",
    "trust_mcp",
    "timeout",
    "retry",
    "breaker",
    "errors",
    "faults",
    "outside",
    "inside",
    "after_unknown",
    "on_event",
)
"""What `Guard` and `wrap` take."""

MODES = ("shadow",)
"""What `mode` may be beside None."""
Errors = Literal["message", "raise"] | Callable[[Fault], str] | None
"""What a model reads of failures."""

Switch = Literal["", "off", "memory"]


def check(options: Mapping[str, Any]) -> None:
    """Refuse values of the wrong kind; declarations are checked where they are read.

    Raises:
        TypeError: It says what to give instead.
        ValueError: A value of the right kind that makes no sense; it lists what there is.
    """
    store, named = options["store"], isinstance(options["store"], (str, os.PathLike))
    if store is not None and not named and not hasattr(store, "stamps"):
        raise TypeError(
            f"store={store!r} is no store: give the name of a folder, ibidem.Disk(...), ibidem.Memory(...), or None for "
            "a memory of its own"
        )
    if options["key"] is not None and not named:
        raise TypeError("key= goes with the name of a folder, store='.ibidem'; a store of your own takes its own key")
    _check_trial(options["mode"], options["check"])
    if options["after_unknown"] not in ("skip", "run"):
        raise ValueError(f'after_unknown={options["after_unknown"]!r} is unknown: it is "skip" or "run"')
    for name in ("user", "on_event"):
        if options[name] is not None and not callable(options[name]):
            raise TypeError(f"{name}= is a callable, not {options[name]!r}")
    for name in ("outside", "inside"):
        layers = options[name]
        if callable(layers) or not all(callable(layer) for layer in layers):
            raise TypeError(f"{name}= is a list of layers, async callables (call, inner) -> Outcome, not {layers!r}")


def _check_trial(mode: Any, share: Any) -> None:
    if mode is not None and mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown: it is None or one of {', '.join(map(repr, MODES))}")
    if share is None:
        return
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise TypeError(f"check= is the share of hits to run again, such as 0.01, or None, not {share!r}")
    if not 0 < share <= 1:
        raise ValueError(f"check={share!r} is no share: give more than 0, at most 1, or None to check nothing")
    if mode == "shadow":
        raise ValueError("mode='shadow' serves nothing and compares every call: leave check= out until it is over")


def store_of(options: Mapping[str, Any], switch: Switch) -> Store:
    """Give the store that the options name; the disk is touched only if one of them does.

    Raises:
        OSError: The folder cannot be used as one.
        NotImplementedError: This platform lacks what a store on the disk takes.
    """
    store = options["store"]
    if store is None or switch != "":
        return Memory()
    if isinstance(store, (str, os.PathLike)):
        from ibidem.stores import disk  # SQLite is not loaded for those who keep everything in memory

        return disk.at(store, options["key"])
    return cast("Store", store)


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
