"""Hazards: which calls must keep the order in which they were asked for, because one may change what the other touches.

As in a processor: a read after a write, a write after a read, a write after a write, of overlapping resources. Everything else
may run at once. `Pure` touches nothing; a `Nested` call's inner calls speak for themselves; an undeclared one runs as it would
without ibidem.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ibidem.core.effects import Effect, Nested, Pure
from ibidem.core.resources import Resource, overlap

Kind = Literal["read after write", "write after read", "write after write"]


class Access(NamedTuple):
    """What a call does to what."""

    effect: Effect
    touched: tuple[Resource, ...] | None
    """None: that cannot be told beforehand, so it may be anything."""


def access(effect: Effect, touched: tuple[Resource, ...] | None) -> Access:
    """Say what a call of a turn does to what, its own inner calls included where it answers for them."""
    return effect.inside or Access(effect, touched)


class Hazard(NamedTuple):
    """One reason why one call waits for another; both by their place in the order."""

    earlier: int
    later: int
    kind: Kind


class After(NamedTuple):
    """An earlier call of the same turn that a call was ordered after."""

    number: int
    """Its place in the turn, from 1."""
    tool: str
    reason: Kind
    ended: str
    """`done`, `failed`, `unknown` or `interrupted`; `late`: it was not waited for any longer."""

    def __str__(self) -> str:
        how = "" if self.ended == "done" else f", {self.ended}"
        return f"{self.number} {self.tool} ({self.reason}{how})"


def hazard(earlier: Access, later: Access) -> Kind | None:
    """Say why the later of two calls must wait for the earlier; None: it need not."""
    if not (is_ordered(earlier.effect) and is_ordered(later.effect)):
        return None
    writes = earlier.effect.changes, later.effect.changes
    if not any(writes):
        return None
    if earlier.touched is not None and later.touched is not None and not overlap(earlier.touched, later.touched):
        return None
    return "write after write" if all(writes) else "read after write" if writes[0] else "write after read"


def hazards(accesses: Sequence[Access]) -> Iterator[Hazard]:
    """Give every hazard between calls, in the order in which they were asked for."""
    for later, access in enumerate(accesses):
        for earlier in range(later):
            kind = hazard(accesses[earlier], access)
            if kind is not None:
                yield Hazard(earlier, later, kind)


def is_ordered(effect: Effect) -> bool:
    """Whether calls with this effect take part in the order of their turn."""
    return effect.declared and not isinstance(effect, (Pure, Nested))
