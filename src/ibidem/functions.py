"""The adapter for plain functions and methods, sync and async."""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ibidem.bound import Bound
from ibidem.core.call import Call, Outcome, Tool, passing
from ibidem.core.copies import NotCopied, are_atoms, private
from ibidem.core.declarations import check_filled, decorated_effect
from ibidem.core.effects import MARK, UNDECLARED, Effect
from ibidem.core.hazards import Access
from ibidem.core.identity import Identity, is_async
from ibidem.core.runtime import ASYNCIO, BLOCKING, Runtime, run_blocking
from ibidem.core.sought import Sought
from ibidem.core.turns import Asked
from ibidem.wrapping import binding_of

_ORDINARY = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def adapt(
    function: Callable[..., Any], bound: Bound, effect: Effect | None = None, *, name: str | None = None
) -> Callable[..., Any]:
    """Wrap a function or a bound method; a wrapped one is answered as it is.

    Args:
        function: What is wrapped.
        bound: What its calls pass.
        effect: What it does to the world, where it was not declared by name.
        name: Of the tool that it is the body of, where that has another.

    Raises:
        TypeError: A generator: its results are consumed as they come, and cannot be given twice.
        ValueError: It already passes another guard.
    """
    already = binding_of(function)
    if already is not None:
        if already.guard is not bound.guard:
            raise another_guard(function)
        if already.given == bound.given:
            bound.guard.toolbox.saw(function.__ibidem_tool__)  # type: ignore[attr-defined]
            return function
        function = function.__wrapped__  # type: ignore[attr-defined]
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function!r} is a generator: wrap a function that returns a list of what it yields")
    return _wrapped(function, bound, effect, name)


def adapt_tool(
    tool: Any,
    bound: Bound,
    effect: Effect | None,
    look: Callable[[Any], tuple[Tool, Any]],
    make: Callable[[Any, Bound, Effect | None], Any],
) -> Any:
    """Wrap a tool of a framework; a wrapped one is answered as it is, and one that comes again has the twin it had.

    Args:
        tool: Wrapped or not.
        bound: What its calls pass.
        effect: As of `adapt`.
        look: Gives what the guard knows of a wrapped one, and the tool that it was made of.
        make: Makes the wrapped one.

    Raises:
        ValueError: It already passes another guard.
    """
    toolbox = bound.guard.toolbox
    twin = toolbox.twins.get(tool, bound.given) if effect is None else None
    already = binding_of(tool) if twin is None else None
    if already is not None:
        if already.guard is not bound.guard:
            raise another_guard(tool)
        if already.given != bound.given:
            return adapt_tool(look(tool)[1], bound, effect, look, make)
        twin = tool
    if twin is not None:
        toolbox.saw(look(twin)[0])
        return twin
    return toolbox.twins.keep(tool, bound.given, make(tool, bound, effect), instead=effect is not None)


def another_guard(target: Any) -> ValueError:
    """Say that something passes another guard already, and what to do."""
    name = getattr(target, "name", None) or getattr(target, "__name__", None) or repr(target)
    return ValueError(
        f"{name!r} already passes another guard, and a call passes one only: wrap the original "
        "(for other options, with ibidem.guard_of(...).replace(...)), or use what is wrapped already"
    )


def _wrapped(function: Callable[..., Any], bound: Bound, effect: Effect | None, name: str | None) -> Callable[..., Any]:
    guard, given = bound.guard, bound.given
    arguments_of = Arguments(function)
    effect = effect if effect is not None else decorated_effect(function)
    tool = guard.toolbox.declare(
        Tool(
            name=name if name is not None else getattr(function, "__name__", type(function).__name__),
            effect=UNDECLARED,
            origin="",
            identify=Identity(function),
            parameters=arguments_of.names,
        ),
        decorated=effect,
    )
    again = tool.policies.retried
    filled = tool.effect.idempotency_key
    check_filled(tool, arguments_of.names)
    awaits = is_async(function)

    def ask(args: tuple[Any, ...], kwargs: dict[str, Any], runtime: Runtime) -> Outcome | Call:
        """Give what is remembered, or the call to make."""
        if filled is not None and filled not in kwargs:
            kwargs = {**kwargs, filled: str(uuid.uuid4())}
        sought = guard.seek(tool, arguments_of(args, kwargs), given=given)
        known = guard.hit(sought)
        if known is not None:
            return known

        own = args, kwargs
        changeable = not are_atoms(args, kwargs)
        anew = changeable and again

        def body() -> Any:
            args, kwargs = private(own) if anew else own
            return function(*args, **kwargs)

        call = guard.prepare(sought, body, runtime, awaits=awaits)
        if changeable and (again or call.key is not None):
            try:
                own = private(own)  # now: while it waits for others, its caller may change what the key was made of
            except NotCopied:
                anew, call.work.single = False, again
        return call

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if passing(called):
            return function(*args, **kwargs)
        asked = ask(args, kwargs, BLOCKING)
        return (asked if isinstance(asked, Outcome) else run_blocking(guard.through(asked))).unwrap()

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if passing(awaited):
            return await function(*args, **kwargs)
        asked = ask(args, kwargs, ASYNCIO)
        return (asked if isinstance(asked, Outcome) else await guard.through(asked)).unwrap()

    def asked(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked:
        """Say what a call would do to what, before it is made."""
        try:
            touched = tool.effect.touched(arguments_of(args, kwargs)) if tool.effect.also is None else None
        except TypeError:  # it will fail, and change nothing
            touched = ()
        return Asked(tool.name, None, tool, Access(tool.effect, touched), functools.partial(sought, args, kwargs))

    def sought(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sought | None:
        try:
            return guard.seek(tool, arguments_of(args, kwargs), given=given)
        except TypeError:
            return None

    wrapper = awaited if awaits else called
    wrapper.__dict__.update({"__ibidem__": bound, "__ibidem_tool__": tool, "__ibidem_ask__": ask})
    wrapper.__dict__["__ibidem_asked__"] = asked
    if effect is not None:
        wrapper.__dict__[MARK] = effect
    return wrapper


class Arguments:
    """Names the arguments of a function's calls, defaults included."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins have none
            self._signature = inspect.Signature(
                [
                    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
                ]
            )
        parameters = self._signature.parameters.values()
        self._ordinary = all(p.kind in _ORDINARY for p in parameters)
        self._positional = tuple(p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._complete = frozenset(p.name for p in parameters)
        bare = inspect.Parameter.empty
        self._required = [
            p.name for p in parameters if p.default is bare and p.kind is inspect.Parameter.POSITIONAL_ONLY
        ]
        self._defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self.names = None if open_ended else self._complete
        """The names of all arguments; None if it takes any."""

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        """Name the arguments of one call.

        Raises:
            TypeError: They do not fit, as when the function itself is called.
        """
        if self._ordinary and not kwargs and len(args) == len(self._complete) == len(self._positional):
            return dict(zip(self._positional, args, strict=True))
        if self._ordinary and not args and kwargs.keys() == self._complete:
            return kwargs
        if self._ordinary and len(args) <= len(self._positional):
            named = {**self._defaults, **dict(zip(self._positional, args, strict=False)), **kwargs}
            given_twice = kwargs and not kwargs.keys().isdisjoint(self._positional[: len(args)])
            if named.keys() == self._complete and not given_twice:
                return named
        found = self._signature.bind(*args, **kwargs)
        for name in self._required:  # Python 3.13.0 binds f(a=1) to f(a, /, **kwargs), which the function refuses
            if name not in found.arguments:
                raise TypeError(f"missing a required argument: {name!r}")
        found.apply_defaults()
        named = dict(found.arguments)
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                extra = named.pop(name)
                alone = named.keys().isdisjoint(extra) and f"**{name}" not in extra
                named = {**named, **extra} if alone else {**named, f"**{name}": extra}
        return named
