"""Faults: failures as values, and the control flow that is none."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ibidem.core.wording import safe_text

Kind = Literal[
    "invalid_arguments",
    "not_found",
    "unauthorized",
    "rate_limited",
    "timeout",
    "unreachable",
    "unavailable",
    "circuit_open",
    "upstream_failed",
    "maybe_executed",
    "cancelled",
    "tool_error",
]
"""What went wrong, in the words that a model reads."""

KINDS: tuple[Kind, ...] = get_args(Kind)

PASSING: frozenset[Kind] = frozenset({"rate_limited", "timeout", "unreachable", "unavailable", "circuit_open"})
"""Kinds that may well be over when the same call is made again."""

UNCLEAR: frozenset[Kind] = frozenset({"timeout", "unreachable", "unavailable"})
"""Kinds after which nobody knows whether a call that did start took effect."""

_ABOUT_ARGUMENTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""What Python raises about a value or a line of code; it tells nothing about what stands behind the tool."""


class CallTimeout(TimeoutError):  # noqa: N818  # as CircuitOpen
    """A call was not answered within the seconds that ibidem gave it; the tool's own `TimeoutError` is another.

    Args:
        seconds: How long it was waited for.
        deadline: Whether the time of the whole call is over, rather than that of one attempt.
    """

    def __init__(self, seconds: float, *, deadline: bool = True) -> None:
        super().__init__(f"no answer within {seconds:g} s")
        self.seconds = seconds
        self.deadline = deadline


class CircuitOpen(ConnectionError):  # noqa: N818  # it says what is the case, as ConnectionError's subclasses do
    """A breaker kept a call from its tool, because what stands behind it has failed too often of late."""


class UpstreamFailed(RuntimeError):  # noqa: N818  # as CircuitOpen
    """A call was not made because of what became of one that it builds on."""


class ReturnedError(Exception):
    """Stands for the exception where a tool did not raise but returned its error."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How a call failed."""

    exception: Exception
    """What the tool raised, with its traceback; a `ReturnedError` where it returned its error."""
    kind: Kind = "tool_error"
    message: str = ""
    """A sentence that a model may read: no path, query, header, secret or traceback is in it."""
    retryable: bool = False
    """Whether the same call may be made again as it is, and might then succeed."""
    retry_after: float | None = None
    """Seconds that the other side asked to wait."""
    attempts: int = 1
    """How often the tool was tried."""
    may_have_run: bool = True
    """Whether it may have taken effect, as far as the exception tells: false if the request that failed never left."""
    deliberate: bool = False
    """Whether the tool, or the service behind it, works and refuses: a `ToolException`, or a reply of 409."""
    returned: bool = False
    """Whether the tool returned the error; `Outcome.value` is then what it returned."""

    def __post_init__(self) -> None:
        if not self.message:
            object.__setattr__(self, "message", safe_text(self.exception))

    @property
    def tells_of_dependency(self) -> bool:
        """Whether it says that something behind the tool does not work; bad arguments and refusals do not."""
        if self.kind == "tool_error":
            return not self.deliberate and not self.returned and not isinstance(self.exception, _ABOUT_ARGUMENTS)
        if self._never_began:
            return False
        return self.kind in PASSING or self.kind == "maybe_executed"

    @property
    def of_own_deadline(self) -> bool:
        """Whether the time of this very caller was over: no failure of those who wait with it."""
        return isinstance(self.exception, CallTimeout) and self.exception.deadline

    @property
    def may_still_act(self) -> bool:
        """Whether what it asked for may happen yet, although it has ended."""
        return self.may_have_run and self.kind in UNCLEAR

    @property
    def outcome_unknown(self) -> bool:
        """Whether a call that changes something may have done so, wholly or in part.

        Also where the request that failed never left: the tool may have made others before it.
        """
        return self.kind in UNCLEAR and not self._never_began

    @property
    def _never_began(self) -> bool:
        return isinstance(self.exception, CallTimeout) and not self.may_have_run

    def as_unknown(self) -> Fault:
        """Say of a call that changes something that nobody knows whether it did."""
        message = f"{self.message} Whether it was done, wholly or in part, is not known: look before you try again."
        return replace(self, kind="maybe_executed", message=message, retryable=False)

    def private(self) -> Fault | None:
        """Copy the fault for another caller; None if the exception cannot be copied exactly.

        Raising one exception object in several places grows its traceback at each of them.
        """
        original = self.exception
        try:
            twin = copy.copy(original)
            same = type(twin) is type(original) and twin.args == original.args and vars(twin) == vars(original)
        except Exception:
            return None
        if not same or twin is original:
            return None
        twin.__cause__, twin.__context__ = original.__cause__, original.__context__
        twin.__suppress_context__ = original.__suppress_context__
        return replace(self, exception=twin.with_traceback(original.__traceback__))


def is_interrupt(exc: BaseException) -> bool:
    """Whether a person is asked: LangGraph's `GraphInterrupt`."""
    return _is_a(exc, "GraphInterrupt")


def empty_interrupt() -> BaseException:
    """Make what ends a call that waits for an interrupted one: it asks nothing itself, and runs again on resume."""
    interrupt: type[BaseException] = sys.modules["langgraph.errors"].GraphInterrupt  # there was one, so it is imported
    return interrupt(())


def is_control_flow(exc: BaseException) -> bool:
    """Whether an exception is no failure: cancellation, LangGraph's bubbling ones, an invalid answer to an interrupt.

    Recognised by name and by what is already imported: the core imports no framework.
    """
    return not isinstance(exc, Exception) or _is_a(exc, "GraphBubbleUp") or is_refused_answer(exc)


def is_refused_answer(exc: BaseException) -> bool:
    """Whether an answer to an interrupt was none that it takes: the question stands, and is answered again."""
    errors = sys.modules.get("langgraph.errors")
    is_invalid_resume = getattr(errors, "is_invalid_resume", None)  # before LangGraph 1.2 there are none
    return is_invalid_resume is not None and bool(is_invalid_resume(exc))


def _is_a(exc: BaseException, name: str) -> bool:
    return any(c.__name__ == name and c.__module__ == "langgraph.errors" for c in type(exc).__mro__)
