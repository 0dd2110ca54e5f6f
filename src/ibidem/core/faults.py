"""Faults: failures as values, and the control flow that is none."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """How a call failed."""

    exception: Exception
    """What the tool raised, with its traceback."""

    @property
    def message(self) -> str:
        return str(self.exception) or type(self.exception).__name__

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
        return Fault(twin.with_traceback(original.__traceback__))


def is_interrupt(exc: BaseException) -> bool:
    """Whether a person is asked: LangGraph's `GraphInterrupt`."""
    return _is_a(exc, "GraphInterrupt")


def is_control_flow(exc: BaseException) -> bool:
    """Whether an exception is no failure: cancellation, LangGraph's bubbling ones, an invalid answer to an interrupt.

    Recognised by name and by what is already imported: the core imports no framework.
    """
    if not isinstance(exc, Exception) or _is_a(exc, "GraphBubbleUp"):
        return True
    errors = sys.modules.get("langgraph.errors")
    is_invalid_resume = getattr(errors, "is_invalid_resume", None)  # before LangGraph 1.2 there are none
    return is_invalid_resume is not None and bool(is_invalid_resume(exc))


def _is_a(exc: BaseException, name: str) -> bool:
    return any(c.__name__ == name and c.__module__ == "langgraph.errors" for c in type(exc).__mro__)
