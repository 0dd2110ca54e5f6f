"""Deadline: one budget of seconds for a call, its waits and its retries included."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

from ibidem.core.call import Call, Inner, Outcome


@dataclass(frozen=True)
class Deadline:
    """Sets the second until which a call is waited for: its tool's `timeout=`, and never later than its caller's own.

    It stops nothing itself. What waits looks at it: the memo before a flight, the retry before a pause, the timeout
    before the tool.
    """

    def __call__(self, call: Call, inner: Inner, /) -> Awaitable[Outcome]:
        seconds = call.tool.policies.timeout
        if seconds is not None:
            deadline = call.runtime.now() + seconds
            above = [a.work.deadline for a in call.ancestors if a.work.deadline is not None] if call.parent else []
            call.work.deadline = min([deadline, *above])
        return inner(call)
