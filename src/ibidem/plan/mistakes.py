"""Mistakes: what is wrong with a plan, all of it at once, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ibidem.report.words import cut

SHOWN = 20
"""Mistakes that a message names; the rest is counted."""


LONGEST = 600
"""Characters of a mistake that a message has."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong with a plan."""

    step: str | None
    """The id of the step; None: it is the plan as a whole."""
    message: str
    """What is wrong and how to mend it."""

    def __str__(self) -> str:
        return self.message if self.step is None else f"step {self.step!r}: {self.message}"


class PlanError(ValueError):
    """A plan that cannot run. It says everything that is wrong; nothing has run.

    Args:
        mistakes: At least one.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        lines = [f"- {cut(str(each), LONGEST)}" for each in self.mistakes[:SHOWN]]
        if len(self.mistakes) > SHOWN:
            lines.append(f"- and {len(self.mistakes) - SHOWN:,} more")
        super().__init__("\n".join(["the plan cannot run, and nothing has run:", *lines]))


def named(name: str) -> str:
    """Write a name that anybody may have chosen."""
    return repr(cut(name, 64))


def one(message: str, step: str | None = None) -> PlanError:
    """Make the error of a single mistake."""
    return PlanError([Mistake(step, message)])
