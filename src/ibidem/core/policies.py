"""Policies: what is done about failures of one tool, as the guard and the tool's effect say together.

`Retry` and `Breaker` are values: what is written down. The layers act on them; what they have counted lies in plain
objects that are told the time (`budget.py`, `circuit.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ibidem.core.durations import TTL, some_seconds
from ibidem.core.faults import KINDS, Fault, Kind

if TYPE_CHECKING:
    from ibidem.core.effects import Effect

On = tuple[Kind | type[Exception], ...]
"""Kinds of faults and classes of exceptions."""


@dataclass(frozen=True)
class Retry:
    """Makes a failed call again, where that can do no harm: what may be over by then, after a random wait.

    Args:
        max_retries: Tries after the first; 0 switches off what the guard says.
        on: Kinds or exception classes that are retried beside those that pass by themselves: `rate_limited`, `timeout`,
            `unreachable` and `unavailable`.
        first_delay: The longest wait before the first retry; it doubles with each. The wait is drawn between zero and
            that ("full jitter"), since callers that failed together must not come back together.
        max_delay: The longest wait of all. Where the other side asks for a longer one, the call ends at once and says so.
        attempt_timeout: How long one attempt may take; without it the first may use up the whole `timeout=`.
        budget: The part of calls that may be retried, over all calls of the tool, or of its breaker's dependency: in an
            outage retries only add to it.

    Raises:
        ValueError: A number that makes no sense, or an unknown kind.
    """

    max_retries: int = 2
    on: On = ()
    first_delay: TTL = 0.2
    max_delay: TTL = 10.0
    attempt_timeout: TTL = None
    budget: float = 0.2

    def __post_init__(self) -> None:
        _whole("max_retries", self.max_retries, 0)
        object.__setattr__(self, "on", _check_on(self.on, "Retry"))
        for name in ("first_delay", "max_delay"):
            object.__setattr__(self, name, some_seconds(getattr(self, name), what=name))
        if self.attempt_timeout is not None:
            object.__setattr__(self, "attempt_timeout", some_seconds(self.attempt_timeout, what="attempt_timeout"))
        if not _is_number(self.budget) or not 0 < self.budget <= 1:
            raise ValueError(f"budget={self.budget!r} makes no sense: give the part of calls, above 0 and up to 1")

    def wants(self, fault: Fault) -> bool:
        """Whether a fault is of those that are retried."""
        if fault.kind == "circuit_open" or fault.of_own_deadline:
            return False
        if fault.retryable or fault.kind in self.on:
            return True
        return any(isinstance(kind, type) and isinstance(fault.exception, kind) for kind in self.on)

    def delay(self, retry: int, fault: Fault, drawn: float) -> float | None:
        """Say how long to wait before a retry.

        Args:
            retry: Its number, from 1.
            fault: What went wrong.
            drawn: A random number from 0 to 1.

        Returns:
            Seconds; None: the other side asks for more than `max_delay`.
        """
        first, longest = _seconds(self.first_delay), _seconds(self.max_delay)
        jitter = drawn * min(longest, first * 2.0 ** min(retry - 1, 30))
        if fault.retry_after is None:
            return jitter
        if fault.retry_after > longest:
            return None
        return fault.retry_after + jitter


@dataclass(frozen=True)
class Breaker:
    """Keeps calls from a tool that has failed too often of late, and lets one try after a while.

    Args:
        failures: So many failures one after the other open it.
        rate: So large a part of the calls of the last `window` opens it too; None: only `failures` count.
        window: How far back the rate looks.
        minimum: Calls in the window below which the rate says nothing.
        open_for: How long it stays open before one call, the probe, may try; a probe that hangs so long is replaced.
        name: Of what stands behind the tool; tools with one name share one breaker. None: the tool's own.
        on: Kinds or exception classes that count as failures beside those that tell of a dependency that does not work.

    Raises:
        ValueError: A number that makes no sense, or an unknown kind.
    """

    failures: int = 5
    rate: float | None = 0.5
    window: TTL = 60.0
    minimum: int = 20
    open_for: TTL = 30.0
    name: str | None = None
    on: On = ()

    def __post_init__(self) -> None:
        _whole("failures", self.failures, 1)
        _whole("minimum", self.minimum, 1)
        if self.rate is not None and (not _is_number(self.rate) or not 0 < self.rate <= 1):
            raise ValueError(f"rate={self.rate!r} makes no sense: give a part above 0 and up to 1, or None")
        for name in ("window", "open_for"):
            object.__setattr__(self, name, some_seconds(getattr(self, name), what=name))
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise ValueError(f"name={self.name!r} names nothing: give a text that is not empty, or None")
        object.__setattr__(self, "on", _check_on(self.on, "Breaker"))

    def counts(self, fault: Fault) -> bool:
        """Whether a fault is a failure of what stands behind the tool."""
        if fault.kind == "circuit_open":
            return False
        if fault.tells_of_dependency or fault.kind in self.on:
            return True
        return any(isinstance(kind, type) and isinstance(fault.exception, kind) for kind in self.on)


class Failures(TypedDict, total=False):
    """The options about failures that effects take, each as far as it makes sense for it."""

    timeout: TTL
    """How long a call may take in all; False: as long as it likes, whatever the guard says."""
    timeout_thread: bool
    """False for a synchronous tool that must run in its caller's thread: then it cannot be left behind."""
    retry: Retry | Literal[False]
    breaker: Breaker | Literal[False]
    fallback: Any
    """Given instead of a result that could not be had: a value, or `(arguments, fault) -> value`."""
    is_error: Callable[[Any], bool]
    """Tells whether a result reports an error: it counts as a failure, and is not remembered."""


FAILURES = tuple(Failures.__annotations__)
"""The names of all of them."""


@dataclass(frozen=True)
class Policies:
    """What is done about failures of one tool."""

    timeout: float | None = None
    """Seconds that a call has in all."""
    timeout_thread: bool = True
    """Whether a synchronous tool with a timeout may run in another thread than its caller's."""
    retry: Retry | None = None
    breaker: Breaker | None = None
    fallback: Any = None
    """A value, or `(arguments, fault) -> value`."""
    is_error: Callable[[Any], bool] | None = None
    looks_at_results: bool = False
    """Whether a result that says by itself that it is an error counts as a fault."""
    faults: Mapping[type[BaseException], Kind] = field(default_factory=dict)
    """What the user says about exceptions of her own."""
    dependency: str = ""
    """The name under which its breaker and its retry budget are kept: the tool's, or that of what stands behind it."""
    attempt_timeout: float | None = field(init=False)
    """Seconds that one attempt has."""
    retried: bool = field(init=False)
    """Whether it may be run more than once."""
    shape: int = field(init=False)
    """Stands for which of these there are: tools of one shape pass the same layers."""

    def __post_init__(self) -> None:
        attempt = self.retry.attempt_timeout if self.retry is not None else None
        retried = self.retry is not None and self.retry.max_retries > 0
        breaker, fallback = self.breaker is not None, self.fallback is not None
        there = (self.timeout is not None, attempt is not None, retried, breaker, fallback)
        object.__setattr__(self, "attempt_timeout", attempt)
        object.__setattr__(self, "retried", retried)
        object.__setattr__(self, "shape", sum(2**n for n, each in enumerate(there) if each))


NOTHING = Policies()
"""Nothing is done: what an undeclared tool gets."""


@dataclass(frozen=True)
class Defaults:
    """What a guard says for all its declared tools."""

    timeout: float | None = None
    retry: Retry | None = None
    breaker: Breaker | None = None
    faults: Mapping[type[BaseException], Kind] = field(default_factory=dict)

    def policies(self, name: str, effect: Effect) -> Policies:
        """Say what is done about failures of a tool of this name with this effect.

        A write that is not idempotent is never retried, and a sub-agent's time and retries are its inner calls' own
        affair: for both, only what their effects spell out holds.
        """
        if not effect.declared:
            return Policies(faults=self.faults) if self.faults else NOTHING
        bounded = effect.inherits
        breaker: Breaker | None = _own(effect.breaker, self.breaker if bounded else None)
        return Policies(
            timeout=_own(effect.timeout, self.timeout if bounded else None),
            timeout_thread=effect.timeout_thread,
            retry=_own(effect.retry, self.retry if bounded and effect.repeatable else None),
            breaker=breaker,
            dependency=breaker.name if breaker is not None and breaker.name else name,
            fallback=effect.fallback,
            is_error=effect.is_error,
            looks_at_results=True,
            faults=self.faults,
        )


def check_options(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options about failures of an effect or a guard; False switches off what would hold otherwise.

    Raises:
        TypeError: A value of the wrong kind.
        ValueError: A time that makes no sense.
    """
    found = dict(options)
    timeout = found.get("timeout")
    if timeout is not None and timeout is not False:
        found["timeout"] = some_seconds(found["timeout"], what="timeout", instead="to switch it off give timeout=False")
    for name, kind in (("retry", Retry), ("breaker", Breaker)):
        value = found.get(name)
        if isinstance(value, type) or not (value is None or value is False or isinstance(value, kind)):
            raise TypeError(f"{owner}: {name}={value!r} is no {kind.__name__}: give {name}=ibidem.{kind.__name__}(...)")
    for name in ("fallback", "is_error"):
        if inspect.iscoroutinefunction(found.get(name)):
            raise TypeError(f"{owner}: {name}= is a plain function: it serves synchronous callers too")
    if found.get("is_error") is not None and not callable(found["is_error"]):
        raise TypeError(f"{owner}: is_error= is a callable that is given a result, not {found['is_error']!r}")
    if not isinstance(found.get("timeout_thread", True), bool):
        raise TypeError(f"{owner}: timeout_thread= is True or False, not {found['timeout_thread']!r}")
    return found


def _own(own: Any, inherited: Any) -> Any:
    return None if own is False else inherited if own is None else own


def _check_on(on: Any, owner: str) -> On:
    if isinstance(on, (str, type)):
        on = (on,)
    for kind in on:
        if isinstance(kind, type) and issubclass(kind, Exception):
            continue
        if kind not in KINDS:
            raise ValueError(f"{owner}(on={kind!r}) is no kind: give exception classes, or of {', '.join(KINDS)}")
    return tuple(on)


def _whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} makes no sense: give a whole number from {least}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _seconds(value: TTL) -> float:
    assert isinstance(value, float)  # noqa: S101  # __post_init__ has read it
    return value
