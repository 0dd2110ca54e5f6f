"""Execute: the innermost step, where the tool runs and failures become values."""

from __future__ import annotations

from dataclasses import dataclass

from ibidem.core.call import Call, Inner, Outcome
from ibidem.core.faults import Fault, is_control_flow


@dataclass(frozen=True)
class Execute:
    """Runs the tool. What it raises becomes a fault; control flow passes."""

    async def __call__(self, call: Call, inner: Inner | None = None, /) -> Outcome:  # noqa: ARG002
        began = call.runtime.now()
        try:
            value = await call.runtime.invoke(call)
        except Exception as problem:
            if isinstance(problem.__cause__, StopIteration) and str(problem) == "coroutine raised StopIteration":
                problem = problem.__cause__  # no coroutine lets it pass: this is how it arrives from a function
            if is_control_flow(problem):
                raise
            return Outcome(fault=Fault(problem), elapsed=call.runtime.now() - began)
        return Outcome(value, elapsed=call.runtime.now() - began)
