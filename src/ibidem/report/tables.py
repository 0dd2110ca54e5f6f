"""Answers of a guard that are lists: what was declared, and what is remembered. In Jupyter they draw themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ibidem.core.call import Key, Tool
from ibidem.core.effects import Pure
from ibidem.report import views
from ibidem.report.words import amount, counted, cut, representation
from ibidem.stores.protocol import Entry

Row = TypeVar("Row")

_SECRET = re.compile(r'\{"\\u0000secret":"([0-9a-f]{8})[0-9a-f]*"\}')
"""What stands for a secret argument. Within a text of the user's the quotation marks would be escaped."""


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

    def _table(self) -> views.Table:
        raise NotImplementedError


class Explanation(Rows[Explained]):
    """What a guard knows of tools."""

    def _table(self) -> views.Table:
        rows = [
            [row.tool, row.effect, row.declared, row.ttl, row.scope, views.Long(row.identity, 20), row.note]
            for row in self.rows[: views.ROWS]
        ]
        names = ["tool", "effect", "declared", "ttl", "scope", "identity", "note"]
        title = f"ibidem: what is declared of {counted(len(self.rows), 'tool')}" if rows else "ibidem: tools"
        return views.Table(title, names, rows, len(self.rows) - len(rows))


class Entries(Rows[EntryView]):
    """What a guard remembers."""

    def _table(self) -> views.Table:
        rows = [
            [
                row.tool,
                views.Long(_SECRET.sub(r'"[secret \1]"', row.arguments)),
                row.conversation,
                row.scope,
                f"{row.age:.1f}",
                "until a write" if row.ttl is None else f"{row.ttl:g}",
                row.size,
                views.Long(representation(row.value)),
            ]
            for row in self.rows[: views.ROWS]
        ]
        names = ["tool", "arguments", "conversation", "scope", "age s", "ttl s", "bytes", "value"]
        held = f"{counted(len(self.rows), 'result')}, {amount(sum(row.size for row in self.rows))}"
        title = f"ibidem: {held} remembered" if rows else "ibidem: what is remembered"
        return views.Table(title, names, rows, len(self.rows) - len(rows))


class Circuits(Rows[CircuitView]):
    """The breakers of a guard that calls have met."""

    def _table(self) -> views.Table:
        rows = [[row.name, row.state, row.failures, row.opened, f"{row.seconds_left:.1f}"] for row in self.rows]
        return views.Table("ibidem: breakers", ["of", "state", "failures", "opened", "seconds left"], rows)


def overview(layers: Iterable[Any], *answers: Any) -> str:
    """Draw the layers that a call passes, in order, and answers of a guard below them."""
    chain = " &rarr; ".join(f"<code>{views.escaped(cut(representation(layer), 300))}</code>" for layer in layers)
    return views.page(f"<div>call &rarr; {chain} &rarr; tool</div>") + "".join(each._repr_html_() for each in answers)
