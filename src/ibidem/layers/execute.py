"""Execute: the innermost step, where the tool runs and failures become values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ibidem.core.batches import ItemsFailed
from ibidem.core.call import Call, Inner, Outcome, Tool
from ibidem.core.classify import fault_of, returned_fault, returns_error
from ibidem.core.faults import Fault, is_control_flow
from ibidem.layers.settle import open_until_awaited
from ibidem.report.events import logger


@dataclass(frozen=True)
class Execute:
    """Runs the tool. What it raises becomes a fault; control flow passes."""

    async def __call__(self, call: Call, inner: Inner | None = None, /) -> Outcome:  # noqa: ARG002
        began = call.runtime.now()
        try:
            value = await call.runtime.invoke(call)
        except ItemsFailed as problem:
            return Outcome(fault=problem.fault, elapsed=call.runtime.now() - began)
        except Exception as problem:
            if isinstance(problem.__cause__, StopIteration) and str(problem) == "coroutine raised StopIteration":
                problem = problem.__cause__  # no coroutine lets it pass: this is how it arrives from a function
            if is_control_flow(problem):
                raise
            raised = fault_of(problem, call.tool.policies.faults)
            return Outcome(fault=raised, elapsed=call.runtime.now() - began)
        if call.work.held and not call.awaits and type(value) not in _SAY_NOTHING:
            value = open_until_awaited(call, value)
        returned = returned_by(call.tool, value) if call.tool.policies.looks_at_results else None
        return Outcome(value, returned, elapsed=call.runtime.now() - began)


_SAY_NOTHING = frozenset({str, int, float, bool, type(None), bytes, list, tuple})
"""Types that cannot say by themselves that they report an error."""


def returned_by(tool: Tool, value: Any) -> Fault | None:
    """Make a fault of a result that reports an error, by its own words or by the tool's `is_error=`."""
    test = tool.policies.is_error
    if test is not None:
        try:
            return returned_fault(value) if test(value) else None
        except Exception:
            logger.exception("%s: is_error= failed; the result is taken to report an error", tool.name)
            return returned_fault(value)
    if type(value) in _SAY_NOTHING or not returns_error(value):
        return None
    return returned_fault(value)
