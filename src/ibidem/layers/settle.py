"""Settling: when a change is over, and what is said of one of which nobody knows whether it took effect.

A change stays open until every attempt has really ended. Where that tells how it ended, it closes there. Where it does not
(the answer was lost, the time was over), the other side may still act: then it stays open for the effect's `settle=`
seconds more, in which nothing that it touches is remembered. A function that is no coroutine function may give a coroutine
all the same, through a decorator say: what it does it does when that is awaited, so the change stays open until then.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from ibidem.core.call import Call, Outcome
from ibidem.core.classify import fault_of
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
            call.runtime.later(_settle(call), lambda: close(ended))

    call.work.when_ended(over)


def as_told(call: Call, outcome: Outcome) -> Outcome:
    """Say of a declared write that it may have been executed, where nobody knows, and trying again might do it twice."""
    fault = outcome.fault
    if fault is None or not fault.outcome_unknown or not isinstance(call.effect, Write) or call.effect.idempotent:
        return outcome
    return replace(outcome, fault=fault.as_unknown())


def open_until_awaited(call: Call, value: Any) -> Any:
    """Keep a change open whose tool has given something to await, and give that.

    A coroutine or a future is seen to end; one that nobody awaits keeps it open for good, as a thread that never ends does.
    Of anything else it cannot be told, and it has the effect's `settle=` seconds.
    """
    if not inspect.isawaitable(value):
        return value
    over: concurrent.futures.Future[None] = concurrent.futures.Future()
    call.work.leave_behind(lambda tell: over.add_done_callback(lambda _: tell(None)))

    def ended(*_: object) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            over.set_result(None)

    if isinstance(value, asyncio.Future):
        value.add_done_callback(ended)
        return value
    if not inspect.iscoroutine(value):
        call.runtime.later(_settle(call), ended)
        return value
    awaited: Any = _awaited(call, value, ended)
    awaited.__name__, awaited.__qualname__ = value.__name__, value.__qualname__
    return awaited


async def _awaited(call: Call, coroutine: Coroutine[Any, Any, Any], ended: Callable[[], None]) -> Any:
    try:
        value = await coroutine
    except Exception as problem:
        if fault_of(problem, call.tool.policies.faults).may_still_act:
            call.runtime.later(_settle(call), ended)
        else:
            ended()
        raise
    except BaseException:
        ended()
        raise
    ended()
    return value


def _settle(call: Call) -> float:
    return call.effect.settle if isinstance(call.effect, Write) else SETTLE
