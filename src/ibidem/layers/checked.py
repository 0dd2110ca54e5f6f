"""Checked: a memo that runs a share of its hits again, beside serving them, and stops where it was wrong.

The caller is given the remembered answer at once. The second run stores nothing, counts as nobody's call, and is no
part of the run it was made in: it asks no person, and writes to no stream. If it answers otherwise, and no change that
was told of explains that, the tool is remembered no more.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace

from ibidem.core import forks
from ibidem.core.asker import leave_run
from ibidem.core.call import Call, Inner, Key, Outcome, Work
from ibidem.core.pool import POOL
from ibidem.core.resources import Cell
from ibidem.layers.comparing import Answer
from ibidem.layers.deadline import begin
from ibidem.layers.memo import Memo
from ibidem.report.events import logger
from ibidem.report.trials import Trials, Verdict

AT_ONCE = 2
"""Second runs at a time: they must not take the places of calls that somebody waits for."""

REASON = "a second run answered otherwise than what was remembered"

apart: ContextVar[bool] = ContextVar("ibidem_apart", default=False)
"""Whether this is the body of a second run: what it calls is nobody's call, and none of it is served or stored."""


class Lots:
    """Draws the hits that are run again.

    Args:
        share: Of all hits, more than 0, at most 1.
        draw: Gives a number from 0 up to 1. Of its own by default: programs that seed `random` expect their numbers.
    """

    def __init__(self, share: float, draw: Callable[[], float] | None = None) -> None:
        self.draw = draw or random.Random().random  # noqa: S311
        self._share = share
        self._after_fork()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._drawn: set[Key] = set()
        """Drawn where no call was at hand: the next call of the key that is a hit is run again."""
        self._running: list[Callable[[], bool]] = []

    def drew(self, key: Key) -> bool:
        """Whether a hit is to go the long way, where there is a call that can be run again."""
        if key in self._drawn:
            return True
        if self.draw() >= self._share:
            return False
        with self._lock:
            if len(self._drawn) >= 1000:  # drawn, and never called again: one lost is one check less
                self._drawn.clear()
            self._drawn.add(key)
        return True

    def take(self, key: Key) -> bool:
        """Whether a hit of a call is to be run again now."""
        if key not in self._drawn and self.draw() >= self._share:
            return False
        with self._lock:
            self._drawn.discard(key)
            self._running = [running for running in self._running if running()]
            return len(self._running) < AT_ONCE

    def began(self, running: Callable[[], bool]) -> None:
        """Note a second run, and how to find out whether it still goes on."""
        with self._lock:
            self._running.append(running)


@dataclass(frozen=True, repr=False)
class Checked(Memo):
    """Serves as a memo does, and checks a share of what it serves."""

    trials: Trials
    tell: Callable[..., None]
    """Told of events."""
    lots: Lots

    def __repr__(self) -> str:
        return f"Checked({self.store!r})"

    async def __call__(self, call: Call, inner: Inner, /) -> Outcome:
        if apart.get() and not call.effect.changes:
            return await self._alone(call, inner)
        outcome = await super().__call__(call, inner)
        if outcome.how == "memo" and call.key is not None and self.lots.take(call.key):
            entry = self.known(call.key, call.asking)
            if entry is not None:  # another thread may have replaced it: then that one is what is served now
                again, answer = replace(call, work=Work()), Answer.of(self, call, entry)
                again.work.single = call.work.single
                age = self.store.now() - entry.stored_at
                self.lots.began(call.runtime.beside(lambda: self._check(again, inner, answer, age)))
        return outcome

    def glance(self, key: Key, asking: tuple[Cell, ...]) -> Outcome | None:
        """Answer as `find` does, but for the hits that are drawn."""
        if apart.get():
            return None
        outcome = self.find(key, asking)
        return None if outcome is None or self.lots.drew(key) else outcome

    async def _check(self, call: Call, inner: Inner, answer: Answer, age: float) -> None:
        """Run a call a second time and compare what it answers. Raises cancellation only: nobody is there to see more."""
        verdict: Verdict = "unclear"
        try:
            verdict = await self._second(call, inner, answer)
            if verdict == "differed":
                self.trials.distrust(call.tool, REASON)  # first: nothing of it is served or stored from here on
                POOL.submit(lambda: self._drop(call, age))  # a store may take its time, and this may be a loop
        except Exception:
            logger.exception("%s: a second run could not be judged", call.tool.name)
        finally:
            self.trials.judged(call.tool, verdict)

    async def _second(self, call: Call, inner: Inner, answer: Answer) -> Verdict:
        """Run a call in a context of its own, which is this coroutine's."""
        apart.set(True)
        leave_run()
        begin(call)  # its own time: that of the call it repeats is that call's
        try:
            verdict = answer.verdict(await inner(call))
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as flow:  # a background task that lets SystemExit pass ends the program
            self._mark(call, flow)
            return "unclear"
        return "unclear" if verdict == "failed" else verdict

    def _drop(self, call: Call, age: float) -> None:
        """Drop what is remembered of a tool that is not to be trusted, and tell."""
        name, dropped = call.tool.name, 0
        try:
            dropped = self.store.forget(lambda _, entry: entry.tool == name)
        except Exception:  # a database that is locked, say
            logger.exception("%s: its entries could not all be dropped; this guard serves none of them", name)
        logger.warning(
            "%s: %s %.1f s before, and no change that was told of explains it; the tool is not remembered any more, "
            "and its entries are dropped (%d). guard.report() says what to do",
            *(name, REASON, age, dropped),
        )
        self.tell("mismatch", name, call.asker.conversation[1], 0.0, age, REASON)
