"""Twins: how a LangChain tool is wrapped without being anything else than it was.

A twin is an instance of a subclass of the tool's own class that shares the tool's state and overrides `_run` and
`_arun`. There the arguments are validated, coerced and defaulted, callbacks have fired, the raw result is at hand, every
call gets its own message, and failures are seen before `handle_tool_error`. A proxy object would fail every
`isinstance`; a `model_copy` would split what a tool keeps in itself.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import typing
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import ValidationError

from ibidem.bound import Bound
from ibidem.core.call import Tool
from ibidem.core.effects import Effect
from ibidem.functions import adapt_tool
from ibidem.langchain.binding import Binding, Note, annotated, note
from ibidem.langchain.failures import aanswered, answered, is_decided, note_misfit
from ibidem.langchain.shape import Shape


def adapt(tool: BaseTool, bound: Bound, effect: Effect | None = None) -> BaseTool:
    """Wrap a tool; a wrapped one is answered as it is.

    Raises:
        ValueError: It already passes another guard.
    """
    return adapt_tool(tool, bound, effect, _look, _make)  # type: ignore[no-any-return]


def _look(twin: Any) -> tuple[Tool, BaseTool]:
    binding: Binding = twin.__ibidem_binding__
    return binding.tool, binding.plain


def _make(plain: BaseTool, bound: Bound, effect: Effect | None) -> BaseTool:
    return _twin(plain, Binding(plain, bound, effect))


def _twin(plain: BaseTool, binding: Binding) -> BaseTool:
    """Make an instance of the tool's twin class that shares all state with the tool."""
    twin: Any = object.__new__(_twin_class(type(plain)))
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(twin, slot, getattr(plain, slot))
    object.__setattr__(twin, "__ibidem__", binding.bound)
    object.__setattr__(twin, "__ibidem_binding__", binding)
    return twin  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1024)
def _twin_class(cls: type[BaseTool]) -> Any:
    """Make the twin class of a tool class: one each, since making a class takes a millisecond."""
    body: dict[str, Any] = {
        "__slots__": ("__ibidem__", "__ibidem_binding__"),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    metaclass: Any = type(cls)
    twin = metaclass(cls.__name__, (cls,), body)
    overrides = _whole_overrides(cls) if Shape.answers_itself(cls) else _inner_overrides(cls)
    # Set afterwards: in the class body pydantic would take what begins with an underscore for private attributes.
    for name, method in {**overrides, **_copying(cls)}.items():
        setattr(twin, name, method)
    return twin


def _like(original: Any) -> Callable[[Any], Any]:
    """Make a method look like another, with its signature worked out and its annotations evaluated already.

    LangChain inspects `_run` anew at every call; on text annotations that takes longer than everything ibidem does.
    """

    def decorate(method: Any) -> Any:
        method = functools.wraps(original)(method)
        method.__signature__ = inspect.signature(original)
        with contextlib.suppress(Exception):  # names that exist for type checkers only: then the texts stay
            method.__annotations__ = typing.get_type_hints(original, include_extras=True)
        return method

    return decorate


def _is_tool_call(value: Any) -> bool:
    return type(value) is dict and value.get("type") == "tool_call"


def _is_told(binding: Binding, value: Any) -> bool:
    """Whether the tool itself has to tell a model of a failure of this call."""
    return _is_tool_call(value) and value["id"] is not None and binding.speaks and not is_decided(binding.tool)


def _inner_overrides(cls: type[BaseTool]) -> dict[str, Any]:
    """The methods of a twin whose class leaves running to LangChain: below validation and callbacks."""
    has_arun = cls._arun is not BaseTool._arun

    @_like(cls._run)
    def _run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.__ibidem_binding__.run(functools.partial(cls._run, self), args, kwargs)

    @_like(cls._arun if has_arun else cls._run)
    async def _arun(self: Any, *args: Any, **kwargs: Any) -> Any:
        binding: Binding = self.__ibidem_binding__
        if binding.shape.awaits:
            return await binding.arun(functools.partial(cls._arun, self), args, kwargs, awaits=True)
        manager = kwargs.get("run_manager")
        if manager is not None and binding.shape.takes_run_manager:
            kwargs["run_manager"] = manager.get_sync()
        return await binding.arun(functools.partial(cls._run, self), args, kwargs, awaits=False)

    def invoke(self: Any, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        binding: Binding = self.__ibidem_binding__
        message = binding.hit(self, input, config) if _is_tool_call(input) else None
        if message is not None:
            return message
        go = functools.partial(cls.invoke, self, input, config, **kwargs)
        if _is_told(binding, input):
            return answered(binding.guard, binding.tool, input, go)
        try:
            return go()
        except ValidationError as problem:
            note_misfit(binding.tool, problem)
            raise

    async def ainvoke(self: Any, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        binding: Binding = self.__ibidem_binding__
        message = binding.hit(self, input, config) if _is_tool_call(input) else None
        if message is not None:
            return message
        # What may be shared waits on the loop and takes a thread only to run; the rest goes its usual way.
        go = functools.partial((BaseTool if binding.waits_on_loop else cls).ainvoke, self, input, config, **kwargs)
        if _is_told(binding, input):
            return await aanswered(binding.guard, binding.tool, input, go)
        try:
            return await go()
        except ValidationError as problem:
            note_misfit(binding.tool, problem)
            raise

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        binding: Binding = self.__ibidem_binding__
        with binding.again():
            if not binding.tool.effect.declared:
                return cls.run(self, *args, **kwargs)
            carrier = Note(binding.tool)
            token = note.set(carrier)
            try:
                return annotated(cls.run(self, *binding.filled(args, kwargs), **kwargs), carrier.outcome)
            finally:
                note.reset(token)

    async def arun(self: Any, *args: Any, **kwargs: Any) -> Any:
        binding: Binding = self.__ibidem_binding__
        with binding.again():
            if not binding.tool.effect.declared:
                return await cls.arun(self, *args, **kwargs)
            carrier = Note(binding.tool)
            token = note.set(carrier)
            try:
                return annotated(await cls.arun(self, *binding.filled(args, kwargs), **kwargs), carrier.outcome)
            finally:
                note.reset(token)

    named = {"_run": _run, "_arun": _arun}
    for name, method in {"invoke": invoke, "ainvoke": ainvoke, "run": run, "arun": arun}.items():
        named[name] = functools.wraps(getattr(cls, name))(method)
    return named


def _whole_overrides(cls: type[BaseTool]) -> dict[str, Any]:
    """The methods of a twin whose class runs itself.

    Nothing says that its own way passes `_run`: what may change something is taken through the guard further out. What
    may be shared is so where its way does pass there, and runs each time where it does not.
    """
    inner = _inner_overrides(cls)

    def method(name: str) -> Any:
        original = getattr(cls, name)
        shared = original if name.endswith("invoke") else inner[name]

        @functools.wraps(original)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            binding: Binding = self.__ibidem_binding__
            if binding.tool.effect.merge:
                go = functools.partial(shared, self, *args, **kwargs)
            else:
                go = functools.partial(binding.run, functools.partial(original, self), args, kwargs)
            told = name == "invoke" and args and _is_told(binding, args[0])
            return answered(binding.guard, binding.tool, args[0], go) if told else go()

        @functools.wraps(original)
        async def arun(self: Any, *args: Any, **kwargs: Any) -> Any:
            binding: Binding = self.__ibidem_binding__
            if binding.tool.effect.merge:
                go = functools.partial(shared, self, *args, **kwargs)
            else:
                go = functools.partial(binding.arun, functools.partial(original, self), args, kwargs, awaits=True)
            told = name == "ainvoke" and args and _is_told(binding, args[0])
            return await (aanswered(binding.guard, binding.tool, args[0], go) if told else go())

        return arun if name.startswith("a") else run

    return {**inner, **{name: method(name) for name in ("invoke", "ainvoke", "run", "arun")}}


def _copying(cls: Any) -> dict[str, Any]:
    """A copy of a twin passes the same guard; pickled, it becomes the plain tool, as a guard belongs to its process."""

    def copied(self: Any, plain: Any) -> Any:
        return adapt(plain, self.__ibidem__, self.__ibidem_binding__.effect)

    def model_copy(self: Any, **kwargs: Any) -> Any:
        return copied(self, cls.model_copy(self.__ibidem_binding__.plain, **kwargs))

    def __copy__(self: Any) -> Any:  # noqa: N807
        return copied(self, cls.__copy__(self.__ibidem_binding__.plain))

    def __deepcopy__(self: Any, memo: Any = None) -> Any:  # noqa: N807
        return copied(self, cls.__deepcopy__(self.__ibidem_binding__.plain, memo))

    def __reduce_ex__(self: Any, _: Any) -> Any:  # noqa: N807
        return operator.getitem, ((self.__ibidem_binding__.plain,), 0)

    return {
        "model_copy": model_copy,
        "__copy__": __copy__,
        "__deepcopy__": __deepcopy__,
        "__reduce_ex__": __reduce_ex__,
    }
