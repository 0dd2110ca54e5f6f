"""The tools of a plan: how a step calls one through the guard, and what can be told of the call before it is made."""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import sys
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ibidem import running
from ibidem.bound import Bound
from ibidem.core.asker import NOBODY
from ibidem.core.call import Outcome
from ibidem.core.declarations import decorated_effect
from ibidem.core.effects import Effect
from ibidem.core.hazards import Access
from ibidem.core.runtime import BLOCKING, Runtime
from ibidem.guard import Guard
from ibidem.plan.mistakes import named
from ibidem.plan.references import found_in
from ibidem.plan.steps import name_of
from ibidem.wrapping import _process_guard, adapt, binding_of

_FILLED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Callee:
    """A tool as the steps of one run call it.

    Args:
        target: A LangChain tool, a function tool of Anthropic's SDK or a function, wrapped or not.
        guard: What its calls pass; None: its own, or that of the process.

    Raises:
        TypeError: It cannot be wrapped.
        ValueError: It passes another guard already.
    """

    def __init__(self, target: Any, guard: Guard | Bound | None) -> None:
        if isinstance(guard, Guard):
            guard = Bound(guard, NOBODY)
        self.bound: Bound = guard or binding_of(target) or Bound(_process_guard(), NOBODY)
        self.name = name_of(target)
        self._target = target
        self.wrapped = running._wrapped(self.bound, adapt(target, self.bound))
        self._ask = None if self.bound.guard.off else getattr(self.wrapped, "__ibidem_ask__", None)
        self._binding = getattr(self.wrapped, "__ibidem_binding__", None)
        self._shape = self._binding.shape if self._binding is not None else _shape(target)
        of_sdk = self._shape is None and hasattr(target, "call")
        self._input: Any = getattr(target, "input_schema", None) if of_sdk else None
        """The JSON schema of a function tool of Anthropic's SDK, which takes its arguments as one dict."""
        known = self._binding.tool if self._binding is not None else getattr(self.wrapped, "__ibidem_tool__", None)
        self.effect: Effect = known.effect if known is not None else self._declared(target)
        self._names: frozenset[str] | None = None
        if self._shape is not None:
            self._names = self._shape.parameters
        elif known is not None:
            self._names = known.parameters
        elif self._input is not None:
            self._names = frozenset(self._input.get("properties", ()))
        self._required = self._find_required(target)
        schema = getattr(target, "args_schema", None)
        fields = getattr(schema, "model_fields", {}) if isinstance(schema, type) else {}
        aliased = any(field.alias or field.validation_alias for field in fields.values())
        self._schema: Any = schema if fields and not aliased else None
        effect = self.effect
        told = effect.also is None and not effect.fields and not any(map(callable, effect.resources))
        self._access = Access(effect, effect.touched({})) if told else None
        """What every call reads or changes, where that is the same for all arguments."""

    @functools.cached_property
    def taken(self) -> str:
        """Say what the tool takes from LangChain, which neither a model nor a plan may give; empty: nothing."""
        shape = self._shape
        if shape is None:
            injected = set(_injected(self._target))
        elif shape._mcp:
            injected = set()
        else:  # the configuration of a tool is no argument of it, unless it is optional
            hidden = _injected(shape.function or self._target._run)
            injected = {*shape.injected, *(name for name in hidden if name in (shape.names or ()))}
        names = sorted(injected - {self.effect.idempotency_key})
        return f"takes {', '.join(names)} from the framework, which a plan cannot give" if names else ""

    @property
    def only_awaits(self) -> bool:
        """Whether a synchronous run cannot call it."""
        if self._shape is not None:
            return bool(self._shape.only_awaits)
        return inspect.iscoroutinefunction(self.wrapped if self._input is None else self.wrapped.func)

    def _declared(self, target: Any) -> Effect:
        """Look up the effect of a tool whose guard is switched off: the calls pass it, and the plan keeps its order."""
        function = getattr(target, "func", None) or getattr(target, "coroutine", None)
        declarations = self.bound.guard.toolbox._declarations
        return declarations.effect_of(self.name, decorated_effect(target, function))[0]

    def _find_required(self, target: Any) -> frozenset[str]:
        if self._shape is not None:
            schema = getattr(target, "args_schema", None)
            needed = schema.get("required", ()) if isinstance(schema, dict) else ()
            return frozenset(name for name in needed if name not in self._shape.injected)
        if self._input is not None:
            return frozenset(self._input.get("required", ())) - {self.effect.idempotency_key}
        try:
            parameters = inspect.signature(self.wrapped).parameters.values()
        except (TypeError, ValueError):
            return frozenset()
        bare = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in _FILLED]
        return frozenset(name for name in bare if name != self.effect.idempotency_key)

    async def __call__(self, arguments: dict[str, Any], runtime: Runtime) -> Outcome:
        """Call the tool through the guard; what fails is a fault, and control flow passes."""
        if self._ask is None:
            call: Any = (self.wrapped, (), arguments) if self._input is None else (self.wrapped.call, (arguments,), {})
            return running.run(self.bound, *call) if runtime is BLOCKING else await running.arun(self.bound, *call)
        try:
            asked = self._ask((), arguments, runtime)
            return asked if isinstance(asked, Outcome) else await self.bound.guard.through(asked)
        except Exception as problem:
            return running._failed(problem, None)

    def fits(self, arguments: Mapping[str, Any]) -> bool:
        """Whether there is nothing wrong with the arguments of a step, as far as their names tell; False: look closer."""
        if self._shape is not None or self._schema is not None:
            return False
        names = self._names
        return (names is None or names.issuperset(arguments)) and self._required.issubset(arguments)

    def problems(self, arguments: Mapping[str, Any]) -> Iterable[str]:
        """Say what is wrong with the arguments of a step, as far as that can be told before it runs."""
        names, required = self._names, self._required
        if names is not None and not names.issuperset(arguments):
            for name in arguments:
                if name not in names:
                    yield f"{self.name} has no argument {named(name)}{nearest(name, sorted(names))}"
        if not required.issubset(arguments):
            missing = [name for name in sorted(required) if name not in arguments]
            yield f"{self.name} needs {', '.join(map(repr, missing))}"
        if self._shape is not None and self.taken:
            yield f"{self.name} {self.taken}"
        if self._schema is not None:
            yield from self._refused(arguments)

    def _refused(self, arguments: Mapping[str, Any]) -> Iterable[str]:
        """Say what the tool's schema says of the arguments that are written down."""
        written = {name: value for name, value in arguments.items() if not found_in(value)}
        try:
            self._schema.model_validate(written)
        except Exception as problem:
            errors = getattr(problem, "errors", None)
            found: Any = errors() if callable(errors) else ()
            for error in found:
                name, *rest = error["loc"] or ("",)
                if error["type"] == "missing" and not rest:
                    wanted = name not in arguments and self._names is not None and name in self._names
                    if wanted and name != self.effect.idempotency_key:
                        yield f"{self.name} needs {name!r}"
                elif name in written:
                    where = ".".join(map(str, (name, *rest)))
                    yield f"{self.name} refuses {where!r}: {error['msg']}"

    @property
    def any_access(self) -> Access:
        """Say what some call of it may read or change, whatever its arguments are."""
        effect = self.effect
        is_told = effect.also is None and not any(map(callable, effect.resources))
        return Access(effect, effect.touched({}) if is_told else None)

    def access(self, arguments: Mapping[str, Any]) -> Access:
        """Say what a step will read or change; what depends on a result may be anything that fits the declaration."""
        if self._access is not None:
            return self._access
        effect = self.effect
        if effect.also is not None:
            return Access(effect, None)
        if not any(found_in(value) for value in arguments.values()):
            if self._binding is not None:
                return Access(effect, self._binding.touched(dict(arguments)))
            if self._shape is not None:
                return Access(effect, None)
            touched = getattr(self.wrapped, "__ibidem_touched__", effect.touched)
            return Access(effect, touched(dict(arguments)))
        if any(callable(resource) for resource in effect.resources):
            return Access(effect, None)
        # An argument that is left out widens a template to everything below. A tool may change its arguments in validating
        # them, and validates all or none: there every one is left out.
        known = {} if self._shape is not None or self._input is not None else arguments
        return Access(effect, effect.touched({n: v for n, v in known.items() if not found_in(v)}))


def _shape(target: Any) -> Any:
    """Give the shape of a LangChain tool that has no binding, since its guard is switched off."""
    if not any(c.__name__ == "BaseTool" and c.__module__.startswith("langchain_core.") for c in type(target).__mro__):
        return None
    from ibidem.langchain.shape import Shape

    return Shape(target)


def _injected(function: Any) -> Collection[str]:
    """Give the arguments of a plain function that a tool made of it would be given by LangChain."""
    base = sys.modules.get("langchain_core.tools.base")
    if base is None:
        return ()
    function = function.func if isinstance(function, functools.partial) else function
    function = function if inspect.isroutine(function) else type(function).__call__
    try:
        kinds = typing.get_type_hints(function, include_extras=True)
    except Exception:  # names that mean nothing here
        kinds = getattr(function, "__annotations__", {})

    def is_given(kind: Any) -> bool:
        if (
            base._is_injected_arg_type(kind)
            or "RunnableConfig" in str(kind)
            or "langchain_core.callbacks." in str(kind)
        ):
            return True
        return any(map(is_given, typing.get_args(kind)))

    return [name for name, kind in kinds.items() if name != "return" and is_given(kind)]


def nearest(name: str, names: Collection[str]) -> str:
    """Say which name was probably meant, and which there are; with many names that would take too long."""
    close = difflib.get_close_matches(name, names, 1) if len(names) <= 30 and len(name) <= 64 else []
    shown = ", ".join(itertools.islice(names, 20)) + (", ..." if len(names) > 20 else "")
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant or ';'} it is one of: {shown}" if names else "; there is none"


def by_name(tools: Any) -> dict[str, Any]:
    """Give tools by name.

    Raises:
        TypeError: Something that is no tool, or two tools of one name.
    """
    if tools is None:
        return {}
    if isinstance(tools, Mapping):
        return dict(tools)
    found: dict[str, Any] = {}
    for tool in tools if isinstance(tools, Iterable) and not isinstance(tools, str) else [tools]:
        if isinstance(tool, str) or not (callable(tool) or hasattr(tool, "invoke")):
            raise TypeError(f"tools= are LangChain tools or functions, not {tool!r}")
        if name_of(tool) in found:
            raise TypeError(f"two tools are called {name_of(tool)!r}")
        found[name_of(tool)] = tool
    return found
