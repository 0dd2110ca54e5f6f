"""What the calls of a node gave before somebody was asked, so that they are not made again when she has answered.

LangGraph runs a task that was interrupted again from its beginning, and a node of tools makes all calls of its message again, a
change too that was made already. It is otherwise where each call is sent as a task of its own, as `create_agent` does. So that
it is the same in both, the calls of a message are resumed as the steps of a plan are (`resume/attempts.py`): what has ended is not
made again, each call has the answers that were given to it, and what was begun and cut off is `maybe_executed`.

Where a call is undeclared or runs graphs, or nothing of what was saved can be had, all calls are made again, as they would be
without ibidem.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ibidem.core.asker import running_config
from ibidem.core.call import Outcome
from ibidem.core.effects import Effect, Live, Pure, Read, Write
from ibidem.core.faults import Fault, empty_interrupt, is_interrupt, is_refused_answer
from ibidem.core.turns import State, Turn
from ibidem.resume.attempts import Attempt
from ibidem.resume.scratchpad import CHECKPOINTER, PAD, Own

SOON = 0.1
"""Seconds that a question waits for changes that run beside it: what has not ended by then is saved as begun, and then anew."""


class Gave(NamedTuple):
    """What a call gave its node."""

    output: Any
    told: State
    """How it ended for the order of its turn."""


class Begun(NamedTuple):
    """That a call was begun; nothing else is known until it has ended."""

    over: asyncio.Future[None] | None
    """Tells when it has ended. None: it runs in a thread, for whose end its node waits."""

    @classmethod
    def here(cls) -> Begun:
        loop = asyncio._get_running_loop()
        return cls(None if loop is None else loop.create_future())

    @property
    def goes_on(self) -> bool:
        """Whether it still runs and can be waited for, on the loop that runs here."""
        over = self.over
        return over is not None and not over.done() and over.get_loop() is asyncio._get_running_loop()

    @property
    def fault(self) -> Fault:
        """What is said of a change that was cut off."""
        said = "It was begun before somebody was asked, and had not ended when she answered."
        return Fault(RuntimeError(said), "tool_error", said).as_unknown()


class Written:
    """Gives of calls, as a checkpointer's own serializer writes them; what it cannot give back exactly was cut off.

    Args:
        serde: The serializer.
    """

    def __init__(self, serde: Any) -> None:
        self._serde = serde

    def write(self, outcome: Outcome) -> Any:
        if not isinstance(outcome.value, Gave):
            return None
        output, told = outcome.value
        try:
            kind, text = self._serde.dumps_typed(output)
            again = self._serde.loads_typed((kind, text))
            return (
                [kind, text, told]
                if type(again) is type(output) and self._serde.dumps_typed(again)[1] == text
                else None
            )
        except Exception:  # whatever a value of the user's, or its class, may raise
            return None

    def read(self, written: Any) -> Outcome:
        if written is None:
            return Outcome(Begun(None))
        kind, text, told = written
        return Outcome(Gave(self._serde.loads_typed((kind, text)), told))


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
        self._overs: dict[int, asyncio.Future[None] | None] = {}
        known: dict[int, Gave | Begun] = {
            number: each.value
            for number in range(len(calls))
            if (each := attempt.again(_unit(number), None)) is not None
        }
        begun = {number: each for number, each in known.items() if isinstance(each, Begun)}
        self._running = {number: each.over for number, each in begun.items() if each.over is not None and each.goes_on}
        """Calls that still run, left behind by another one of their node, which asked: what tells of their end."""
        again = {number for number in begun if effects[number].repeatable}
        self.ended = {number: each for number, each in known.items() if number not in again | self._running.keys()}
        """What is known of the calls that are not made again, by their numbers."""
        asker = attempt.asker
        self.asker = int(asker[0]) if asker is not None and int(asker[0]) not in known else None
        """The number of the call whose question was shown: it goes first, or another that asks would end the attempt."""
        self._before: frozenset[int] = frozenset()
        self._first, self._first_on_loop = threading.Event(), asyncio.Event()
        self._is_new = attempt.unsaved is None
        """Whether nothing has to be saved before a call is made."""
        self._saving, self._saving_on_loop = threading.Lock(), asyncio.Lock()
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
        if not 1 < len(calls) == len(known):
            return None
        configurable = running_config().get("configurable") or {}
        counter = getattr(configurable.get(PAD), "interrupt_counter", None)
        is_inside = isinstance(counter, Own)  # a call of another node's, or of a plan's
        if configurable.get("thread_id") is None or is_inside:
            return None
        form = Written(getattr(configurable.get(CHECKPOINTER), "serde", None))
        attempt = Attempt.here(("calls", *((call["name"], call["id"]) for call in calls)), form)
        if attempt is None:
            return None
        if attempt.answers and not attempt.is_lost:  # and nobody knows to what
            attempt.forget()
            return None
        return cls(attempt, calls, known)

    def first(self, turn: Turn | None, numbers: Sequence[int]) -> list[int]:
        """Give the calls that go first: the one whose question was answered, after those that it must not pass.

        Args:
            turn: That of the calls.
            numbers: Of the calls that are made.
        """
        asker, places = self.asker, turn.places if turn is not None else []
        if asker is None or asker not in numbers:
            self.asker = None
            return []
        first = {asker}
        for number in range(asker - 1, -1, -1) if places else ():
            if number in numbers and any(places[each].needs(places[number]) for each in first):
                first.add(number)
        self._before = frozenset(first)
        return [*(number for number in numbers if number in first and number != asker), asker]

    def keep(self, call: Any, output: Any, told: State) -> None:
        """Note what a call gave, and how it ended for the order of its turn."""
        number = self._numbers[id(call)]
        self._attempt.settle(_unit(number), Outcome(Gave(output, told)))
        self._tell(number)

    def _tell(self, number: int) -> None:
        """Tell a later attempt that a call has ended."""
        over = self._overs.pop(number, None)
        if over is not None and not over.done():
            over.set_result(None)

    # -- making a call

    def before(self, call: Any) -> Gave | Begun | None:
        """Let the call go first, in threads, whose question was answered; if it asks once more, nothing else begins.

        Returns:
            What became of a call that still ran when the attempt began; None: make it.
        """
        number = self._numbers[id(call)]
        if not self._is_new:
            with self._saving:
                self._attempt.save()
        if self.asker is not None and number not in self._before:
            self._first.wait()
        return self._begin(number)

    async def abefore(self, call: Any) -> Gave | Begun | None:
        """Do the same on the running loop."""
        number = self._numbers[id(call)]
        if not self._is_new:
            async with self._saving_on_loop:
                await self._attempt.asave()
        if self.asker is not None and number not in self._before:
            await self._first_on_loop.wait()
        if number in self._running:
            await asyncio.wait([self._running[number]])
        return self._begin(number)

    def _begin(self, number: int) -> Gave | Begun | None:
        if self._is_over:
            raise empty_interrupt()
        if self._effects[number].repeatable and number not in self._running:
            return None
        outcome = self._attempt.again(_unit(number), None)
        known: Gave | Begun | None = None if outcome is None else outcome.value
        if known is None and self._attempt.is_unknown:
            known = Begun(None)
        if isinstance(known, Begun) and self._effects[number].repeatable:
            return None
        if known is not None:
            self._goes(number)
        return known

    def _goes(self, number: int) -> None:
        """Let the others begin if it was this call that goes first."""
        if number == self.asker:
            self._first.set()
            self._first_on_loop.set()

    @contextlib.contextmanager
    def around(self, call: Any, tool_runtime: Any) -> Iterator[None]:
        """Note how a call ends that is made in this block, and give it a scratchpad of its own."""
        number = self._numbers[id(call)]
        effect, unit = self._effects[number], _unit(number)
        begun = Begun.here()
        self._overs[number] = begun.over
        self._attempt.settle(unit, Outcome(begun), over=False)
        try:
            with self._attempt.around(unit, number + 1, hidden=False):
                tool_runtime.config = {**tool_runtime.config, "configurable": running_config()["configurable"]}
                yield
        except BaseException as problem:
            self._raised[number] = problem
            self._is_over |= number == self.asker and is_interrupt(problem)
            if is_interrupt(problem) or isinstance(problem, Exception) or effect.repeatable:
                self._attempt.unsettle(unit)
            self._tell(number)
            raise
        finally:
            self._goes(number)

    # -- ending

    def left(self, flow: BaseException | None) -> None:
        """Note how the node was left: by what was raised or, None, with all its calls ended."""
        self._is_over = True
        if flow is not None and is_interrupt(flow):
            shown = next((number for number, raised in self._raised.items() if raised is flow), None)
            if shown is None:
                self._attempt.stop()
            else:
                self._attempt.shown(_unit(shown), flow)
        elif flow is not None and is_refused_answer(flow):
            self._attempt.stop()
        elif flow is None or isinstance(flow, Exception):
            self._attempt.finish()
            if flow is not None or not self._attempt.has_asked:
                self._attempt.forget()  # but not what the graph has not saved yet: a run cancelled now has asked already

    def save(self) -> None:
        """Save what a later attempt is to know, if there is anything."""
        self._attempt.save()

    async def asave(self) -> None:
        """Do the same on an event loop, where calls may still run that the question has left behind."""
        if self._attempt.unsaved is None:
            return
        changing = [over for number, over in self._overs.items() if over and not self._effects[number].repeatable]
        if changing:
            await asyncio.wait(changing, timeout=SOON)
            self._attempt.note()
        await self._attempt.asave()

    async def alate(self) -> None:
        """Save what a call has given that the question has left behind."""
        if self._is_over and self._attempt.is_current:
            self._attempt.note()
            await self._attempt.asave()


def _unit(number: int) -> tuple[str, int]:
    return str(number), -1
