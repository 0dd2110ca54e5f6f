"""LangChain tools of every kind behave through a guard as they do without one, and what is replayed is exact.

R14 (what the key is made of), R17 (replays), R20 (nothing unless declared).
"""

import asyncio
import copy
import datetime as dt
import gc
import itertools
import json
import pickle
import threading
import weakref
from typing import Annotated, Any, Literal

import pytest
from adapter_kit import BOTH, Counter, Heard, ask, call, came, ending, plain, wait
from anthropic import beta_tool
from langchain_core.callbacks import CallbackManagerForToolRun
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, Tool, ToolException, tool
from langgraph.types import Command
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from pydantic.v1 import BaseModel as BaseModelV1

import ibidem
from ibidem import Guard, Live, Nested, Pure, Read, Write

UNDECLARED, DECLARED = {}, {"reads": ["*"]}


# -- tools of every kind ----------------------------------------------------------------------------------------------


class Sum(BaseModel):
    a: int
    b: int = 1


def of_sync():
    @tool
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    return add


def of_async():
    @tool
    async def add(a: int, b: int = 1) -> int:
        """Add."""
        await asyncio.sleep(0)
        return a + b

    return add


def of_both():
    async def later(a: int, b: int = 1) -> str:
        return f"async {a + b}"

    return StructuredTool.from_function(lambda a, b=1: f"sync {a + b}", later, "add", "Add.", args_schema=Sum)


def of_single():
    return Tool("add", lambda text: f"<{text}>", "Add.", metadata={"kind": "single"}, tags=["t"])


class Bare(BaseTool):
    name: str = "add"
    description: str = "Add."

    def _run(self, a: int, b: int = 1) -> int:
        return a + b


class OfBoth(Bare):
    args_schema: type[BaseModel] = Sum

    async def _arun(self, a: int, b: int = 1) -> str:
        return f"async {a + b}"


class ArunCallsRun(Bare):
    async def _arun(self, a: int, b: int = 1) -> int:
        return self._run(a, b)


class Keeping(Bare):
    offset: int = 10
    _secret: int = PrivateAttr(default=5)

    def _run(self, a: int, b: int = 1) -> int:
        return a + b + self.offset + self._secret


class WithManager(Bare):
    def _run(self, a: int, b: int = 1, run_manager: CallbackManagerForToolRun | None = None) -> str:
        return f"{a + b} {run_manager is not None}"


class WithConfig(Bare):
    def _run(self, a: int, b: int = 1, *, config: RunnableConfig) -> str:
        return f"{a + b} {config.get('tags')}"


class OwnRun(Bare):
    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return f"own run: {super().run(tool_input, *args, **kwargs)}"


class OwnInvoke(Bare):
    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:  # noqa: A002
        return f"own invoke: {super().invoke(input, config, **kwargs)}"


class OwnArun(StructuredTool):
    async def _arun(self, *args: Any, config: RunnableConfig, run_manager: Any = None, **kwargs: Any) -> str:
        return f"own arun: {kwargs}"


def of_anthropic():
    @beta_tool
    def look(key: str) -> str:
        """Look."""
        return key

    return look


def of_structured_subclass():
    return OwnArun.from_function(lambda a, b=1: a + b, name="add", description="Add.", args_schema=Sum)


def of_artifact():
    @tool(response_format="content_and_artifact")
    def add(a: int, b: int = 1) -> tuple[list[dict[str, str]], dict[str, int]]:
        """Add."""
        return [{"type": "text", "text": str(a + b)}], {"a": a, "b": b}

    return add


def of_bad_artifact():
    @tool(response_format="content_and_artifact")
    def add(a: int, b: int = 1) -> Any:
        """Add."""
        return a + b

    return add


def of_dict_schema():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "title": "add"}
    return StructuredTool.from_function(lambda **given: given, name="add", description="Add.", args_schema=schema)


class SumV1(BaseModelV1):
    a: int
    b: int = 1


class OfV1(Bare):
    args_schema: Any = SumV1


class Checked(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(alias="first", ge=0)
    b: int = Field(default_factory=lambda: 1)

    @field_validator("a", mode="before")
    @classmethod
    def _strip(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value


class OfChecks(Bare):
    args_schema: type[BaseModel] = Checked


def of_call_id():
    @tool
    def add(a: int, id: Annotated[str, InjectedToolCallId], b: int = 1) -> str:  # noqa: A002
        """Add."""
        return f"{a + b} for {id}"

    return add


def of_config():
    @tool
    def add(a: int, config: RunnableConfig, b: int = 1) -> str:
        """Add."""
        return f"{a + b} {config.get('tags')}"

    return add


def of_nothing():
    @tool
    def add() -> int:
        """Add."""
        return 3

    return add


def of_keywords():
    @tool
    def add(a: int, **more: int) -> str:
        """Add."""
        return f"{a} {more}"

    return add


def failing(problem, **options):
    def add(a: int, b: int = 1) -> int:
        """Add."""
        raise problem

    return lambda: StructuredTool.from_function(add, **options)


def answering(answer, **options):
    def add(a: int, b: int = 1) -> Any:
        """Add."""
        return answer() if callable(answer) else answer

    return lambda: StructuredTool.from_function(add, **options)


def of_listened():
    found = of_sync()
    found.callbacks = [Heard()]
    return found


KINDS = {
    "sync": of_sync,
    "async": of_async,
    "sync and async": of_both,
    "single input": of_single,
    "_run": Bare,
    "_run and _arun": OfBoth,
    "_arun that calls _run": ArunCallsRun,
    "fields and private state": Keeping,
    "run_manager": WithManager,
    "_run with config": WithConfig,
    "own run": OwnRun,
    "own invoke": OwnInvoke,
    "own _arun of a StructuredTool": of_structured_subclass,
    "content and artifact": of_artifact,
    "artifact promised, none given": of_bad_artifact,
    "schema as dict": of_dict_schema,
    "schema of pydantic v1": OfV1,
    "alias, validator, default_factory": OfChecks,
    "call id injected": of_call_id,
    "config": of_config,
    "keywords": of_keywords,
    "no arguments": of_nothing,
    "raises": failing(ValueError("no")),
    "raises, handled": failing(ToolException("no"), handle_tool_error=True),
    "raises, handled by text": failing(ToolException("no"), handle_tool_error="sorry"),
    "raises, handled by function": failing(ToolException("no"), handle_tool_error=lambda e: f"sorry: {e}"),
    "raises, not handled": failing(ToolException("no")),
    "bad arguments handled": answering(1, handle_validation_error="give a number"),
    "gives None": answering(None),
    "gives a dict": answering({"x": [1, 2]}),
    "gives a model": answering(lambda: Sum(a=1)),
    "gives a message": answering(lambda: ToolMessage("m", tool_call_id="c1", name="add")),
    "gives a command": answering(lambda: Command(update={"a": 1})),
    "callbacks of its own": of_listened,
    "verbose": lambda: Bare(verbose=True),
    "from a runnable": lambda: RunnableLambda(lambda given: given["a"] * 2).as_tool(
        name="add", description="Add.", arg_types={"a": int}
    ),
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:This API is in beta:langchain_core._api.LangChainBetaWarning"
)  # as_tool
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
EVERY_GUARD = pytest.mark.parametrize("options", [UNDECLARED, DECLARED], ids=["undeclared", "declared"])
FORMS = {
    "invoke": lambda t, given, config: t.invoke(given, config),
    "ainvoke": lambda t, given, config: wait(t.ainvoke(given, config)),
    "run": lambda t, given, config: t.run(given, **config),
    "arun": lambda t, given, config: wait(t.arun(given, **config)),
    "batch": lambda t, given, config: t.batch([given, given], {**config, "max_concurrency": 1}),
    "abatch": lambda t, given, config: wait(t.abatch([given, given], {**config, "max_concurrency": 1})),
}

BATCHED = ("sync", "async", "single input", "_run", "own run", "content and artifact", "raises, handled")
"""Batches are made of invocations: a few kinds will do."""


def inputs(form):
    raw = [{"a": 1}, {"a": "1", "b": 2}, {"first": 3}, {"a": "not a number"}, {}, "text"]
    if form in ("run", "arun"):
        return raw
    return [*raw, call("add", {"a": 1}), call("add", {"a": "7"}, "c2"), call("add", {"a": -1, "b": 5}, "c3")]


CASES = [(kind, form) for kind in KINDS for form in FORMS if "batch" not in form or kind in BATCHED]


@EVERY_GUARD
@pytest.mark.parametrize(("kind", "form"), CASES)
def test_tools_behave_as_without_a_guard(kind, options, form, capsys):
    """Results, errors and callbacks, on runs and on hits, with somebody listening and with nobody."""
    for listened in (True, False) if form.endswith("invoke") else (True,):
        told: list[Any] = []
        for found in (KINDS[kind](), ibidem.wrap(KINDS[kind](), Guard(errors="raise", **options))):
            heard = Heard()
            config = {"callbacks": [heard], "tags": ["x"]} if listened else {"tags": ["x"]}
            ended = [
                ending(lambda: FORMS[form](found, copy.deepcopy(given), config))
                for given in inputs(form)
                for _ in range(2)
            ]
            own = found.callbacks[0].events if isinstance(found.callbacks, list) else []
            events = sorted(map(repr, heard.events))
            # A batch that fails leaves its other calls alone: how far they get is chance.
            told.append((ended, capsys.readouterr().out, *([] if "batch" in form else [events, len(own)])))
        assert told[0] == told[1]


def schema_of(model):
    return model.model_json_schema() if hasattr(model, "model_json_schema") else model.schema()  # pydantic v1


@EVERY_KIND
def test_tools_look_as_without_a_guard(kind):
    plain_tool = KINDS[kind]()
    wrapped = ibidem.wrap(plain_tool, Guard(reads=["*"]))
    assert type(wrapped).__mro__[1] is type(plain_tool)
    assert isinstance(wrapped, type(plain_tool))
    assert type(wrapped).__name__ == type(plain_tool).__name__
    for name in ("name", "description", "args", "args_schema", "tags", "metadata", "return_direct", "is_single_input"):
        assert getattr(wrapped, name) == getattr(plain_tool, name)
    if not isinstance(plain_tool.args_schema, dict):
        assert schema_of(wrapped.tool_call_schema) == schema_of(plain_tool.tool_call_schema)
    assert wrapped._injected_args_keys == plain_tool._injected_args_keys
    assert str(wrapped) == str(plain_tool)


@pytest.mark.parametrize("kind", ["sync", "async", "_run", "schema as dict", "own run", "content and artifact"])
@EVERY_GUARD
def test_no_call_is_lost_or_doubled(kind, options):
    """R20: undeclared tools run as often as they are called; declared ones once for each distinct call."""
    counts = Counter()
    found = KINDS[kind]()
    if found.__class__ is StructuredTool:
        name = "func" if found.func else "coroutine"
        original = getattr(found, name)

        def counted(*args, **kwargs):
            counts(1)
            return original(*args, **kwargs)

        async def acounted(*args, **kwargs):
            counts(1)
            return await original(*args, **kwargs)

        setattr(found, name, counted if found.func else acounted)
    else:

        class Counted(type(found)):
            def _run(self, a: int, b: int = 1) -> int:
                counts(1)
                return super()._run(a, b)

        found = Counted()
    wrapped = ibidem.wrap(found, Guard(**options))
    for given in ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 1}):
        wait(wrapped.ainvoke(given))
    assert len(counts) == (2 if options else 4)


# -- what the key is made of (R14) --------------------------------------------------------------------------------------


def recording(**declared):
    """A tool that writes down its runs, and its wrapped form."""
    runs = Counter()

    @tool
    def get(key: int, unit: str = "kg") -> str:
        """Get."""
        return f"{key} {unit} {runs(key, unit)}"

    return ibidem.wrap(get, Guard(**declared) if declared else Guard(reads=["get"])), runs


@BOTH
@pytest.mark.parametrize("as_call", [True, False])
def test_validated_arguments_are_the_key(way, as_call):
    wrapped, runs = recording()
    for args in ({"key": 1}, {"key": "1"}, {"key": 1.0}, {"key": 1, "unit": "kg"}, {"unit": "kg", "key": 1}):
        ask(way, wrapped, call("get", args) if as_call else args)
    assert runs.runs == [(1, "kg")]
    ask(way, wrapped, call("get", {"key": 1, "unit": "g"}) if as_call else {"key": 1, "unit": "g"})
    assert len(runs) == 2


@BOTH
def test_aliases_and_validators_are_looked_at_by_what_they_make(way):
    runs = Counter()

    class Counted(OfChecks):
        def _run(self, a: int, b: int = 1) -> int:
            return runs(a, b)

    aliases = [{"first": 1}, {"first": " 1 "}]
    if ending(lambda: OfChecks().invoke(dict(aliases[0])))[0] == "raised":
        aliases = []  # LangChain before 1.7 loses what comes by an alias
    wrapped = ibidem.wrap(Counted(), Guard(reads=["add"]))
    for args in (*aliases, {"a": 1}, {"a": " 1 "}, {"a": "1", "b": 1}):
        ask(way, wrapped, call("add", args))
    assert runs.runs == [(1, 1)]


@BOTH
def test_a_default_made_anew_is_part_of_the_key(way):
    """The raw arguments of "today" are the same every day."""
    days = itertools.count(1)
    runs = Counter()

    class Day(BaseModel):
        day: int = Field(default_factory=lambda: next(days))

    class OfDay(BaseTool):
        name: str = "of_day"
        description: str = "Of a day."
        args_schema: type[BaseModel] = Day

        def _run(self, day: int) -> int:
            runs(day)
            return day

    wrapped = ibidem.wrap(OfDay(), Guard(effects={"of_day": Pure()}))
    assert [ask(way, wrapped, call("of_day", {})).content for _ in range(3)] == ["1", "2", "3"]
    assert ask(way, wrapped, call("of_day", {"day": 2})).content == "2"
    assert runs.runs == [1, 2, 3]


@BOTH
def test_a_tool_may_change_its_arguments(way):
    runs = Counter()

    @tool
    def take(names: list[str], more: dict[str, list[int]]) -> str:
        """Take."""
        runs((list(names), copy.deepcopy(more)))
        names.clear()
        more.setdefault("x", []).append(1)
        return "done"

    wrapped = ibidem.wrap(take, Guard(reads=["take"]))
    given = call("take", {"names": ["a", "b"], "more": {"x": [0]}})
    for _ in range(3):
        ask(way, wrapped, given)
    assert runs.runs == [(["a", "b"], {"x": [0]})]
    ask(way, wrapped, call("take", {"names": [], "more": {"x": [0, 1]}}))
    assert len(runs) == 2
    assert given["args"] == {"names": ["a", "b"], "more": {"x": [0]}}


@BOTH
def test_models_as_arguments_have_a_key(way):
    runs = Counter()

    class Address(BaseModel):
        city: str
        tags: set[str] = set()

    @tool
    def locate(address: Address, on: dt.date) -> str:
        """Locate."""
        address.tags.add("seen")
        return str(runs(address.city))

    wrapped = ibidem.wrap(locate, Guard(reads=["locate"]))
    args = {"address": {"city": "Rome", "tags": ["b", "a"]}, "on": "2026-01-01"}
    assert len({ask(way, wrapped, call("locate", copy.deepcopy(args))).content for _ in range(3)}) == 1
    args["address"]["city"] = "Oslo"
    ask(way, wrapped, call("locate", args))
    assert runs.runs == ["Rome", "Oslo"]


def test_arguments_without_an_exact_key_run_and_are_counted():
    runs = Counter()

    class Opaque:
        pass

    @tool
    def look(thing: Any) -> int:
        """Look."""
        return runs(thing)

    guard = Guard(reads=["look"])
    wrapped = ibidem.wrap(look, guard)
    thing = Opaque()
    assert [wrapped.invoke({"thing": thing}) for _ in range(2)] == [1, 2]
    assert runs.runs == [thing, thing], "the tool is given the thing itself, not a copy"
    (reason,) = guard.stats().uncacheable
    assert "thing" in reason


def test_tools_of_one_name_and_different_code_share_nothing():
    guard = Guard(reads=["get"])

    def make(answer):
        @tool
        def get(key: str) -> str:
            """Get."""
            return answer

        return ibidem.wrap(get, guard)

    first, second = make("first"), make("second")
    assert [t.invoke({"key": "k"}) for t in (first, second, first, second)] == ["first", "second"] * 2
    assert guard.stats().memo == 2


def test_tools_of_one_class_and_different_fields_share_nothing():
    guard = Guard(effects={"add": Pure()})
    tools = [ibidem.wrap(Keeping(offset=offset), guard) for offset in (0, 100)]
    assert [t.invoke({"a": 1}) for t in tools * 2] == [7, 107, 7, 107]


class Scaled(Bare):
    factor: int = 2

    def _run(self, a: int, b: int = 1) -> int:
        return a * self.factor


@BOTH
def test_what_is_set_on_a_tool_later_counts(way):
    """A tool keeps its state with the original, and what it answered under other settings is not replayed."""
    original = Scaled()
    wrapped = ibidem.wrap(original, Guard(effects={"add": Pure()}))
    assert ask(way, wrapped, {"a": 2}) == 4
    original.factor = 3
    assert wrapped.factor == 3
    assert ask(way, wrapped, {"a": 2}) == 6
    wrapped.factor = 2
    assert original.factor == 2
    assert ask(way, wrapped, {"a": 2}) == 4


def test_a_method_of_the_tool_that_is_written_anew_is_seen():
    """As when a notebook cell is run again: same name, same schema, same `_run`, another helper."""
    guard = Guard(effects={"add": Pure()})

    def make(constant):
        class Helped(Bare):
            def _run(self, a: int, b: int = 1) -> int:
                return self._help(a)

        def _help(self, a):
            return a + constant

        def one(self, a):
            return a + 1

        def two(self, a):
            return a + 2

        Helped._help = one if constant == 1 else two
        return ibidem.wrap(Helped(), guard)

    assert [make(1).invoke({"a": 1}), make(2).invoke({"a": 1})] == [2, 3]


def test_what_a_tool_takes_from_the_framework_keeps_it_from_being_remembered():
    """R15: also where only one of two bodies takes it."""

    async def later(a: int, config: RunnableConfig) -> str:
        return f"{a} for {config['configurable']['who']}"

    def now(a: int) -> str:
        return f"{a} for nobody"

    found = StructuredTool.from_function(now, later, "get", "Get.")
    guard = Guard(reads=["get"])
    wrapped = ibidem.wrap(found, guard)
    answers = [wait(wrapped.ainvoke({"a": 1}, {"configurable": {"who": who, "thread_id": "t"}})) for who in "xy"]
    assert answers == ["1 for x", "1 for y"]
    (reason,) = guard.stats().uncacheable
    assert "config" in reason


# -- replays (R17) ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("listened", [True, False])
def test_a_replayed_message_is_fresh_and_says_how_it_came(way, listened):
    wrapped, runs = recording()
    config = {"callbacks": [Heard()]} if listened else None
    first = ask(way, wrapped, call("get", {"key": 1}, "one"), config)
    first.id = "set by add_messages"
    second = ask(way, wrapped, call("get", {"key": 1}, "two"), config)
    third = ask(way, wrapped, call("get", {"key": 1}, "three"), config)
    assert len(runs) == 1
    assert second is not third
    assert [m.tool_call_id for m in (first, second, third)] == ["one", "two", "three"]
    assert second.id is None and third.id is None
    assert first.content == second.content == third.content == "1 kg 1"
    assert second.name == "get" and second.status == "success"
    assert "ibidem" not in first.response_metadata
    assert second.response_metadata.keys() == {"ibidem"}
    assert second.response_metadata["ibidem"].keys() == {"how", "age_s"}
    assert second.response_metadata["ibidem"]["how"] == "memo"
    assert second.response_metadata["ibidem"]["age_s"] >= 0
    json.dumps(second.response_metadata)


class Finding(BaseModel):
    title: str
    tags: list[str] = []


ARTIFACTS = {
    "dict": {"a": [1, {"b": 2}]},
    "model": Finding(title="t", tags=["x"]),
    "bytes": b"\x00\xff",
    "none": None,
    "tuple": (1, [2]),
    "set": {1, 2},
    "date": dt.date(2026, 1, 2),
}


@BOTH
@pytest.mark.parametrize("listened", [True, False])
@pytest.mark.parametrize("kind", ARTIFACTS)
def test_artifacts_come_back_equal_and_are_nobody_elses(way, listened, kind):
    runs = Counter()
    blocks = [{"type": "text", "text": "found", "id": "lc_1"}]

    @tool(response_format="content_and_artifact")
    def find(q: str) -> Any:
        """Find."""
        runs(q)
        return copy.deepcopy(blocks), copy.deepcopy(ARTIFACTS[kind])

    wrapped = ibidem.wrap(find, Guard(reads=["find"]))
    config = {"callbacks": [Heard()]} if listened else None
    for number in range(3):
        message = ask(way, wrapped, call("find", {"q": "x"}, str(number)), config)
        assert message.content == blocks
        assert message.artifact == ARTIFACTS[kind] and type(message.artifact) is type(ARTIFACTS[kind])
        message.content[0]["text"] = "changed by the caller"
        for change in (
            lambda a: a["a"].clear(),
            lambda a: a.tags.append("changed"),
            lambda a: a[1].append(3),
            lambda a: a.add(3),
        ):
            ending(lambda: change(message.artifact))
    assert runs.runs == ["x"]


@BOTH
def test_results_that_callers_change_are_their_own(way):
    runs = Counter()

    @tool
    def get(key: str) -> dict[str, list[int]]:
        """Get."""
        runs(key)
        return {"found": [1]}

    wrapped = ibidem.wrap(get, Guard(reads=["get"]))
    for _ in range(3):
        found = ask(way, wrapped, {"key": "k"})
        assert found == {"found": [1]}
        found["found"].append(2)
    assert len(runs) == 1


def test_what_the_tool_itself_keeps_is_not_handed_out():
    class Kept:
        found = {"list": [1]}

    @tool
    def get(key: str) -> dict[str, list[int]]:
        """Get."""
        return Kept.found

    wrapped = ibidem.wrap(get, Guard(reads=["get"]))
    assert wrapped.invoke({"key": "k"}) is Kept.found  # as without a guard
    Kept.found["list"].append(2)
    assert wrapped.invoke({"key": "k"}) == {"list": [1]}


@BOTH
@pytest.mark.parametrize("handled", [True, False, "sorry"])
def test_errors_are_not_remembered(way, handled):
    runs = Counter()

    def get(key: str) -> str:
        """Get."""
        if runs(key) < 3:
            raise ToolException("not yet")
        return "there"

    wrapped = ibidem.wrap(
        StructuredTool.from_function(get, handle_tool_error=handled), Guard(reads=["get"], errors="raise")
    )
    ended = [ending(lambda: ask(way, wrapped, call("get", {"key": "k"}))) for _ in range(4)]
    assert len(runs) == 3
    assert ended[0] == ended[1] != ended[2] == ended[3]
    assert ended[0][0] == ("gave" if handled else "raised")
    if handled:
        assert ended[0][1][2]["status"] == "error"


@BOTH
@pytest.mark.parametrize(
    "result",
    [
        lambda n: ToolMessage(f"m{n}", tool_call_id="c1"),
        lambda n: Command(update={"n": n}),
        lambda n: [Command(update={"n": n}), ToolMessage(f"m{n}", tool_call_id="c1")],
        lambda n: (x for x in range(n)),
        lambda n: threading.Lock(),
    ],
    ids=["message", "command", "list of them", "generator", "lock"],
)
def test_what_belongs_to_one_call_is_not_remembered(way, result):
    runs = Counter()

    @tool
    def get(key: str) -> Any:
        """Get."""
        return result(runs(key))

    guard = Guard(reads=["get"])
    wrapped = ibidem.wrap(get, guard)
    found = [ask(way, wrapped, {"key": "k"}) for _ in range(3)]
    assert len(runs) == 3
    assert len(guard.entries()) == 0
    assert found[0] is not found[1]
    assert sum(guard.stats().uncacheable.values()) == 3


@BOTH
def test_hits_tell_callbacks_what_runs_tell(way):
    wrapped, runs = recording()
    heard = [Heard(), Heard()]
    for each in heard:
        ask(way, wrapped, call("get", {"key": 1}), {"callbacks": [each]})
    assert len(runs) == 1
    assert heard[0].events == heard[1].events
    assert [event[0] for event in heard[1].events] == ["start", "end"]


@pytest.mark.parametrize("of", ["tool", "config", "debug", "hook"])
def test_whoever_listens_hears_of_hits(of, monkeypatch):
    """Also where the config is empty: the tool's own callbacks, a hook, debug mode."""
    from langchain_core import globals as lc_globals
    from langchain_core.tracers import context as tracing

    wrapped, runs = recording()
    heard = Heard()
    config = {"callbacks": [heard]} if of == "config" else {}
    if of == "tool":
        wrapped.callbacks = [heard]
    if of == "hook":
        import contextvars

        variable = contextvars.ContextVar("heard", default=None)
        monkeypatch.setattr(tracing, "_configure_hooks", [*tracing._configure_hooks, (variable, True, None, None)])
        variable.set(heard)
    if of == "debug":
        monkeypatch.setattr(lc_globals, "_debug", True)
        said = []
        from langchain_core.tracers import stdout

        monkeypatch.setattr(
            stdout.FunctionCallbackHandler, "on_tool_start", lambda *a, **k: said.append("start") or None
        )
        monkeypatch.setattr(stdout.FunctionCallbackHandler, "on_tool_end", lambda *a, **k: said.append("end") or None)
    messages = [wrapped.invoke(call("get", {"key": 1}), config) for _ in range(2)]
    assert len(runs) == 1
    assert came(messages[1]) == "memo"
    told = said if of == "debug" else [event[0] for event in heard.events]
    assert told == ["start", "end"] * 2


# -- copies, state, pickle ------------------------------------------------------------------------------------------------

COPIES = {
    "model_copy": lambda t: t.model_copy(),
    "model_copy, changed": lambda t: t.model_copy(update={"description": "Other."}),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("declared", ["guard", "effect", "decorator"])
def test_copies_pass_the_same_guard_with_the_same_effect(how, declared):
    runs = Counter()

    def get(key: str) -> int:
        """Get."""
        return runs(key)

    found = StructuredTool.from_function(get)
    guard = Guard(reads=["get"]) if declared == "guard" else Guard()
    if declared == "decorator":
        found = Read()(found)
    wrapped = ibidem.wrap(found, Read() if declared == "effect" else guard)
    twin = COPIES[how](wrapped)
    assert twin is not wrapped
    assert ibidem.guard_of(twin) is ibidem.guard_of(wrapped) is not None
    assert isinstance(twin, StructuredTool)
    with ibidem.guard_of(twin).conversation(f"copies {how} {declared}"):
        assert [twin.invoke({"key": "k"}) for _ in range(2)] == [1, 1]
    assert twin.description == ("Other." if "changed" in how else found.description)


class Tally(BaseTool):
    """Counts in itself."""

    name: str = "tally"
    description: str = "Tally."
    total: int = 0
    seen: list[int] = []
    _last: int = PrivateAttr(default=0)

    def _run(self, n: int) -> int:
        self.total += n
        self.seen.append(n)
        self._last = n
        return self.total


@BOTH
@EVERY_GUARD
def test_state_kept_on_a_tool_is_the_originals(way, options):
    original = Tally()
    wrapped = ibidem.wrap(original, Guard(**options))
    for n in (1, 2):
        ask(way, wrapped, {"n": n})
    original.invoke({"n": 3})
    assert wrapped.total == original.total == 6
    assert wrapped.seen == original.seen == [1, 2, 3]
    assert wrapped._last == original._last == 3
    wrapped.total = 0
    assert original.total == 0


@tool
def module_level(key: str) -> str:
    """Get."""
    return key


def test_a_wrapped_tool_pickles_as_the_plain_one():
    """Its guard belongs to its process."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        for found in (Keeping(offset=3), module_level):
            wrapped = ibidem.wrap(found, Guard(reads=["*"]))
            try:
                expected = pickle.dumps(found, protocol)
            except Exception as problem:
                with pytest.raises(type(problem)):
                    pickle.dumps(wrapped, protocol)
                continue
            twin = pickle.loads(pickle.dumps(wrapped, protocol))
            assert type(twin) is type(found)
            assert twin == pickle.loads(expected)
            assert ibidem.guard_of(twin) is None


# -- wrapping -------------------------------------------------------------------------------------------------------------


def test_wrapping_is_idempotent_and_leaves_the_tool_alone():
    guard = Guard(reads=["get"])
    runs = Counter()

    @tool
    def get(key: str) -> int:
        """Get."""
        return runs(key)

    wrapped = ibidem.wrap(get, guard)
    assert ibidem.wrap(wrapped, guard) is wrapped
    assert ibidem.wrap(get, guard) is wrapped
    assert ibidem.guard_of(get) is None
    assert type(get) is StructuredTool
    assert [get.invoke({"key": "k"}) for _ in range(2)] == [1, 2]
    assert guard.stats().calls == 0


def test_lists_and_dicts_of_tools():
    guard = Guard(reads=["add"])
    tools = [of_sync(), Bare()]
    assert [type(t).__mro__[1] for t in ibidem.wrap(tools, guard)] == [StructuredTool, Bare]
    by_name = ibidem.wrap({"x": tools[0], "y": [tools[1]]}, guard)
    assert by_name.keys() == {"x", "y"}
    assert ibidem.guard_of(by_name["x"]) is ibidem.guard_of(by_name["y"][0]) is guard
    assert type(ibidem.wrap(tuple(tools), guard)) is tuple
    assert ibidem.guard_of(tools[0]) is None


def test_an_effect_is_a_decorator_above_and_below_tool():
    runs = Counter()

    @Read("k:{key}")
    @tool
    def above(key: str) -> int:
        """Get."""
        return runs(key)

    @tool
    @Read("k:{key}")
    def below(key: str) -> int:
        """Get."""
        return runs(key)

    guard = Guard(writes=["unused"])
    for found in (above, below):
        wrapped = ibidem.wrap(found, guard)
        assert wrapped.invoke({"key": "k"}) == wrapped.invoke({"key": "k"})
    assert len(runs) == 2
    assert {row.declared for row in guard.explain()} == {"decorator"}


def test_the_function_behind_a_tool_may_be_wrapped_too():
    """One call passes one guard once."""
    runs = Counter()
    guard = Guard(reads=["get"])

    def get(key: str) -> int:
        """Get."""
        return runs(key)

    wrapped = ibidem.wrap(tool(ibidem.wrap(get, guard)), guard)
    assert [wrapped.invoke({"key": "k"}) for _ in range(3)] == [1, 1, 1]
    assert guard.stats().calls == 3


@BOTH
def test_identical_calls_under_way_share_one_run(way):
    runs = Counter()
    go = threading.Event()
    guard = Guard(reads=["get"])

    @tool
    def get(key: str) -> int:
        """Get."""
        assert go.wait(10)
        return runs(key)

    wrapped = ibidem.wrap(get, guard)

    def release():
        """Open the gate once the others have boarded."""
        flights = guard._memo.flights._flights
        while not any(flight.waiters == 4 for flight in list(flights.values())):
            if stop.wait(0.001):
                return
        go.set()

    stop = threading.Event()
    opener = threading.Thread(target=release)
    opener.start()
    try:
        if way == "sync":
            answers = []
            threads = [
                threading.Thread(target=lambda n=n: answers.append(wrapped.invoke(call("get", {"key": "k"}, f"c{n}"))))
                for n in range(5)
            ]
            for each in threads:
                each.start()
            for each in threads:
                each.join(10)
        else:

            async def together():
                return await asyncio.gather(*(wrapped.ainvoke(call("get", {"key": "k"}, f"c{n}")) for n in range(5)))

            answers = wait(together())
    finally:
        stop.set()
        go.set()
        opener.join(10)
    assert len(runs) == 1
    assert sorted(m.tool_call_id for m in answers) == [f"c{n}" for n in range(5)]
    assert sorted(came(m) for m in answers) == ["ran", "shared", "shared", "shared", "shared"]


@BOTH
def test_a_tool_that_calls_itself_passes_the_guard_each_time(way):
    """The inner call writes what the outer one does not name."""
    world = {"1": 0, "2": 0}
    guard = Guard(effects={"put": Write("k:{key}"), "get": Read("k:{key}")})

    @tool
    def put(key: str) -> str:
        """Put."""
        world[key] += 1
        if key == "1":
            wrapped["put"].invoke({"key": "2"})
        return "done"

    @tool
    def get(key: str) -> int:
        """Get."""
        return world[key]

    wrapped = ibidem.wrap({"put": put, "get": get}, guard)
    assert ask(way, wrapped["get"], {"key": "2"}) == 0
    ask(way, wrapped["put"], {"key": "1"})
    assert ask(way, wrapped["get"], {"key": "2"}) == 1
    assert guard.stats().tools["put"].calls == 2


def test_a_read_that_calls_itself_with_the_same_arguments_ends():
    guard = Guard(reads=["get"])
    depth = itertools.count()

    @tool
    def get(key: str) -> str:
        """Get."""
        return "end" if next(depth) > 3 else f"({wrapped.invoke({'key': key})})"

    wrapped = ibidem.wrap(get, guard)
    assert wrapped.invoke({"key": "k"}) == "((((end))))"


@BOTH
@pytest.mark.parametrize("effect", [Live(), Nested(), Write(), None], ids=str)
def test_what_is_not_declared_to_be_remembered_runs_each_time(way, effect):
    """R20."""
    runs = Counter()

    @tool
    def act(key: str) -> int:
        """Act."""
        return runs(key)

    guard = Guard(effects={"act": effect}) if effect else Guard()
    wrapped = ibidem.wrap(act, guard)
    messages = [ask(way, wrapped, call("act", {"key": "k"})) for _ in range(3)]
    assert [m.content for m in messages] == ["1", "2", "3"]
    assert {came(m) for m in messages} == {"ran"}
    assert len(guard.entries()) == 0


@BOTH
@pytest.mark.parametrize("changing", [Write("k:a"), Write(), None], ids=str)
def test_no_read_is_stale_after_a_write(way, changing):
    world = Counter()

    @tool
    def get(key: str) -> int:
        """Get."""
        return len(world)

    @tool
    def act(key: str) -> int:
        """Act."""
        return world(key)

    effects = {"get": Read("k:{key}")}
    guard = Guard(effects={**effects, "act": changing} if changing else effects)
    wrapped = ibidem.wrap({"get": get, "act": act}, guard)
    with guard.conversation("one"):
        assert ask(way, wrapped["get"], {"key": "a"}) == 0
        ask(way, wrapped["act"], {"key": "a"})
        assert ask(way, wrapped["get"], {"key": "a"}) == 1
    assert came(ask(way, ibidem.wrap(get, guard.bind(conversation="one")), call("get", {"key": "a"}))) == "memo"


def test_off_leaves_everything_as_it_is(monkeypatch):
    monkeypatch.setenv("IBIDEM", "off")
    wrapped, runs = recording()
    messages = [wrapped.invoke(call("get", {"key": 1})) for _ in range(2)]
    assert len(runs) == 2
    assert {came(m) for m in messages} == {"ran"}


def test_tools_made_for_one_request_are_let_go():
    """A guard lives as long as a server; a tool made for one request does not."""
    guard = Guard(reads=["get"])
    kept = []
    for number in range(2500):

        def get(key: str, number=number) -> int:
            """Get."""
            return number

        schema = {"type": "object", "properties": {"key": {"type": "string"}}}
        made = StructuredTool.from_function(get, name="get", description="Get.", args_schema=schema)
        assert ibidem.wrap(made, guard).invoke(call("get", {"key": "k"})).content == str(number)
        kept.append(weakref.ref(made))
    del made
    gc.collect()
    assert sum(each() is not None for each in kept) < 2000


@pytest.mark.parametrize("of", [of_sync, of_anthropic])
def test_guards_made_for_one_request_are_let_go(of):
    """A wrapped tool holds its guard, so nothing that outlives both may hold the tool."""
    plain, gone = of(), []
    for _ in range(3):
        guard = Guard(reads=["*"])
        ibidem.wrap(plain, guard)
        gone.append(weakref.ref(guard))
        del guard
    gc.collect()
    assert [each() for each in gone] == [None] * 3


def test_a_literal_and_an_enum_keep_their_types():
    runs = Counter()

    @tool
    def get(unit: Literal["kg", "g"], n: int | None = None) -> str:
        """Get."""
        return f"{unit} {n} {runs(unit, n)}"

    wrapped = ibidem.wrap(get, Guard(reads=["get"]))
    for args in ({"unit": "kg"}, {"unit": "kg", "n": None}, {"unit": "g", "n": 0}, {"unit": "g", "n": 0}):
        wrapped.invoke(call("get", args))
    assert runs.runs == [("kg", None), ("g", 0)]


def test_plain_compares_messages():
    """The comparison of these tests tells messages apart."""
    assert plain(ToolMessage("a", tool_call_id="1")) != plain(ToolMessage("a", tool_call_id="2"))
    assert plain(ToolMessage("a", tool_call_id="1")) != plain(ToolMessage("b", tool_call_id="1"))
