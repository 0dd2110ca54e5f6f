"""What the calls of a node gave before somebody was asked, so that they are not made again when she has answered.

LangGraph runs a task that was interrupted again from its beginning, and a node of tools makes all calls of its message again, a
change too that was made already. It is otherwise where each call is sent as a task of its own, as `create_agent` does. So that
it is the same in both, the calls of a message are resumed as the steps of a plan are (`plan/resuming.py`): what has ended is not
made again, each call has the answers that were given to it, and what was begun and cut off is `maybe_executed`.

Kept in this process, while the task is interrupted. Elsewhere, and where a call is undeclared or runs graphs, all calls are made
again, as they would be without ibidem.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from ibidem.core.asker import running_config
from ibidem.core.call import Outcome
from ibidem.core.effects import Effect, Live, Pure, Read, Write
from ibidem.core.faults import Fault, empty_interrupt, is_interrupt
from ibidem.core.turns import State
from ibidem.plan.resuming import Attempt

_CUT = "It was begun before somebody was asked, and had not ended when she answered."


class Kept:
    """What is known of the calls of one message in one attempt at them.

    Args:
        attempt: The attempt.
        calls: Of the message, each an object of its own.
        effects: Theirs.
    """

    def __init__(self, attempt: Attempt, calls: Sequence[Mapping[str, Any]], effects: Sequence[Effect]) -> None:
        self._attempt = attempt
        self._effects = effects
        self._numbers = {id(call): number for number, call in enumerate(calls)}
        self._raised: dict[int, BaseException] = {}
        self._overs: dict[int, Future[None]] = {}
        known = {n: each for n in range(len(calls)) if (each := attempt.again(_unit(n), None)) is not None}
        self._running = {n: each.value[0] for n, each in known.items() if each.failed and _goes_on(*each.value)}
        """Calls that still run, left behind by another one of their node, which asked: what tells of their end."""
        cut = {n for n, each in known.items() if each.failed and effects[n].repeatable}
        self.ended = {n: each for n, each in known.items() if n not in cut | self._running.keys()}
        """What is not made again, by the number of the call: its outcome, whose value is what the node was given, and how it
        ended for the order of its turn."""
        asker = attempt.asker
        self.asker = int(asker[0]) if asker is not None and int(asker[0]) not in known else None
        """The number of the call whose question was shown: it goes first, or another that asks would end the attempt."""
        self._first, self._first_on_loop = threading.Event(), asyncio.Event()
        self._is_over = False
        """Whether the attempt has ended, or is about to: what has not begun begins in the next."""

    @classmethod
    def of(cls, calls: Sequence[Mapping[str, Any]], effects: Sequence[Effect | None]) -> Kept | None:
        """Begin an attempt; None where nothing is kept.

        Args:
            calls: Of the message.
            effects: Theirs; None: not known.
        """
        known = [each for each in effects if isinstance(each, (Pure, Read, Live, Write))]
        if len(known) < len(calls) or (running_config().get("configurable") or {}).get("thread_id") is None:
            return None
        attempt = Attempt.here(("calls", *((call["name"], call["id"]) for call in calls)))
        if attempt is None:
            return None
        if attempt.answers:  # to what was asked in another process
            attempt.forget()
            return None
        return cls(attempt, calls, known)

    def keep(self, call: Any, output: Any, told: State) -> None:
        """Note what a call gave, and how it ended for the order of its turn."""
        number = self._numbers[id(call)]
        self._attempt.settle(_unit(number), Outcome((output, told)))
        self._tell(number)

    def _tell(self, number: int) -> None:
        """Tell a later attempt that a call has ended."""
        over = self._overs.pop(number, None)
        if over is not None:
            over.set_result(None)

    # -- making a call

    def before(self, call: Any) -> Outcome | None:
        """Let the call go first, in threads, whose question was answered; if it asks once more, nothing else begins.

        Returns:
            What a call gave that still ran when the attempt began; None: make it.
        """
        number = self._numbers[id(call)]
        if self.asker is not None and number != self.asker:
            self._first.wait()
        if number in self._running:
            self._running[number].result()
        return self._begin(number)

    async def abefore(self, call: Any) -> Outcome | None:
        """Do the same on the running loop."""
        number = self._numbers[id(call)]
        if self.asker is not None and number != self.asker:
            await self._first_on_loop.wait()
        if number in self._running:
            await asyncio.wait([asyncio.wrap_future(self._running[number])])
        return self._begin(number)

    def _begin(self, number: int) -> Outcome | None:
        if self._is_over:
            raise empty_interrupt()
        known = self._attempt.again(_unit(number), None) if number in self._running else None
        return None if known is not None and known.failed and self._effects[number].repeatable else known

    @contextlib.contextmanager
    def around(self, call: Any, tool_runtime: Any) -> Iterator[Any]:
        """Note how a call ends that is made in this block, with the runtime that it is to have."""
        number = self._numbers[id(call)]
        effect, unit = self._effects[number], _unit(number)
        over = self._overs[number] = Future()
        fault = Fault(RuntimeError(_CUT), "tool_error", _CUT).as_unknown()
        self._attempt.settle(unit, Outcome((over, asyncio._get_running_loop()), fault), over=False)
        try:
            with self._attempt.around(unit, number + 1, hidden=False):
                configurable = running_config()["configurable"]
                yield replace(tool_runtime, config={**tool_runtime.config, "configurable": configurable})
        except BaseException as problem:
            self._raised[number] = problem
            self._is_over |= number == self.asker and is_interrupt(problem)
            if is_interrupt(problem) or isinstance(problem, Exception) or effect.repeatable:
                self._attempt.unsettle(unit)
            self._tell(number)
            raise
        finally:
            if number == self.asker:
                self._first.set()
                self._first_on_loop.set()

    # -- ending

    def left(self, flow: BaseException | None) -> None:
        """Note how the node was left: by what was raised or, None, with all its calls ended."""
        self._is_over = True
        if flow is not None and is_interrupt(flow):
            shown = next((number for number, raised in self._raised.items() if raised is flow), None)
            if shown is not None:
                self._attempt.shown(_unit(shown), flow)
        elif flow is None:
            self._attempt.finish()
            if (
                not self._attempt.has_asked
            ):  # else a run that is cancelled before the graph has saved this begins it again
                self._attempt.forget()
        elif isinstance(flow, Exception):  # if it is run once more, it begins anew
            self._attempt.finish()
            self._attempt.forget()


def _goes_on(over: Future[None], loop: asyncio.AbstractEventLoop | None) -> bool:
    """Whether a call still runs, and can be waited for."""
    return not over.done() and loop is not None and loop.is_running()


def _unit(number: int) -> tuple[str, int]:
    return str(number), -1
