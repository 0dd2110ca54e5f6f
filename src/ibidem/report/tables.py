"""Answers of a guard that are lists: what was declared, and what is remembered. In Jupyter they draw themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ibidem.core.call import Key, Tool
from ibidem.core.effects import Pure
from ibidem.report.views import Table
from ibidem.stores.protocol import Entry

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Explained:
    """One tool: its effect, where that was declared, and how its results are kept apart."""

    tool: str
    effect: str
    declared: str
    """Where: `effects`, a glob, `decorator`, `MCP hint`, `default` or `nothing`."""
    ttl: str
    scope: str
    identity: str
    """What stands for the tool's code; `object:` begins one that holds in this process only."""
    note: str
    """Why it is not remembered although its effect would allow it."""

    @classmethod
    def of(cls, tool: Tool) -> Explained:
        effect = tool.effect
        ttl = "" if not effect.remembered else "until a write" if effect.ttl is None else f"{effect.ttl:g} s"
        if isinstance(effect, Pure) and effect.ttl is None:
            ttl = "none"
        scope, identity = (effect.scope, tool.identify()) if effect.merge else ("", "")
        return cls(tool.name, repr(effect), tool.origin, ttl, scope, identity, tool.reason or "")


@dataclass(frozen=True, slots=True)
class EntryView:
    """One remembered result."""

    tool: str
    arguments: str
    """As canonical JSON."""
    conversation: str
    scope: str
    age: float
    """Seconds since it was read."""
    ttl: float | None
    """Seconds it lives from when it was read; None: until a write."""
    size: int
    """Bytes, estimated."""
    value: Any

    @classmethod
    def of(cls, key: Key, entry: Entry, now: float) -> EntryView:
        return cls(
            entry.tool,
            key.arguments.decode("utf-8", "replace"),
            entry.conversation,
            key.partition[0] if key.partition[0] in ("user", "shared") else "conversation",
            max(0.0, now - entry.stored_at),
            entry.ttl,
            entry.size,
            entry.value,
        )


@dataclass(frozen=True, slots=True)
class CircuitView:
    """The breaker of one tool, or of what stands behind several."""

    name: str
    state: str
    """`closed`: calls are let through; `open`: they are not; `half-open`: one tries."""
    failures: int
    """One after the other, up to now."""
    opened: int
    """How often it has opened."""
    seconds_left: float
    """For how long no call is let through."""


@dataclass(frozen=True, slots=True, repr=False)
class Rows(Generic[Row]):
    """A list of rows that draws itself."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()

    def _table(self) -> Table:
        raise NotImplementedError


class Explanation(Rows[Explained]):
    """What a guard knows of tools."""

    def _table(self) -> Table:
        names = ["tool", "effect", "declared", "ttl", "scope", "identity", "note"]
        return Table("ibidem: what is declared", names, [[getattr(row, name) for name in names] for row in self.rows])


class Entries(Rows[EntryView]):
    """What a guard remembers."""

    def _table(self) -> Table:
        rows = [
            [
                row.tool,
                _short(row.arguments),
                row.conversation,
                row.scope,
                f"{row.age:.1f}",
                "until a write" if row.ttl is None else f"{row.ttl:g}",
                row.size,
                _short(repr(row.value)),
            ]
            for row in self.rows
        ]
        names = ["tool", "arguments", "conversation", "scope", "age s", "ttl s", "bytes", "value"]
        return Table("ibidem: what is remembered", names, rows)


class Circuits(Rows[CircuitView]):
    """The breakers of a guard that calls have met."""

    def _table(self) -> Table:
        rows = [[row.name, row.state, row.failures, row.opened, f"{row.seconds_left:.1f}"] for row in self.rows]
        return Table("ibidem: breakers", ["of", "state", "failures", "opened", "seconds left"], rows)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
