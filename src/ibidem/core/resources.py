r"""Resources: what a call reads or writes, named as paths of segments.

`order:42:items` is a path of three segments. A trailing `*` names a path and everything below it. Two resources
overlap exactly as this table says; `stamps.py` keeps it by looking at and raising the cells given below.

| write \\ read  | `order` | `order:1` | `order:1:items` | `order:*` | `order:1:*` | `*` |
|---|---|---|---|---|---|---|
| `order`       | yes | -   | -   | yes | -   | yes |
| `order:1`     | -   | yes | -   | yes | yes | yes |
| `order:*`     | yes | yes | yes | yes | yes | yes |
| `order:1:*`   | -   | yes | yes | yes | yes | yes |
| `*`           | yes | yes | yes | yes | yes | yes |
"""

from __future__ import annotations

import enum
import itertools
import string
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

Cell = tuple[str, ...]
"""A place where a stamp stands: its kind (`node`, `any` below, `all` below, or an asker's kind), then the path."""


class Resource(NamedTuple):
    """A path of literal segments and whether everything below it is meant too."""

    path: tuple[str, ...]
    below: bool = False

    def __str__(self) -> str:
        literal = [s.replace("\\", "\\\\").replace(":", "\\:").replace("*", "\\*") for s in self.path]
        return ":".join([*literal, "*"] if self.below else literal)

    @property
    def read_cells(self) -> tuple[Cell, ...]:
        """The cells that a read of this resource looks at."""
        above = tuple(("all", *self.path[:n]) for n in range(len(self.path)))
        if self.below:
            return (*above, ("node", *self.path), ("any", *self.path), ("all", *self.path))
        return (*above, ("node", *self.path))

    @property
    def write_cells(self) -> tuple[Cell, ...]:
        """The cells that a write of this resource raises."""
        above = tuple(("any", *self.path[:n]) for n in range(len(self.path)))
        if self.below:
            return (*above, ("node", *self.path), ("all", *self.path))
        return (*above, ("node", *self.path))


EVERYTHING = Resource((), below=True)
"""What `*` names."""

Spec = str | Callable[[Mapping[str, Any]], Iterable[Any]]
"""How a resource is declared: a template such as `order:{order_id}`, or `arguments -> resources`."""


class ResourceError(ValueError):
    """A resource that cannot be read; the message says what to write instead."""


@dataclass(frozen=True)
class Template:
    """A declared resource: segments whose `{fields}` are filled in from the arguments of a call."""

    text: str
    segments: tuple[tuple[tuple[str, str | None], ...], ...]
    """One tuple a segment: pairs of literal text and the field that follows it, or None."""
    below: bool

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template.

        Raises:
            ResourceError: An empty template or segment, `*` anywhere but as the last segment, or a field that is more
                than the plain name of an argument.
        """
        if not isinstance(text, str) or not text:
            raise ResourceError(f"a resource is a text such as 'order:{{order_id}}' or a callable, not {text!r}")
        parts: list[list[tuple[str, str | None]]] = [[]]
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as problem:
            raise ResourceError(f"resource {text!r}: {problem}; fields are written {{name}}") from None
        for literal, field, spec, conversion in parsed:
            first, *others = literal.split(":")
            parts[-1].append((first, None))
            parts.extend([(other, None)] for other in others)
            if field is not None:
                if not field.isidentifier() or spec or conversion:
                    raise ResourceError(
                        f"resource {text!r}: a field is the plain name of an argument, as in 'order:{{order_id}}'; "
                        f"for {{{field}}} give a callable: lambda args: [('order', args[...])]"
                    )
                parts[-1].append(("", field))
        segments = [tuple(p for p in part if p != ("", None)) for part in parts]
        below = segments[-1] == (("*", None),)
        if below:
            segments.pop()
        for segment in segments:
            if not segment:
                raise ResourceError(f"resource {text!r} has an empty segment")
            if any("*" in literal for literal, _ in segment):
                raise ResourceError(f"resource {text!r}: '*' stands only as the last segment, as in 'order:*'")
        return cls(text, tuple(segments), below)

    @property
    def fields(self) -> frozenset[str]:
        """The names of the arguments that it needs."""
        return frozenset(field for segment in self.segments for _, field in segment if field)

    def fill(self, arguments: Mapping[str, Any]) -> list[Resource]:
        """Name the resources of one call.

        Arguments are literals: a `*` or `:` in them means itself. None, a missing argument, an empty list, or a value
        without an obvious text widens the resource to everything below what precedes it; a list names each element.
        """
        path = []
        for segment in self.segments:
            text = ""
            for literal, field in segment:
                value = arguments.get(field) if field else literal
                if type(value) is not str:
                    return self._fill_with_each(arguments)
                text += value
            path.append(text)
        return [Resource(tuple(path), self.below)]

    def _fill_with_each(self, arguments: Mapping[str, Any]) -> list[Resource]:
        """Do the same for arguments that are not all text: each may name several segments, or none."""
        choices: list[list[str]] = []
        below = self.below
        for segment in self.segments:
            alternatives = [texts(arguments.get(field)) if field else [""] for _, field in segment]
            if not all(alternatives):
                below = True
                break
            literals = [literal for literal, _ in segment]
            choices.append(
                [
                    "".join(itertools.chain.from_iterable(zip(literals, values, strict=True)))
                    for values in itertools.product(*alternatives)
                ]
            )
        return [Resource(path, below) for path in itertools.product(*choices)]


def texts(value: Any) -> list[str]:
    """Give the segments that a value names; none where it has no obvious text.

    `42`, `42.0` and `"42"` are one resource: a read and a write rarely agree on more than that.
    """
    try:
        return _texts(value)
    except (ValueError, RecursionError):  # more digits than the interpreter prints, a list in itself
        return []


def _texts(value: Any) -> list[str]:
    if isinstance(value, enum.Enum):
        return _texts(value.value)
    if isinstance(value, str):
        return [str(value)]
    if isinstance(value, float):
        return [str(int(value)) if value.is_integer() else repr(value)]
    if isinstance(value, (bool, int, uuid.UUID)):
        return [str(value)]
    if isinstance(value, Decimal):
        whole = value.is_finite() and value.adjusted() < 400 and value == value.to_integral_value()
        return [str(int(value)) if whole else str(value)]
    if isinstance(value, date):  # a datetime is one too
        return [value.isoformat()]
    if isinstance(value, (list, tuple, set, frozenset)):
        each = [_texts(element) for element in value]
        return [text for found in each for text in found] if all(each) else []
    return []


def parse_answer(answer: Any) -> tuple[Resource, ...]:
    """Read what a callable answered: an iterable of tuples of literal segments, or of strings that are patterns.

    Raises:
        ResourceError: It answered anything else.
    """
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable):
        raise ResourceError(f"a callable answers a list of resources, not {answer!r}")
    found = []
    for item in answer:
        if isinstance(item, tuple) and item and all(isinstance(segment, str) for segment in item):
            found.append(Resource(tuple(item)))
        elif isinstance(item, str):
            template = Template.parse(item)
            if template.fields:
                raise ResourceError(f"{item!r} is a template: give what it stands for here, such as 'order:42'")
            found.extend(template.fill({}))
        else:
            raise ResourceError(f"a resource is a text or a tuple of texts, not {item!r}")
    return tuple(found)


def read_cells(resources: Iterable[Resource]) -> tuple[Cell, ...]:
    """The cells that a read of all of these looks at, each once."""
    return tuple(dict.fromkeys(cell for resource in resources for cell in resource.read_cells))


def write_cells(resources: Iterable[Resource]) -> tuple[Cell, ...]:
    """The cells that a write of all of these raises, each once."""
    return tuple(dict.fromkeys(cell for resource in resources for cell in resource.write_cells))


def overlap(written: Iterable[Resource], read: Iterable[Resource]) -> bool:
    """Tell whether a write of the first touches a read of the second."""
    return not set(write_cells(written)).isdisjoint(read_cells(read))
