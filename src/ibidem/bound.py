"""Bound guards: a guard, and who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibidem.core.asker import Given
from ibidem.running import Runner

if TYPE_CHECKING:
    from ibidem.guard import Guard


class Bound(Runner):
    """A guard and who asks. Accepted wherever a guard is."""

    def __init__(self, guard: Guard, given: Given) -> None:
        self.guard = guard
        self.given = given

    def __repr__(self) -> str:
        said = {name: value for name, value in self.given._asdict().items() if value is not None}
        return f"<{self.guard!r} bound to {said}>"

    def here(self) -> Bound:
        return self
