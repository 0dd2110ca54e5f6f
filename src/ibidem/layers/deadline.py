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
        begin(call)
        return inner(call)


def begin(call: Call) -> None:
    """Let the time of a call begin, if it has one."""
    timeout = call.tool.policies.timeout
    if timeout is not None:
        above = (each.work.deadline for each in call.ancestors)
        call.work.deadline = min([call.runtime.now() + timeout, *(each for each in above if each is not None)])
