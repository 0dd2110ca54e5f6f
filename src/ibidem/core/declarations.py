"""Declarations: which effect a tool has, and where that was said."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ibidem.core.effects import MARK, UNDECLARED, Effect, Live, Read, Write

if TYPE_CHECKING:
    from ibidem.core.call import Tool


@dataclass(frozen=True)
class Declarations:
    """What a guard was told.

    The first that speaks wins, in this order: an exact name in `effects`, a glob in `effects` in the order written, `reads`, `writes` and `live`, the decorator,
    a trusted hint of an MCP server, `default`.
    """

    effects: Mapping[str, Effect] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    default: Effect | None = None

    @classmethod
    def of(cls, effects: Any, reads: Any, writes: Any, live: Any, default: Any) -> Declarations:
        """Read what a user wrote.

        Raises:
            TypeError: Something that is no effect or no list of names.
            ValueError: A name that is declared in contradicting ways.
        """
        effects = {} if effects is None else effects
        if not isinstance(effects, Mapping):
            raise TypeError(f"effects= is a dict of tool name to effect, not {effects!r}")
        for name, effect in effects.items():
            if not isinstance(name, str):
                raise TypeError(f"effects= is keyed by the names of tools, not by {name!r}")
            _effect(effect, f"effects[{name!r}]")
        if default is not None:
            _effect(default, "default=")
        made = cls(dict(effects), _globs(reads, "reads"), _globs(writes, "writes"), _globs(live, "live"), default)
        for pattern in made.patterns:
            lists = [f"{where}=" for where in ("reads", "writes", "live") if pattern in getattr(made, where)]
            if len(lists) > 1:
                raise ValueError(f"{pattern!r} is declared in {' and in '.join(lists)}: keep it in one of them")
        return made

    @property
    def patterns(self) -> list[str]:
        """Every name and glob, once."""
        return list(dict.fromkeys((*self.effects, *self.reads, *self.writes, *self.live)))

    def effect_of(self, name: str, decorated: Effect | None = None, hinted: Effect | None = None) -> tuple[Effect, str]:
        """Give the effect of a tool and where it was declared.

        Raises:
            ValueError: Two of `reads`, `writes` and `live` name it.
        """
        if name in self.effects:
            return self.effects[name], "effects"
        if decorated is not None and decorated.inside is not None:
            return decorated, "plan_tool"  # a glob for the tools of the plans is not about the plans
        for pattern, effect in self.effects.items():
            if fnmatch.fnmatchcase(name, pattern):
                return effect, f"effects[{pattern!r}]"
        lists = self._lists_with(name)
        if len(lists) > 1:
            raise ValueError(
                f"tool {name!r} is declared by {' and by '.join(lists)}: narrow one of them, "
                f"or give its exact name in effects={{{name!r}: ...}}, which wins"
            )
        if lists:
            made: dict[str, Effect] = {"reads": Read(), "writes": Write(), "live": Live()}
            return made[lists[0].partition("=")[0]], lists[0]
        if decorated is not None:
            return decorated, "decorator"
        if hinted is not None:
            return hinted, "MCP hint"
        if self.default is not None:
            return self.default, "default"
        return UNDECLARED, "nothing"

    def _lists_with(self, name: str) -> list[str]:
        """Give the lists that name a tool, each with its first pattern that does."""
        found: list[str] = []
        for where in ("reads", "writes", "live"):
            matching = [p for p in getattr(self, where) if p == name or fnmatch.fnmatchcase(name, p)]
            found.extend(f"{where}=[{pattern!r}]" for pattern in matching[:1])
        return found

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """Give the declared names and globs that match none of the tools."""
        names = list(names)
        return [p for p in self.patterns if p not in names and not any(fnmatch.fnmatchcase(n, p) for n in names)]


def decorated_effect(*things: Any) -> Effect | None:
    """Give the effect that a decorator left on one of these."""
    for thing in things:
        effect = getattr(thing, "__dict__", {}).get(MARK)
        if effect is None:
            effect = getattr(getattr(thing, "__func__", None), "__dict__", {}).get(MARK)  # a method's function
        if isinstance(effect, Effect):
            return effect
    return None


def check_fields(name: str, effect: Effect, parameters: frozenset[str] | None) -> None:
    """Refuse a template that names an argument the tool does not have.

    Raises:
        ValueError: It does; a resource that silently widened to everything would be a surprise, not a service.
    """
    batched = {effect.batch.arg} if effect.batch is not None and effect.batch.arg is not None else set()
    unknown = sorted(effect.fields.union(effect.secret, batched) - parameters) if parameters is not None else []
    if unknown:
        has = ", ".join(sorted(parameters or ())) or "none"
        raise ValueError(
            f"tool {name!r}: {effect!r} names the argument {unknown[0]!r}, which the tool does not have; it has: {has}"
        )


def check_filled(tool: Tool, names: frozenset[str] | None) -> None:
    """Refuse an `idempotency_key=` that names an argument the tool does not have.

    Args:
        tool: It may have none.
        names: Of all its arguments, those included that a framework fills in; None if it takes any.

    Raises:
        ValueError: It does: the key would reach nobody, and the write would be retried without it.
    """
    key = tool.effect.idempotency_key
    if key is not None and names is not None and key not in names:
        raise ValueError(
            f"tool {tool.name!r}: idempotency_key={key!r} names no argument of the tool; "
            f"it has: {', '.join(sorted(names)) or 'none'}"
        )


def _effect(value: Any, where: str) -> None:
    if isinstance(value, type) and issubclass(value, Effect):
        raise TypeError(f"{where} is the class {value.__name__}: write {value.__name__}() with brackets")
    if not isinstance(value, Effect):
        raise TypeError(f"{where} is no effect but {value!r}: give Pure(), Read(...), Live(), Write(...) or Nested()")


def _globs(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{where}= is a list of names or globs, such as {where}=['get_*'], not {value!r}")
    patterns = tuple(value)
    if not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise TypeError(f"{where}= is a list of names or globs, not {value!r}")
    return patterns
