"""The form of a plan as data: JSON that a model, or another program, writes.

    {"steps": [{"id": "place", "tool": "geocode", "args": {"city": "Paris"}},
               {"id": "sky", "tool": "weather", "args": {"lat": "$place.lat", "lon": "$place.lon"}}]}

A reference is typed: a number arrives as a number. `{"$text": ["$place.name", " today"]}` makes text of parts. Text, or a
key, that begins with `$` is written with `$$`. What is read is data from anybody: it is checked, and never evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from ibidem.plan.mistakes import Mistake, PlanError, one
from ibidem.plan.references import IDENTIFIER, ITEM, Reference, Text, parse
from ibidem.plan.steps import OPS, Plan, check_condition

MAX_STEPS = 1_000
"""Steps that a plan may have if nothing else is said."""

MAX_CHARACTERS = 1_000_000
"""Characters of a plan that are read."""

MAX_DEPTH = 30
"""Levels that arguments may be nested."""

MAX_VALUES = 10_000
"""Values that the arguments, conditions and ids of a whole plan may have."""

MAX_REFERENCES = 200
"""References that the arguments of a step may have: each is a copy of a result, however large that is."""

MAX_MISTAKES = 50
"""Mistakes after which nobody looks for more."""

_FIELDS = ("id", "tool", "args", "after", "map", "when", "optional")

_ANY: dict[str, Any] = {"type": "object", "additionalProperties": True}
_STEP: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "letters, digits, _ and -"},
        "tool": {"type": "string"},
        "args": {**_ANY, "description": 'values may be references such as "$place.lat" or "$found.results[0].id"'},
        "after": {"type": "array", "items": {"type": "string"}, "description": "ids to wait for without using results"},
        "map": {"type": "string", "description": 'reference to a list: run once per element, which is "$item" in args'},
        "when": {
            "description": "run only if all of these hold",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"ref": {"type": "string"}, "op": {"enum": list(OPS)}, "value": {}},
                "required": ["ref", "op"],
                "additionalProperties": False,
            },
        },
        "optional": {"type": "boolean", "description": "if it fails, steps that use it get null"},
    },
    "required": ["id", "tool"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": _STEP}},
    "required": ["steps"],
    "additionalProperties": False,
}
"""The JSON schema of a plan. `when` may also be a single condition."""


def read(document: Any, *, max_steps: int = MAX_STEPS) -> Plan:
    """Read a plan, from text or from what JSON says.

    Raises:
        PlanError: Mistakes, all of them.
    """
    told = _loaded(document) if isinstance(document, (str, bytes)) else document
    if not isinstance(told, Mapping) or not isinstance(told.get("steps"), list):
        raise one('a plan is {"steps": [{"id": ..., "tool": ..., "args": {...}}, ...]}')
    unknown = [str(name)[:40] for name in told if name != "steps"]
    if unknown:
        raise one(f"a plan has steps and nothing else, not {unknown[0]!r}")
    if len(told["steps"]) > max_steps:
        raise one(f"the plan has {len(told['steps']):,} steps, and may have {max_steps:,}: make several plans of it")
    reader = _Reader()
    for number, step in enumerate(told["steps"], 1):
        reader.step(number, step)
        if len(reader.mistakes) >= MAX_MISTAKES:
            break
    if reader.mistakes:
        raise PlanError(reader.mistakes)
    return reader.plan


def _loaded(document: str | bytes) -> Any:
    if len(document) > MAX_CHARACTERS:
        raise one(f"the plan has {len(document):,} characters, and may have {MAX_CHARACTERS:,}")
    try:
        return json.loads(document, parse_constant=_no_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as problem:
        raise one(f"the plan is no JSON: {str(problem)[:200] or 'it is nested too deeply'}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has one key twice")
    return found


class _Reader:
    """Reads steps, and goes on after a mistake to find the others."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.mistakes: list[Mistake] = []
        self._values = 0
        self._references = 0

    def step(self, number: int, told: Any) -> None:
        name = told.get("id") if isinstance(told, Mapping) else None
        if not isinstance(told, Mapping) or not isinstance(name, str):
            self._wrong(None, f'step {number} is no step: it is {{"id": ..., "tool": ..., "args": {{...}}}}')
            return
        shown = name[:64]
        if not IDENTIFIER.fullmatch(name) or name == ITEM:
            self._wrong(
                shown, "an id begins with a letter, has letters, digits, _ and -, 64 at most, and is not 'item'"
            )
            return
        if name in self.plan.steps:
            self._wrong(shown, "two steps have this id")
            return
        for field in told:
            if field not in _FIELDS:
                self._wrong(shown, f"there is no {str(field)[:40]!r} in a step; there are: {', '.join(_FIELDS)}")
        tool, arguments = told.get("tool"), told.get("args", {})
        if not isinstance(tool, str):
            self._wrong(shown, "tool is the name of a tool")
            tool = ""
        if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
            self._wrong(shown, "args is an object of arguments by name")
            arguments = {}
        self._references = 0
        step = self.plan.add(name, tool, {key: self._value(shown, value, 1) for key, value in arguments.items()})
        after, optional = told.get("after", []), told.get("optional", False)
        if isinstance(after, str):
            after = [after]
        if not isinstance(after, list) or not all(isinstance(each, str) for each in after):
            self._wrong(shown, "after is a list of ids of steps")
        else:
            self._count(len(after))
            step.afters.extend(each.removeprefix("$") for each in after)
        if not isinstance(optional, bool):
            self._wrong(shown, "optional is true or false")
        step.is_optional = optional is True
        if told.get("map") is not None:
            step.over = self._reference(shown, told["map"])
        self._conditions(shown, told.get("when"))

    def _conditions(self, name: str, told: Any) -> None:
        for condition in told if isinstance(told, list) else [] if told is None else [told]:
            if not isinstance(condition, Mapping) or not {"ref", "op"} <= condition.keys() <= {"ref", "op", "value"}:
                self._wrong(
                    name, f'when is {{"ref": "$step.key", "op": ..., "value": ...}}; op is one of {", ".join(OPS)}'
                )
                continue
            reference = self._reference(name, condition["ref"])
            if reference is None:
                continue
            try:
                op = condition["op"]
                value = condition.get("value", True if op == "exists" else None)
                self._count(len(value) if isinstance(value, (list, Mapping)) else 1)
                check_condition(reference, op, value)
                self.plan.steps[name].when(reference, op, value)
            except (TypeError, ValueError) as problem:
                self._wrong(name, str(problem)[:300])

    def _value(self, name: str, value: Any, depth: int) -> Any:
        """Read an argument, with references where they are written."""
        self._count(1)
        if depth > MAX_DEPTH:
            self._wrong(name, f"args are nested more than {MAX_DEPTH} levels deep")
            return None
        if isinstance(value, str):
            if value.startswith("$$"):
                return value[1:]
            return self._reference(name, value) if value.startswith("$") else value
        if isinstance(value, list):
            return [self._value(name, part, depth + 1) for part in value]
        if isinstance(value, Mapping):
            if value.keys() == {"$text"}:
                return self._text(name, value["$text"])
            found = {}
            for key, part in value.items():
                if not isinstance(key, str) or (key.startswith("$") and not key.startswith("$$")):
                    self._wrong(name, f"{str(key)[:40]!r}: a key that begins with $ is written with $$")
                    continue
                found[key[1:] if key.startswith("$$") else key] = self._value(name, part, depth + 1)
            return found
        if value is None or isinstance(value, (bool, int, float)):
            return value
        self._wrong(name, f"a {type(value).__name__} is nothing that JSON has")
        return None

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise one(f"the plan has more than {MAX_VALUES:,} values: make several plans of it")

    def _text(self, name: str, parts: Any) -> Any:
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            self._wrong(name, '{"$text": [...]} is a list of texts and references')
            return None
        found = [self._value(name, part, 1) for part in parts]
        return Text(tuple(part for part in found if part is not None))

    def _reference(self, name: str, told: Any) -> Reference | None:
        self._references += 1
        if self._references > MAX_REFERENCES:
            raise one(f"it has more than {MAX_REFERENCES} references: make several steps of it", name)
        try:
            if not isinstance(told, str):
                raise ValueError('a reference is text such as "$step.key"')  # noqa: TRY004, TRY301
            source, path = parse(told)
        except ValueError as problem:
            self._wrong(name, str(problem)[:300])
            return None
        return Reference(self.plan, source, path)

    def _wrong(self, name: str | None, message: str) -> None:
        if len(self.mistakes) < MAX_MISTAKES:
            self.mistakes.append(Mistake(name, message))


def write(plan: Plan) -> dict[str, Any]:
    """Write a plan as data.

    Raises:
        PlanError: An argument is nothing that JSON has.
    """
    steps = []
    mistakes: list[Mistake] = []
    for step in plan.steps.values():
        told: dict[str, Any] = {"id": step.id, "tool": step.tool_name}
        try:
            told["args"] = {name: _written(value) for name, value in step.arguments.items()}
            when = [{"ref": c.reference.spelled, "op": c.op, "value": _plain(c.value)} for c in step.conditions]
        except (TypeError, RecursionError) as problem:
            mistakes.append(Mistake(step.id, str(problem) or "it is nested too deeply"))
            continue
        told |= {"after": list(step.afters)} if step.afters else {}
        told |= {"map": step.over.spelled} if step.over is not None else {}
        told |= {"when": when} if when else {}
        told |= {"optional": True} if step.is_optional else {}
        steps.append(told)
    if mistakes:
        raise PlanError(mistakes)
    return {"steps": steps}


def _written(value: Any) -> Any:
    if isinstance(value, Reference):
        return value.spelled
    if isinstance(value, Text):
        return {"$text": [_written(part) for part in value.parts]}
    if isinstance(value, str):
        return f"${value}" if value.startswith("$") else value
    if isinstance(value, (list, tuple)):
        return [_written(part) for part in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a dict with keys that are no text is nothing that JSON has")
        return {f"${key}" if key.startswith("$") else key: _written(part) for key, part in value.items()}
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part) for part in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(part) for key, part in value.items()}
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    raise TypeError(f"{value!r:.80} is nothing that JSON has")
