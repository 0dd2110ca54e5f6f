"""Identity of a tool: a text that changes when what the tool would answer may have changed.

Covered: module, qualified name, schema, code, constants, defaults, partial arguments, exactly encodable closure cells,
and the functions of the user's project that it names, and those that they name. Not covered, and said in the docs:
other globals, installed packages, and what the tool talks to.

Where something cannot be named exactly (a bound `self`, a closure cell without an exact encoding, no Python code), the
identity is this very object: a number that no other object gets in this process.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import site
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ibidem.core.keys import NoExactKey, exact

_Found = tuple[Callable[[], Any], Any, Any]
"""How a function was found, the function, and the code it had."""


class _Unnamed(Exception):  # noqa: N818
    """Something that cannot be named exactly."""


_NOT_THE_PROJECT = tuple(
    {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        "<frozen",
    }
)

OBJECT = "object:"
"""How an identity begins that holds for one object of this process only."""

_numbers = itertools.count(1)
_lock = threading.Lock()
_known: dict[int, tuple[Any, str]] = {}


def of_object(thing: Any) -> str:
    """Give the identity of this very object: the same text each time it is asked for, and never another object's."""
    with _lock:
        found = _known.get(id(thing))
        if found is not None and found[0]() is thing:
            return found[1]
        text = f"{OBJECT}{next(_numbers)}"
        try:
            reference = weakref.ref(thing, functools.partial(_drop, id(thing)))
        except TypeError:  # it cannot be referred to: a new text each time shares nothing, and is never wrong
            return text
        _known[id(thing)] = (reference, text)
        return text


def _drop(key: int, _: object) -> None:
    _known.pop(key, None)


class Identity:
    """The identity of one tool, kept until something that its functions name is redefined.

    Args:
        functions: What is called, first and foremost.
        facts: Whatever else belongs to the tool: its name, its schema. Answers something exactly encodable.
        owner: The object that stands for the tool where it cannot be named exactly; by default the first function.
    """

    def __init__(
        self, *functions: Callable[..., Any], facts: Callable[[], Any] = lambda: None, owner: Any = None
    ) -> None:
        self._functions = functions
        self._facts = facts
        self._owner = owner
        self._text = ""
        self._seen: list[_Found] | None = None

    def __call__(self) -> str:
        """Give it as of now."""
        if self._seen is not None:
            for look, was, code in self._seen:
                found = look()
                if found is not was or getattr(found, "__code__", None) is not code:
                    break
            else:
                return self._text
        self._seen, self._text = self._compute()
        return self._text

    def _compute(self) -> tuple[list[_Found], str]:
        walk = _Walk()
        try:
            parts = [self._facts(), *(walk.callable(function) for function in self._functions)]
            return walk.found, f"sha256:{hashlib.sha256(exact(parts)).hexdigest()}"
        except (_Unnamed, NoExactKey, RecursionError):
            return [], _of_owner(self._functions[0] if self._owner is None else self._owner)


def _of_owner(owner: Any) -> str:
    """Give the identity of an object; for a bound method that of what it is bound to, since it is made anew each time."""
    if isinstance(owner, types.MethodType):
        return f"{of_object(owner.__self__)}.{owner.__func__.__qualname__}"
    return of_object(owner)


class _Walk:
    """Collects what a callable consists of, and what of it was looked up by name."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self._visited: dict[int, int] = {}

    def callable(self, function: Any) -> Any:
        if isinstance(function, functools.partial):
            return ["partial", self.callable(function.func), list(function.args), dict(function.keywords)]
        if isinstance(function, (staticmethod, classmethod)):
            return self.callable(function.__func__)
        if not isinstance(function, types.FunctionType):
            raise _Unnamed
        if id(function) in self._visited:
            return ["again", self._visited[id(function)]]
        self._visited[id(function)] = len(self._visited)
        self._note(lambda: function, function)
        inner = getattr(function, "__wrapped__", None)
        return [
            function.__module__,
            function.__qualname__,
            self._code(function.__code__),
            [self._value(default) for default in function.__defaults__ or ()],
            {name: self._value(default) for name, default in (function.__kwdefaults__ or {}).items()},
            [self._value(cell.cell_contents) for cell in function.__closure__ or ()],
            [self.callable(named) for named in self._named(function)],
            self.callable(inner) if inspect.isfunction(inner) else None,
        ]

    def _value(self, value: Any) -> Any:
        if inspect.isfunction(value) or isinstance(value, functools.partial):
            return self.callable(value)
        exact(value)
        return ["value", value]

    def _code(self, code: types.CodeType) -> Any:
        constants = [self._code(c) if isinstance(c, types.CodeType) else _constant(c) for c in code.co_consts]
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        return [code.co_code, constants, names, code.co_flags, code.co_argcount, code.co_kwonlyargcount]

    def _named(self, function: types.FunctionType) -> Iterator[Any]:
        """Give the functions of the user's project that a function names, and remember how they were found."""
        namespace = function.__globals__
        for name in _names(function.__code__):
            if name not in namespace:
                continue
            found = namespace[name]
            if isinstance(found, types.ModuleType):
                for attribute in _names(function.__code__):
                    member = vars(found).get(attribute)
                    if member is not None and _is_projects(member):
                        self._note(functools.partial(vars(found).get, attribute), member)
                        yield member
            elif _is_projects(found):
                self._note(functools.partial(namespace.get, name), found)
                yield found

    def _note(self, look: Callable[[], Any], found: Any) -> None:
        self.found.append((look, found, found.__code__))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _constant(value: Any) -> Any:
    return ["...", repr(value)] if value is Ellipsis else value


def _is_projects(thing: Any) -> bool:
    """Whether something is a function written in the user's project: not the library's, not an installed package's."""
    if not inspect.isfunction(thing):
        return False
    if thing.__module__ in ("__main__", "__mp_main__"):
        return True
    if thing.__module__ in sys.stdlib_module_names or thing.__module__.partition(".")[0] == "ibidem":
        return False
    return not thing.__code__.co_filename.startswith(_NOT_THE_PROJECT)
