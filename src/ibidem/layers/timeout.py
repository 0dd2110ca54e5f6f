"""Timeout: no caller waits for a tool longer than it has time, whatever the tool does about being cancelled.

A coroutine runs as a task of its own and is cancelled when the time is over; it is not waited for, as it may swallow that.
A synchronous tool runs in a daemon thread with its caller's context variables; it cannot be stopped and goes on alone. Its
late result is kept if it is a read and nothing that it read has changed; the resources of a change stay open until it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ibidem.core.call import Call, Inner, Outcome
from ibidem.core.classify import fault_of
from ibidem.core.faults import CallTimeout
from ibidem.core.policies import Policies


@dataclass(frozen=True)
class Timeout:
    """Ends the wait for an attempt when the time of the call, or of the attempt, is over."""

    @staticmethod
    def wanted(policies: Policies) -> bool:
        return policies.timeout is not None or policies.attempt_timeout is not None

    async def __call__(self, call: Call, inner: Inner, /) -> Outcome:
        part, left = call.tool.policies.attempt_timeout, call.remaining()
        if left is not None and left <= 0:
            return out_of_time(call)
        of_attempt = part is not None and (left is None or part < left)
        seconds = part if of_attempt and part is not None else left or 0.0
        behind, began = len(call.work.strays), call.runtime.now()

        async def step() -> Outcome:
            return await inner(call)

        outcome = await call.runtime.limited(call, step(), seconds)
        if outcome is not None:
            return outcome
        problem = CallTimeout(round(seconds, 3), deadline=not of_attempt)
        over = _over(call, problem, began=len(call.work.strays) > behind)
        return replace(over, elapsed=call.runtime.now() - began)


def out_of_time(call: Call) -> Outcome:
    """Say that the time of a call was over before its tool was reached."""
    return _over(call, CallTimeout(call.tool.policies.timeout or 0.0), began=False)


def _over(call: Call, problem: CallTimeout, *, began: bool) -> Outcome:
    return Outcome(fault=replace(fault_of(problem, call.tool.policies.faults), may_have_run=began))
