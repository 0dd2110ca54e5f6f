"""Records: what is known of the plans, and of the nodes of calls, that a task of a graph has begun.

They are kept in this process, of the last tasks, and saved where a graph is resumed from: beside what its checkpointer keeps
of the task that asks (`plan/saving.py`). Only plain values are written, exactly; of a change that gave anything else, that
it was made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from ibidem.core.call import Outcome
from ibidem.core.effects import Effect, Live, Pure, Read
from ibidem.core.equality import same
from ibidem.core.faults import Fault
from ibidem.stores.codec import NotEncoded, decode, encode

Unit = tuple[str, int]
"""A call of a plan: the step's id, and the number of the element or -1."""


class Form(Protocol):
    """How outcomes are written."""

    def write(self, outcome: Outcome) -> Any:
        """Make an outcome plain.

        Raises:
            NotEncoded: A part of it cannot be written.
        """

    def read(self, written: Any) -> Outcome:
        """Give the outcome that was written."""
        ...


class Plain:
    """Outcomes with plain values; of a fault all but its exception."""

    def write(self, outcome: Outcome) -> Any:
        fault = outcome.fault
        told = fault and {name: getattr(fault, name) for name in _TOLD}
        return [encode(outcome.value), told, outcome.how, outcome.attempts]

    def read(self, written: Any) -> Outcome:
        value, told, how, attempts = written
        fault = None if told is None else Fault(RuntimeError(told["message"]), **told)
        return Outcome(decode(value), fault, how=how, attempts=attempts)


PLAIN: Form = Plain()

_TOLD = [each.name for each in fields(Fault) if each.name != "exception"]


class Digest(bytes):
    """What is saved of arguments: enough to tell them from others."""

    @classmethod
    def of(cls, arguments: Any) -> Digest:
        """Make it.

        Raises:
            NotEncoded: They are no plain values.
        """
        return cls(blake2b(encode(arguments), digest_size=16).digest())


class Done(NamedTuple):
    """A call that is not made again."""

    arguments: Any
    outcome: Outcome
    harmless: bool = False
    """Whether it may be made again where what it gave is not known."""

    def fits(self, arguments: Any) -> bool:
        """Whether it was a call with these arguments, as far as that can be told."""
        if not isinstance(self.arguments, Digest):
            return same(self.arguments, arguments) is not False
        with contextlib.suppress(NotEncoded):
            return self.arguments == Digest.of(arguments)
        return False


@dataclass(slots=True)
class Record:
    """What is known of a plan that was begun in a task."""

    form: Form
    done: dict[Unit, Done] = field(default_factory=dict)
    """What has ended and, as `maybe_executed`, what was begun."""
    elements: dict[str, list[Any]] = field(default_factory=dict)
    """By mapped step that may change something: what it goes over, since it was begun first."""
    asker: Unit | None = None
    """Whose question was shown last."""
    question: list[Any] = field(default_factory=list)
    """What it asked."""
    offset: int = 0
    """How many answers the task had when the asker began to ask."""
    found: int = 0
    """Answers that nobody had had yet when the plan was first heard of here: it had been begun, and nothing of that is known."""
    used: int = 0
    """Answers that finished steps have had."""
    base: int = 0
    """How many questions the task had asked before the plan began."""
    questions: dict[Unit, Any] = field(default_factory=dict)
    """What calls asked before they were made, as it is saved, to tell whether an answer is to the same question."""
    is_cut: bool = False
    """Whether it was run further in another process, and nothing is known of how far it came."""
    is_running: bool = True
    """Whether it may come further than is known of it when it is written."""

    def write(self) -> dict[str, Any]:
        """Make the record plain, but for questions, which the checkpointer can write; calls may end meanwhile."""
        done = [each for each in (self._one(*ended) for ended in list(self.done.items())) if each]
        elements = {}
        for step, held in list(self.elements.items()):
            try:
                elements[step] = encode(held)
            except NotEncoded as problem:
                done.append([step, -1, b"", self.form.write(_lost(problem))])
        numbers = [self.offset, self.found, self.used, self.base]
        asker = None if self.asker is None else list(self.asker)
        return {
            "done": done,
            "elements": elements,
            "questions": [[*unit, asked] for unit, asked in list(self.questions.items())],
            "asker": asker,
            "question": self.question,
            "numbers": numbers,
            "is_cut": self.is_cut or self.is_running,
        }

    def _one(self, unit: Unit, done: Done) -> list[Any] | None:
        try:
            arguments = done.arguments if isinstance(done.arguments, Digest) else Digest.of(done.arguments)
            return [*unit, bytes(arguments), self.form.write(done.outcome)]
        except NotEncoded as problem:  # a change is known by its place
            return None if done.harmless else [*unit, b"", self.form.write(_lost(problem))]

    @classmethod
    def read(cls, written: Mapping[str, Any], form: Form) -> Record:
        """Read what `write` wrote."""
        done = {
            (step, element): Done(Digest(arguments), form.read(outcome))
            for step, element, arguments, outcome in written["done"]
        }
        elements = {step: decode(held) for step, held in written["elements"].items()}
        asker = None if written["asker"] is None else (written["asker"][0], written["asker"][1])
        questions = {(step, element): asked for step, element, asked in written["questions"]}
        offset, found, used, base = written["numbers"]
        return cls(
            form, done, elements, asker, written["question"], offset, found, used, base, questions, written["is_cut"]
        )


class Keeping:
    """What an attempt keeps of its calls."""

    _record: Record
    _taken: int
    """The answers that the asker has had in this attempt."""

    @property
    def answers(self) -> int:
        """Answers to questions of which nothing is known; 1 at the least where nothing is known of what had finished."""
        return self._record.found

    @property
    def is_unknown(self) -> bool:
        """Whether calls that are not known to have ended may have been made."""
        return self._record.is_cut or self._record.found > 0

    @property
    def has_asked(self) -> bool:
        """Whether a question of it was shown."""
        return bool(self._record.question)

    @property
    def asker(self) -> Unit | None:
        """The call whose question was shown, and which is begun first."""
        return self._record.asker

    def again(self, unit: Unit, arguments: Any) -> Outcome | None:
        """Give what a call that must not run twice has given already."""
        is_fixed = unit[1] < 0 or unit[0] in self._record.elements
        done = self._record.done.get(unit)
        return done.outcome if done and (is_fixed or done.fits(arguments)) else None

    def elements(self, step: str) -> list[Any] | None:
        """Give what a mapped step that may change something goes over; None: it has not begun."""
        return self._record.elements.get(step)

    def begin(self, step: str, elements: list[Any]) -> None:
        """Note what a mapped step that may change something goes over."""
        self._record.elements[step] = elements

    def keep(self, unit: Unit, arguments: Any, effect: Effect, outcome: Outcome) -> None:
        """Keep what a call has given, where it must not run again."""
        answered = self._has_ended(unit)
        if isinstance(effect, (Pure, Read)) and not answered:
            return
        if isinstance(effect, Live) and outcome.failed:
            return
        self._record.done[unit] = Done(arguments, outcome, isinstance(effect, (Pure, Read, Live)))

    def _has_ended(self, unit: Unit) -> bool:
        """Note that a call has ended; true if it was the asker, which has its answers now."""
        if unit != self._record.asker:
            return False
        self._record.used += self._taken
        self._record.asker, self._taken = None, 0
        return True

    def settle(self, unit: Unit, outcome: Outcome, *, over: bool = True) -> None:
        """Keep what a call has given, whatever it does, in the place of what was kept before.

        Args:
            unit: The call.
            outcome: What it gave or, before it begins, what is to be said of it if it is cut off.
            over: Whether it has ended.
        """
        if over:
            self._has_ended(unit)
        self._record.done[unit] = Done(None, outcome)

    def unsettle(self, unit: Unit) -> None:
        """Let a call run again that has not ended after all."""
        self._record.done.pop(unit, None)

    def cut(self, unit: Unit, fault: Fault) -> None:
        """Keep that a call, or all that is left of a mapped step, was given up while it ran: it is not run again."""
        self._record.done[unit] = Done(None, Outcome(fault=fault))


def _lost(problem: NotEncoded) -> Outcome:
    said = f"It was made before somebody was asked, by another process; what it gave is not known here: {problem}."
    return Outcome(fault=Fault(RuntimeError(said), "maybe_executed", f"{said} Look before you make it again."))
