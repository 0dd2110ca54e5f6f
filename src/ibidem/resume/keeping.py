"""Keeping: what an attempt keeps of its calls, for those that come after it."""

from __future__ import annotations

from typing import Any

from ibidem.core.call import Outcome
from ibidem.core.effects import Effect, Live, Pure, Read
from ibidem.resume.records import Done, Record, Unit


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
            unit: The call, or all that is left of a mapped step.
            outcome: What it gave or, before it begins or where it was given up while it ran, what is to be said of it if it is cut off.
            over: Whether it has ended.
        """
        if over:
            self._has_ended(unit)
        self._record.done[unit] = Done(None, outcome)

    def unsettle(self, unit: Unit) -> None:
        """Let a call run again that has not ended after all."""
        self._record.done.pop(unit, None)
