"""Settling: when a change is over, and what is said of one of which nobody knows whether it took effect.

A change stays open until every attempt has really ended. Where that tells how it ended, it closes there. Where it does not
(the answer was lost, the time was over), the other side may still act: then it stays open for the effect's `settle=`
seconds more, in which nothing that it touches is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ibidem.core.call import Call, Outcome
from ibidem.core.effects import SETTLE, Write


def close_when_over(call: Call, close: Callable[[Outcome | None], None], outcome: Outcome) -> None:
    """Close a change when it can no longer act.

    Args:
        call: The change.
        close: Raises what it touched; given how it ended, as far as that is known.
        outcome: What its caller gets.
    """

    def over(late: Outcome | None) -> None:
        ended = late if outcome.fault is not None and late is not None else outcome
        if ended.fault is None or not ended.fault.may_still_act:
            close(ended)
        else:
            settle = call.effect.settle if isinstance(call.effect, Write) else SETTLE
            call.runtime.later(settle, lambda: close(ended))

    call.work.when_ended(over)


def as_told(call: Call, outcome: Outcome) -> Outcome:
    """Say of a declared write that it may have been executed, where nobody knows, and trying again might do it twice."""
    fault = outcome.fault
    if fault is None or not fault.outcome_unknown or not isinstance(call.effect, Write) or call.effect.idempotent:
        return outcome
    return replace(outcome, fault=fault.as_unknown())
