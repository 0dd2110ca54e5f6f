"""Shapes: what there is to know about a LangChain tool: its function, arguments, injected ones, and identity."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from langchain_core.globals import get_debug
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as SingleInputTool
from langchain_core.tools.base import (
    _get_runnable_config_param,
    _is_injected_arg_type,
    get_all_basemodel_annotations,
)
from langchain_core.tracers import context as tracing
from langchain_core.utils.env import env_var_is_set
from pydantic import BaseModel

from ibidem.core.asker import running_config
from ibidem.core.identity import OBJECT, Identity, of_object
from ibidem.core.keys import NoExactKey, exact

_OWN = frozenset({*BaseTool.model_fields, "func", "coroutine"})
"""Fields of a tool that say nothing about what it answers, or are looked at by themselves."""

_BODIES = (BaseTool._arun, StructuredTool._arun, SingleInputTool._arun)
"""The asynchronous bodies that LangChain's classes have: of these, only a `coroutine` awaits."""


class Shape:
    """One tool, looked at once."""

    def __init__(self, tool: BaseTool) -> None:
        self._tool = tool
        self._class = type(tool)
        self._is_simple = isinstance(tool, (StructuredTool, SingleInputTool))
        self.function: Any = (
            getattr(tool, "func", None) or getattr(tool, "coroutine", None) if self._is_simple else None
        )
        """The plain function behind it, if it is made of one."""
        self.awaits = self._class._arun not in _BODIES or bool(getattr(tool, "coroutine", None))
        """Whether it has an asynchronous body of its own."""
        self.has_artifact = tool.response_format == "content_and_artifact"
        mcp = (tool.metadata or {}).get("mcp")
        self._mcp: Mapping[str, Any] = mcp if isinstance(mcp, Mapping) else {}
        config_name = _get_runnable_config_param(self._class._run)
        run_names = inspect.signature(self._class._run).parameters
        self.takes_run_manager = "run_manager" in run_names
        self.injected = self._injected()
        self._ours = {name for name in (config_name, "run_manager" if self.takes_run_manager else None) if name}
        self.names = self._names()
        self.parameters = None if self.names is None else frozenset(self.names)
        self.reason = self._reason(config_name)
        self.quick = self._quick()
        """Validates the raw arguments of a tool call exactly as the tool would; None where that takes the tool itself."""

    @property
    def only_awaits(self) -> bool:
        """Whether a synchronous call of it can only fail: it is made of a coroutine function alone."""
        runs_function = self._class._run in (StructuredTool._run, SingleInputTool._run)
        return runs_function and not getattr(self._tool, "func", None)

    @staticmethod
    def answers_itself(tool_class: type[BaseTool]) -> bool:
        """Whether a class runs its calls itself instead of leaving that to LangChain."""
        methods = (getattr(tool_class, name) for name in ("invoke", "ainvoke", "run", "arun"))
        return any(not method.__module__.startswith("langchain_core.") for method in methods)

    @property
    def hinted_read_only(self) -> bool:
        """Whether an MCP server says that the tool only reads."""
        metadata = self._tool.metadata or {}
        tool = self._mcp.get("tool")
        annotations = tool.get("annotations") if isinstance(tool, Mapping) else None
        hint = annotations.get("read_only_hint") if isinstance(annotations, Mapping) else None
        return hint is True or metadata.get("readOnlyHint") is True

    def shareable(self, result: Any) -> bool:
        """Whether a raw result may be given to another call: messages and commands carry the id of this one."""
        if isinstance(result, ToolOutputMixin):
            return False
        if isinstance(result, (list, tuple)) and any(isinstance(part, ToolOutputMixin) for part in result):
            return False
        return not self.has_artifact or (isinstance(result, tuple) and len(result) == 2)

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Name the arguments that reach the tool's body, without what the framework adds."""
        left_out = self._ours | self.injected
        named = {name: value for name, value in kwargs.items() if name not in left_out}
        for position, value in enumerate(args):
            name = self.names[position] if self.names and position < len(self.names) else f"*{position}"
            named[name if name not in named else f"*{position}"] = value
        return named

    def identity(self) -> Callable[[], str]:
        """Name the tool exactly where that can be done."""
        client = self._held().get("client") if self._mcp else None
        if client is not None:
            return self._connected(client)
        functions = [getattr(self._tool, name, None) for name in ("func", "coroutine")] if self._is_simple else []
        bodies = [*filter(None, functions), *self._methods()]
        fields = [name for name in self._class.model_fields if name not in _OWN]
        if not fields:
            return Identity(*bodies, facts=lambda: [self._facts(), self._private()], owner=self._tool)
        return _OfFields(self._tool, fields, lambda *state: Identity(
            *bodies, facts=lambda: [self._facts(), self._private(), *state], owner=self._tool
        ))  # fmt: skip

    def _connected(self, client: Any) -> Callable[[], str]:
        """Name a tool of an MCP server: two servers may call themselves the same, so the connection itself counts."""
        served = Identity(facts=lambda: [self._facts(), self._mcp.get("server")], owner=self._tool)
        return lambda: f"{of_object(client)}.{served()}"

    def _held(self) -> Mapping[str, Any]:
        """What the closure of the tool's coroutine holds, by name."""
        coroutine = getattr(self._tool, "coroutine", None)
        names = getattr(getattr(coroutine, "__code__", None), "co_freevars", ())
        cells = zip(names, getattr(coroutine, "__closure__", None) or (), strict=False)
        with contextlib.suppress(ValueError):  # not filled yet
            return {name: cell.cell_contents for name, cell in cells}
        return {}

    def _methods(self) -> list[Any]:
        """The methods that the user's classes of the tool define: what runs it may call any of them."""
        ours = [cls for cls in self._class.__mro__ if cls.__module__.partition(".")[0] not in _LIBRARIES]
        return [member for cls in ours for _, member in sorted(vars(cls).items()) if inspect.isfunction(member)]

    def _facts(self) -> Any:
        schema = self._schema()
        exact(schema)  # a schema that has no exact encoding makes the tool stand for itself
        return [self._class.__module__, self._class.__qualname__, self._tool.name, schema, self._tool.response_format]

    def _schema(self) -> Any:
        schema: Any = self._tool.args_schema
        if schema is None or isinstance(schema, dict):
            return schema
        try:  # pydantic v1 calls it otherwise
            return schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema.schema()
        except Exception as problem:  # an argument of a type without a JSON schema: a store that is injected, say
            raise NoExactKey(str(problem)) from None

    def _private(self) -> Any:
        """What a tool keeps privately may decide what it answers: it has no exact encoding."""
        private = self._tool.__pydantic_private__ or {}
        return [object()] if private.keys() - {"_tool_call_schema_memo"} else None

    def _injected(self) -> frozenset[str]:
        names = set(getattr(self._tool, "_injected_args_keys", ()))
        schema = self._tool.args_schema
        if isinstance(schema, type):
            annotations = get_all_basemodel_annotations(schema)
            names |= {name for name, kind in annotations.items() if _is_injected_arg_type(kind)}
        return frozenset(names)

    def _names(self) -> tuple[str, ...] | None:
        """The names of the arguments that a model gives, in order; None if the tool takes any."""
        schema: Any = self._tool.args_schema
        if isinstance(schema, dict):
            properties = schema.get("properties")
            if not isinstance(properties, Mapping) or schema.get("additionalProperties"):
                return None
            names = tuple(properties)
        elif schema is None and isinstance(self._tool, SingleInputTool):
            names = ("tool_input",)
        else:
            schema = schema or self._tool.get_input_schema()
            fields = schema.model_fields if hasattr(schema, "model_fields") else schema.__fields__  # pydantic v1
            if "kwargs" in fields:
                return None
            names = tuple(fields)
        return tuple(name for name in names if name not in self.injected)

    def _reason(self, config_name: str | None) -> str | None:
        """Why its results depend on more than its arguments; an MCP adapter's `runtime` is its own affair."""
        metadata = self._tool.metadata or {}
        if (self._mcp or "readOnlyHint" in metadata) and not self._held().get("tool_interceptors"):
            return None
        taken = set(self.injected)
        for function in (getattr(self._tool, name, None) for name in ("func", "coroutine")):
            if function is not None and self._is_simple and (name := _get_runnable_config_param(function)):
                taken.add(name)
        if config_name and not self._is_simple:
            taken.add(config_name)
        if not taken:
            return None
        return (
            f"it takes {', '.join(sorted(taken))} from the framework: "
            'declare it with scope="conversation" or identity= to have it remembered all the same'
        )

    def _quick(self) -> Callable[[Any], Mapping[str, Any]] | None:
        schema: Any = self._tool.args_schema
        plain = (
            self._class._to_args_and_kwargs is BaseTool._to_args_and_kwargs
            and self._class._parse_input is BaseTool._parse_input
            and not Shape.answers_itself(self._class)
        )
        if not plain or schema is None or self._ours & self.injected:
            return None
        if isinstance(schema, dict):
            injected = self.injected
            return lambda args: {name: value for name, value in args.items() if name not in injected}
        if self.injected or not _validates_plainly(schema):
            return None
        validate = schema.__pydantic_validator__.validate_python
        return lambda args: validate(args).__dict__


_LIBRARIES = ("langchain_core", "pydantic", "builtins", "abc", "typing")


class _OfFields:
    """The identity of a tool whose fields may be set anew: what it answered with others is not what it answers now."""

    def __init__(self, tool: BaseTool, names: list[str], make: Callable[..., Identity]) -> None:
        self._tool = tool
        self._names = names
        self._make = make
        self._values: dict[str, bytes] | None = None
        self._identity: Callable[[], str] = lambda: ""
        self._suffix = ""

    def __call__(self) -> str:
        """Give it as of now."""
        values = {}
        for name in self._names:
            with contextlib.suppress(NoExactKey):
                values[name] = exact(getattr(self._tool, name, None))
        if values != self._values:
            unnamed = [object()] if len(values) < len(self._names) else []  # the tool stands for itself
            self._identity, self._values = self._make(values, *unnamed), values
            self._suffix = hashlib.sha256(exact(values)).hexdigest()
        text = self._identity()
        return f"{text}.{self._suffix}" if text.startswith(OBJECT) else text


_PLAIN = (str, int, float, bool, type(None), Any)


def _validates_plainly(schema: Any) -> bool:
    """Whether validating with a schema runs no code but pydantic's, and gives the same result each time."""
    if not issubclass(schema, BaseModel) or schema.__pydantic_custom_init__ or schema.__pydantic_post_init__:
        return False
    decorators = schema.__pydantic_decorators__
    if any(
        getattr(decorators, name) for name in ("validators", "field_validators", "root_validators", "model_validators")
    ):
        return False
    if schema.model_config.get("extra") == "allow" or "model_validate" in vars(schema):
        return False
    return all(
        name not in ("args", "kwargs")
        and field.default_factory is None
        and field.alias is None
        and field.validation_alias is None
        and not field.metadata
        and _is_plain(field.annotation)
        for name, field in schema.model_fields.items()
    )


def _is_plain(annotation: Any) -> bool:
    if annotation in _PLAIN or (isinstance(annotation, type) and issubclass(annotation, enum.Enum)):
        return True
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return True
    if origin in (list, dict, tuple, Union, types.UnionType):
        return all(part is ... or _is_plain(part) for part in typing.get_args(annotation))
    return annotation in (list, dict, tuple)


def listens(config: Mapping[str, Any] | None) -> bool:
    """Whether anybody would be told of a run with this configuration: handlers, a tracer, a hook, or debug mode."""
    if get_debug():
        return True
    callbacks = (config or {}).get("callbacks") or running_config().get("callbacks")
    if callbacks and (isinstance(callbacks, list) or callbacks.handlers or callbacks.inheritable_handlers):
        return True
    if tracing._tracing_v2_is_enabled():
        return True
    return any(
        var.get() is not None or (env is not None and handler is not None and env_var_is_set(env))
        for var, _, handler, env in tracing._configure_hooks
    )
