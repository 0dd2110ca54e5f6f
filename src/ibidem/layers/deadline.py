"""Deadline: one budget of seconds for a call, its waits and its retries included."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from ibidem.core.call import Call, Inner, Outcome
from ibidem.core.policies import Policies


@dataclass(frozen=True)
class Deadline:
    """Sets the second until which a call is waited for: its tool's `timeout=`, and never later than its caller's own.

    It stops nothing itself. What waits looks at it: the memo before a flight, the retry before a pause, the timeout
    before the tool.
    """

    @staticmethod
    def wanted(policies: Policies) -> bool:
        return policies.timeout is not None

    def __call__(self, call: Call, inner: Inner, /) -> Awaitable[Outcome]:
        deadline = call.runtime.now() + (call.tool.policies.timeout or 0.0)
        if call.parent is not None:
            deadline = min([deadline, *(a.work.deadline for a in call.ancestors if a.work.deadline is not None)])
        call.work.deadline = deadline
        return inner(call)
