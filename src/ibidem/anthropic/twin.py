"""Twins: how a tool of the SDK (`beta_tool`) is wrapped without being anything else than it was.

A twin is a copy of the tool, of a subclass of its own class, since the SDK's runner knows tools by their class. Its
arguments are validated as the SDK does, and named, before they become a key; what the model writes as `"5"` and as `5` is
one call if the tool takes a number.

The SDK's own tools (memory, shell, browser) are left as they are: what they do to the world is theirs to know.
"""

from __future__ import annotations

import copy
import functools
import inspect
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import pydantic
from anthropic.lib.tools import _beta_functions as sdk

from ibidem import functions, running
from ibidem.anthropic.blocks import failure
from ibidem.bound import Bound
from ibidem.core import telling
from ibidem.core.call import Call, Outcome, Tool
from ibidem.core.declarations import decorated_effect
from ibidem.core.effects import Effect
from ibidem.core.resources import Resource
from ibidem.core.runtime import Runtime

Validated = tuple[tuple[Any, ...], dict[str, Any]]

_TOOL_ERROR: Any = getattr(sdk, "ToolError", None)  # the oldest supported SDK has none
_BASE: Any = _TOOL_ERROR or Exception


class ToldError(_BASE):  # type: ignore[misc]  # its base is what the SDK has
    """A failure in the words that the model is to read: the SDK's runner hands them on as they are."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.content: Any = words
        self.words = words

    def __repr__(self) -> str:
        return self.words  # what a runner sends that knows no content of an error


ahead: ContextVar[Callable[[Any, Mapping[str, Any]], Outcome | None] | None] = ContextVar("ibidem_ahead", default=None)
"""Gives the outcome of a call that a runner has made already, with all the others of its message."""


def adapt(tool: Any, bound: Bound, effect: Effect | None = None) -> Any:
    """Wrap a function tool of the SDK; a wrapped one, and what is no function tool, is answered as it is.

    Raises:
        ValueError: It already passes another guard.
    """
    if not isinstance(tool, sdk.BaseFunctionTool):
        return tool
    return functions.adapt_tool(tool, bound, effect, _look, _twin)


def _look(twin: Any) -> tuple[Tool, Any]:
    return twin.__ibidem_tool__, twin.__ibidem_plain__


def _twin(plain: Any, bound: Bound, effect: Effect | None) -> Any:
    body, validate = _body(plain)
    guarded: Any = functions.adapt(body, bound, effect or decorated_effect(plain), name=plain.name)
    tool: Tool = guarded.__ibidem_tool__
    inner: running.Ask = guarded.__ibidem_ask__
    filled = tool.effect.idempotency_key
    named = functions.Arguments(body)

    def ask(args: tuple[Any, ...], kwargs: dict[str, Any], runtime: Runtime) -> Outcome | Call:
        if filled is not None and filled not in kwargs:
            kwargs = {**kwargs, filled: str(uuid.uuid4())}
        positional, by_name = validate(kwargs)
        return inner((*args, *positional), by_name, runtime)

    def touched(arguments: Mapping[str, Any]) -> tuple[Resource, ...] | None:
        if not tool.effect.declared or tool.effect.also is not None:
            return None
        try:
            return tool.effect.touched(named(*validate(dict(arguments))))
        except Exception:
            return None

    twin = copy.copy(plain)
    twin.__class__ = _twin_class(plain.__class__)
    twin.func = guarded
    twin.input_schema = without(filled, plain.input_schema)
    twin.__dict__.update({
        "__ibidem__": bound,
        "__ibidem_plain__": plain,
        "__ibidem_tool__": tool,
        "__ibidem_ask__": ask,
        "__ibidem_touched__": touched,
    })  # fmt: skip
    return twin


def _body(plain: Any) -> tuple[Callable[..., Any], Callable[[dict[str, Any]], Validated]]:
    """Give what runs a tool, and what makes arguments of a model's input."""
    if type(plain).call in (sdk.BetaFunctionTool.call, sdk.BetaAsyncFunctionTool.call):
        return plain.func, _validator(plain.func)
    # A class of the user's that runs its calls itself: what it does with the input is its own affair.
    if inspect.iscoroutinefunction(plain.call):

        async def arun(**arguments: Any) -> Any:
            return await plain.call(arguments)

        return arun, lambda given: ((), given)

    def run(**arguments: Any) -> Any:
        return plain.call(arguments)

    return run, lambda given: ((), given)


def _validator(function: Any) -> Callable[[dict[str, Any]], Validated]:
    """Validate as the SDK does, but give the arguments instead of calling the function with them."""
    source = function.func if isinstance(function, functools.partial) else function

    @functools.wraps(source, updated=())
    def given(*args: Any, **kwargs: Any) -> Validated:
        return args, kwargs

    given.__wrapped__ = function
    validate: Callable[..., Validated] = pydantic.validate_call(given)
    return lambda arguments: validate(**arguments)


def without(name: str | None, schema: Any) -> Any:
    """Leave an argument that is filled in out of what a model is shown."""
    if name is None or name not in (schema.get("properties") or {}):
        return schema
    left = {each: said for each, said in schema["properties"].items() if each != name}
    return {**schema, "properties": left, "required": [each for each in schema.get("required") or () if each != name]}


@functools.lru_cache(maxsize=256)
def _twin_class(cls: type[Any]) -> Any:
    """Make the twin class of a tool class."""

    def given(self: Any, input: Any) -> dict[str, Any]:  # noqa: A002  # the SDK's name
        return {name: value for name, value in input.items() if name != self.__ibidem_tool__.effect.idempotency_key}

    @functools.wraps(cls.call)
    def call(self: Any, input: Any) -> Any:  # noqa: A002
        if not isinstance(input, dict) or inspect.iscoroutinefunction(self.func):
            return cls.call(self, input)  # the SDK says what is wrong
        known = _known(self, input)
        return _handed(self, running.run(self.__ibidem__, self, (), given(self, input)) if known is None else known)

    @functools.wraps(cls.call)
    async def acall(self: Any, input: Any) -> Any:  # noqa: A002
        if not isinstance(input, dict):
            return await cls.call(self, input)
        known = _known(self, input)
        if known is None:
            known = await running.arun(self.__ibidem__, self, (), given(self, input))
        return _handed(self, known)

    awaits = inspect.iscoroutinefunction(cls.call)
    body = {"call": acall if awaits else call, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), body)


def _known(tool: Any, arguments: Mapping[str, Any]) -> Outcome | None:
    look = ahead.get()
    return None if look is None else look(tool, arguments)


def _handed(twin: Any, outcome: Outcome) -> Any:
    """Give the result of a call, or raise its failure in the words that the model is to read."""
    fault, guard = outcome.fault, twin.__ibidem__.guard
    if fault is None or not outcome.failed or fault.returned:
        return outcome.unwrap()
    own = _TOOL_ERROR is not None and isinstance(fault.exception, _TOOL_ERROR)
    if own or not telling.speaks(guard.errors, twin.__ibidem_tool__.effect):
        raise fault.exception  # the tool's own words to the model, or nothing is declared of it
    raise ToldError(failure(twin.name, fault, guard.errors)) from fault.exception
