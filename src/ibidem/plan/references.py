"""References: what stands in a plan for the result of a step, or for a part of it, until that is there.

A reference goes by keys of dicts and positions of lists only, never by attributes: it reaches nothing but what a result
contains. Where a result is text that holds JSON, as many tools answer, a reference goes into what the text says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ibidem.core.copies import NotCopied, private

ITEM = "item"
"""What a mapped step calls the element that one of its calls is for."""

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""How a step may be called."""

MAX_CHARACTERS = 1_000_000
"""Characters that a text with results in it may have."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PART = re.compile(r"\.(-?\d+)(?![^.\[])|\.([^.\[\]]+)|\[(-?\d+)\]|\[(\"(?:[^\"\\]|\\.)*\")\]")
_LONGEST = 500
_MOST_DIGITS = 9

_PLAIN_VALUES = frozenset({str, int, float, bool, type(None)})

Key = str | int


class NotThere(LookupError):  # noqa: N818  # as LookupError's other subclasses are told: by what is the case
    """A reference leads to nothing; the message says where it ends."""


class Reference:
    """Stands for the result of a step, or a part of it: `place["lat"]`, `found["results"][0]["id"]`."""

    __slots__ = ("owner", "path", "source")

    def __init__(self, owner: Any, source: str, path: tuple[Key, ...] = ()) -> None:
        self.owner = owner
        """The plan it belongs to; None: any."""
        self.source = source
        """The id of the step, or `item`."""
        self.path = path

    def __getitem__(self, key: Key) -> Reference:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise TypeError(
                f"a reference goes by a key or a position, such as place['lat'] or found[0], not by {key!r}"
            )
        if is_dunder(key):
            raise TypeError(f"a reference reaches what results contain, and never {key!r}")
        return Reference(self.owner, self.source, (*self.path, key))

    def __repr__(self) -> str:
        return f"<{self.spelled}>"

    @property
    def spelled(self) -> str:
        """How it is written in a plan that is data."""
        return f"${self.source}" + "".join(_spelled(key) for key in self.path)

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise TypeError(f"{self.spelled} has no value before the plan runs, so it {what}: {instead}")

    def __str__(self) -> str:  # noqa: PLE0307  # it raises
        self._refuse("cannot become text here", 'write ibidem.text("{} today", reference), or repr() to look at it')

    def __format__(self, spec: str) -> str:
        self._refuse("cannot stand in an f-string", 'write ibidem.text("{} today", reference) instead')

    def __bool__(self) -> bool:  # noqa: PLE0304  # it raises
        self._refuse("is neither true nor false", 'let a step depend on it: step.when(reference, "eq", value)')

    def __iter__(self) -> Iterator[Any]:
        self._refuse("cannot be gone through", "let a step run once for each element: step.map(over=reference)")

    def _compared(self, other: object) -> NoReturn:  # noqa: ARG002  # as Python calls it
        self._refuse("cannot be compared here", 'let a step depend on it: step.when(reference, "eq", value)')

    __lt__ = __le__ = __gt__ = __ge__ = _compared

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, Reference) else self._compared(other)

    __hash__ = object.__hash__

    def __contains__(self, item: object) -> bool:
        self._refuse("contains nothing yet", 'let a step depend on it: step.when(reference, "exists")')


@dataclass(frozen=True, slots=True)
class Text:
    """Text with results in it, made when they are there."""

    parts: tuple[str | Reference, ...]


def text(template: str, *references: Any) -> Text:
    """Make text with results in it: `ibidem.text("{} today", place["name"])`.

    Args:
        template: Each `{}` stands for the next reference; `{{` and `}}` for a brace.
        *references: A text of a result stands as it is, anything else as JSON.

    Raises:
        TypeError: Something that is no reference or plain value.
        ValueError: More or fewer references than places, or a brace that stands alone.
    """
    if not isinstance(template, str):
        raise TypeError(f"text(template, ...): the template is text with a {{}} for each reference, not {template!r}")
    pieces = re.split(r"(\{\{|\}\}|\{\}|[{}])", template)
    parts: list[str | Reference] = []
    left = list(references)
    for piece in pieces:
        if piece == "{}":
            if not left:
                raise ValueError(f"text({template!r}, ...) has more places than references")
            parts.append(left.pop(0))
        elif piece in ("{", "}"):
            raise ValueError(f"text({template!r}, ...): write {{}} for a reference, and {{{{ or }}}} for a brace")
        elif piece:
            parts.append(piece[0] if piece in ("{{", "}}") else piece)
    if left:
        raise ValueError(f"text({template!r}, ...) has fewer places than references")
    if not all(isinstance(part, (str, Reference)) for part in parts):
        raise TypeError(f"text({template!r}, ...) takes references; put other values into the template itself")
    return Text(tuple(parts))


def parse(spelled: str) -> tuple[str, tuple[Key, ...]]:
    """Read `$place.lat`, `$found.results[0].id` or `$found["a key"]`: the step's id and the path.

    Raises:
        ValueError: It is no reference.
    """
    head = IDENTIFIER.match(spelled, 1) if spelled.startswith("$") and len(spelled) <= _LONGEST else None
    if head is None:
        raise ValueError(
            f"{spelled[:80]!r} is no reference: write $step, $step.key or $step.list[0]; text that begins with $ as $$"
        )
    path: list[Key] = []
    at = head.end()
    while at < len(spelled):
        part = _PART.match(spelled, at)
        if part is None:
            raise ValueError(
                f'{spelled[:80]!r}: after $step come .key, [0] or ["a key"]; text that begins with $ as $$'
            )
        dotted, name, position, quoted = part.groups()
        digits = dotted if dotted is not None else position
        if digits is not None and len(digits) > _MOST_DIGITS:
            raise ValueError(f"{spelled[:80]!r}: no list is that long")
        key: Key = int(digits) if digits is not None else name if name is not None else _unquoted(quoted)
        if is_dunder(key):
            raise ValueError(f"{spelled[:80]!r}: a reference reaches what results contain, and never {key!r}")
        path.append(key)
        at = part.end()
    return head.group(), tuple(path)


def _unquoted(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        raise ValueError(f"{quoted[:80]} is no key in quotes") from None


def _spelled(key: Key) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN.fullmatch(key) else f"[{json.dumps(key)}]"


def is_dunder(key: object) -> bool:
    """Whether a key is a name that Python keeps for itself."""
    return isinstance(key, str) and key.startswith("__")


def found_in(value: Any) -> list[Reference]:
    """Give the references in an argument, nested ones included."""
    found: list[Reference] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[Reference]) -> None:
    kind = type(value)
    if kind in _PLAIN_VALUES:
        return
    if isinstance(value, Reference):
        found.append(value)
    elif kind is Text:
        found.extend(part for part in value.parts if isinstance(part, Reference))
    elif kind is dict:
        for part in value.values():
            _collect(part, found)
    elif kind is list or kind is tuple:
        for part in value:
            _collect(part, found)


def filled(value: Any, look: Callable[[Reference], Any]) -> Any:
    """Put the results in the place of references; what has none stays as it is."""
    kind = type(value)
    if kind in _PLAIN_VALUES:
        return value
    if isinstance(value, Reference):
        found = look(value)
        return found if type(found) in _PLAIN_VALUES else own(found)
    if kind is Text:
        return _joined(value, look)
    if kind is dict:
        return {name: filled(part, look) for name, part in value.items()}
    if kind is list:
        return [filled(part, look) for part in value]
    if kind is tuple:
        return tuple([filled(part, look) for part in value])
    return value


def _joined(text: Text, look: Callable[[Reference], Any]) -> str:
    parts, left = [], MAX_CHARACTERS
    for part in text.parts:
        parts.append(part if isinstance(part, str) else as_text(look(part)))
        left -= len(parts[-1])
        if left < 0:  # of results that are made of each other, a text of a plan of ten steps would fill the memory
            raise NotThere(f"a text with results in it has more than {MAX_CHARACTERS:,} characters")
    return "".join(parts)


def own(value: Any) -> Any:
    """Give each who refers to a result a copy of its own: tools change what they are given."""
    try:
        return private(value)
    except NotCopied:  # a generator, an open file: there is one
        return value


def as_text(value: Any) -> str:
    """Write a result as part of a text: text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except Exception:
        raise NotThere(f"a result of type {type(value).__name__} cannot become part of a text") from None


def follow(value: Any, reference: Reference) -> Any:
    """Go from the result of a step to what a reference means.

    Raises:
        NotThere: It leads to nothing, or the result cannot be looked at.
    """
    try:
        return _followed(value, reference)
    except NotThere:
        raise
    except Exception as problem:  # a result may be anything: a row of a database that is closed, say
        raise NotThere(f"{reference.spelled}: looking at the result raised {type(problem).__name__}") from problem


def _followed(value: Any, reference: Reference) -> Any:
    for key in reference.path:
        if isinstance(value, str):
            value = _read(value, reference)
        if isinstance(value, Mapping):
            known: Any = key if key in value else str(key) if isinstance(key, int) else key
            if known not in value:
                raise NotThere(f"{reference.spelled}: there is no {key!r}; there are: {_names(value)}")
            value = value[known]
        elif isinstance(value, (list, tuple)):
            if not isinstance(key, int):
                raise NotThere(f"{reference.spelled}: {key!r} of a list; give a position, such as [0]")
            if not -len(value) <= key < len(value):
                raise NotThere(f"{reference.spelled}: there is no [{key}]; the list has {len(value)}")
            value = value[key]
        else:
            raise NotThere(f"{reference.spelled}: {key!r} of {_kind(value)}, which is neither a dict nor a list")
    return value


def _read(value: str, reference: Reference) -> Any:
    if value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    raise NotThere(f"{reference.spelled}: the result is text and not JSON, so it has no parts")


def _names(value: Mapping[Any, Any]) -> str:
    names = [repr(name)[:40] for name, _ in zip(value, range(10), strict=False)]
    return ", ".join(names) + (", ..." if len(value) > len(names) else "") or "none"


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
