"""Bad input: each is an error that says what to do instead; what has no effect warns, once."""

import functools
import warnings
from datetime import timedelta

import pytest
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import ibidem
from ibidem import Batch, Guard, IbidemWarning, Live, Memory, Nested, Pure, Read, Write


@tool
def get(key: str) -> str:
    """Get."""
    return key


@tool
def put(key: str, value: int = 0) -> str:
    """Put."""
    return key


def builder():
    made = StateGraph(MessagesState)
    made.add_node("tools", ToolNode([get, put]))
    made.add_edge(START, "tools")
    return made


def graph():
    return builder().compile()


def generator():
    yield 1


async def asynchronous_generator():
    yield 1


BAD = {
    # an unknown option
    "unknown option": (lambda: ibidem.wrap(get, read=["get"]), TypeError, "did you mean reads=?"),
    "unknown option of a guard": (lambda: Guard(effect={}), TypeError, "did you mean effects=?"),
    "unlike any option": (lambda: Guard(colour="red"), TypeError, "it takes effects, reads"),
    "unknown option of an effect": (lambda: Read(tl="5m"), TypeError, "did you mean ttl=?"),
    "option of another effect": (lambda: Write(ttl=5), TypeError, "Write has no option 'ttl'"),
    "unknown option of replace": (lambda: Guard().replace(reeds=[]), TypeError, "did you mean reads=?"),
    # templates
    "unknown argument of a batch": (
        lambda: ibidem.wrap(get, effects={"get": Read(batch=Batch(lambda ids: ids, arg="id"))}),
        ValueError,
        "names the argument 'id', which the tool does not have; it has: key",
    ),
    "unknown argument": (
        lambda: ibidem.wrap(get, effects={"get": Read("k:{id}")}),
        ValueError,
        "'id', which the tool does not have; it has: key",
    ),
    "unknown argument in a graph": (
        lambda: ibidem.wrap(graph(), effects={"put": Write("k:{id}")}),
        ValueError,
        "it has: key, value",
    ),
    "unknown argument of a node": (
        lambda: ibidem.ToolNode([get], guard=Guard(effects={"get": Read("k:{id}")})),
        ValueError,
        "it has: key",
    ),
    "unknown argument of a function": (lambda: ibidem.wrap(lambda key: key, Read("k:{id}")), ValueError, "it has: key"),
    "expression in a template": (lambda: Read("k:{a.b}"), ValueError, "give a callable"),
    "star in the middle": (lambda: Read("k:*:x"), ValueError, "only as the last segment"),
    "empty segment": (lambda: Read("k::x"), ValueError, "empty segment"),
    "no template": (lambda: Read(5), ValueError, "a resource is a text"),
    # times
    "no time": (lambda: Read(ttl="soon"), ValueError, "'10m'"),
    "negative time": (lambda: Read(ttl=-1), ValueError, "Live()"),
    "no time at all": (lambda: Pure(ttl=0), ValueError, "Live()"),
    "endless": (lambda: Read(ttl=float("inf")), ValueError, "or None"),
    "not a number": (lambda: Read(ttl=float("nan")), ValueError, "or None"),
    "negative timedelta": (lambda: Read(ttl=timedelta(seconds=-1)), ValueError, "Live()"),
    "truth as a time": (lambda: Read(ttl=True), ValueError, "is not a time"),
    "unknown scope": (lambda: Read(scope="everybody"), ValueError, "conversation, user, shared"),
    # contradictions
    "in two lists": (lambda: Guard(reads=["get"], writes=["get"]), ValueError, "keep it in one of them"),
    "two globs": (
        lambda: ibidem.wrap(get, reads=["g*"], writes=["*t"]),
        ValueError,
        "exact name in effects={'get': ...}",
    ),
    "two globs in a graph": (lambda: ibidem.wrap(graph(), reads=["*"], live=["put"]), ValueError, "narrow one of them"),
    # kinds
    "text for a list": (lambda: Guard(reads="get_*"), TypeError, "reads=['get_*']"),
    "class for an effect": (lambda: Guard(effects={"get": Read}), TypeError, "Read() with brackets"),
    "text for an effect": (lambda: Guard(effects={"get": "read"}), TypeError, "Pure(), Read(...)"),
    "list for effects": (lambda: Guard(effects=["get"]), TypeError, "dict of tool name to effect"),
    "tool as a name": (lambda: Guard(effects={5: Read()}), TypeError, "names of tools"),
    "default": (lambda: Guard(default="read"), TypeError, "Pure(), Read(...)"),
    "store": (lambda: Guard(store=5), TypeError, "ibidem.Memory"),
    "user": (lambda: Guard(user="ann"), TypeError, "callable"),
    "on_event": (lambda: Guard(on_event=[]), TypeError, "callable"),
    "layers": (lambda: Guard(outside=lambda c, i: None), TypeError, "list of layers"),
    # a second guard
    "second guard of a tool": (
        lambda: ibidem.wrap(ibidem.wrap(get, Guard(reads=["get"])), Guard()),
        ValueError,
        "wrap the original",
    ),
    "second guard of a node": (
        lambda: ibidem.wrap(ibidem.wrap(ToolNode([get]), Guard(reads=["get"])), Guard()),
        ValueError,
        "wrap the original",
    ),
    "second guard of a graph": (
        lambda: ibidem.wrap(ibidem.wrap(graph(), Guard(reads=["get", "put"])), Guard()),
        ValueError,
        "replace(...)",
    ),
    "second guard within a graph": (
        lambda: ibidem.wrap(ToolNode([ibidem.wrap(get, Guard(reads=["get"]))]), Guard()),
        ValueError,
        "'get' already passes another",
    ),
    "second guard of a function": (
        lambda: ibidem.wrap(ibidem.wrap(len, Guard(reads=["len"])), Guard()),
        ValueError,
        "wrap the original",
    ),
    "guard and options": (lambda: ibidem.wrap(get, Guard(), reads=["get"]), TypeError, "guard.replace(reads=...)"),
    "effect and options": (lambda: ibidem.wrap(get, Read(), user=len), TypeError, "Guard(effects={...}"),
    "no guard": (lambda: ibidem.wrap(get, "guard"), TypeError, "a Guard, a bound one or an effect"),
    "effect of a node": (lambda: ibidem.wrap(ToolNode([get]), Read()), TypeError, "effects={name: effect}"),
    "effect of a graph": (lambda: ibidem.wrap(graph(), Read()), TypeError, "effects={name: effect}"),
    # what cannot be wrapped
    "number": (lambda: ibidem.wrap(5), TypeError, "give a tool, a list or dict of tools"),
    "text": (lambda: ibidem.wrap("get"), TypeError, "give a tool"),
    "None": (lambda: ibidem.wrap(None), TypeError, "give a tool"),
    "class": (lambda: ibidem.wrap(StructuredTool), TypeError, "wrap an instance"),
    "not compiled": (lambda: ibidem.wrap(builder()), TypeError, "builder.compile("),
    "runnable": (
        lambda: ibidem.wrap(RunnableLambda(len)),
        TypeError,
        "wrap the tools, the ToolNode or the compiled graph",
    ),
    "prompt": (lambda: ibidem.wrap(PromptTemplate.from_template("{x}")), TypeError, "is no tool"),
    "generator": (lambda: ibidem.wrap(generator, Pure()), TypeError, "returns a list"),
    "asynchronous generator": (lambda: ibidem.wrap(asynchronous_generator, Pure()), TypeError, "returns a list"),
    "number in a list": (lambda: ibidem.wrap([get, 5], reads=["get"]), TypeError, "5 cannot be wrapped"),
    "one tool for an answer": (
        lambda: ibidem.anthropic.answer({"role": "assistant", "content": []}, get, Guard(reads=["get"])),
        TypeError,
        "tools= is a list of tools",
    ),
    "one function for a request": (
        lambda: ibidem.anthropic.tools_for(generator),
        TypeError,
        "tools= is a list of tools",
    ),
    # who asks
    "empty conversation": (lambda: Guard().bind(conversation=""), ValueError, "not empty"),
    "strange user": (lambda: Guard().bind(user=["ann"]), ValueError, "does not name a user"),
    "truth as a user": (lambda: Guard().bind(user=True), ValueError, "does not name a user"),
    "nothing touched": (lambda: Guard().touch(), TypeError, "touch('*') for everything"),
    "touched by one text in a tuple of numbers": (lambda: Guard().touch(("order", 42)), ValueError, "tuple of texts"),
    "touched by a template": (lambda: Guard().touch("order:{id}"), ValueError, "such as 'order:42'"),
    # decorators
    "decorated class": (lambda: Read()(StructuredTool), TypeError, "declares a function or a tool"),
    "decorated number": (lambda: Read()(5), TypeError, "declares a function or a tool"),
    "decorated builtin": (lambda: Read()(len), TypeError, "Guard(effects={'len': Read()})"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_says_what_to_do_instead(what):
    do, kind, advice = BAD[what]
    with pytest.raises(kind) as caught:
        do()
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_advice_about_a_second_guard_can_be_followed():
    wrapped = ibidem.wrap(get, Guard(reads=["get"]))
    other = ibidem.guard_of(wrapped).replace(timeout=5)
    with pytest.raises(ValueError, match=r"wrap the original .* with ibidem\.guard_of\(\.\.\.\)\.replace\(\.\.\.\)"):
        ibidem.wrap(wrapped, other)
    assert ibidem.guard_of(ibidem.wrap(get, other)) is other


def test_a_failed_wrap_leaves_everything_alone():
    made = ToolNode([get, put])
    before = dict(vars(made))
    with pytest.raises(ValueError, match="it has: key"):
        ibidem.wrap(made, effects={"get": Read("k:{id}")})
    assert vars(made) == before
    assert ibidem.guard_of(get) is None


def test_an_unknown_environment_is_refused(monkeypatch):
    monkeypatch.setenv("IBIDEM", "of")
    with pytest.raises(ValueError, match="set it to off or memory, or unset it"):
        Guard()


@pytest.mark.parametrize("name", ["get", "gut_*"])
def test_a_declaration_that_matches_nothing_warns_once_and_lists_the_tools(name):
    guard = Guard(reads=["put", name.replace("get", "got")])
    with pytest.warns(IbidemWarning) as caught:
        ibidem.wrap(graph(), guard)
    (warning,) = caught
    assert repr(name.replace("get", "got")) in str(warning.message)
    assert "get, put" in str(warning.message)
    assert "'put'" not in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ibidem.wrap(graph(), guard)


WAYS = {
    "wrap": lambda guard: ibidem.wrap(graph(), guard),
    "node": lambda guard: ibidem.ToolNode([get, put], guard=guard),
    "answer": lambda guard: ibidem.anthropic.answer({"role": "assistant", "content": []}, [get, put], guard),
}


@pytest.mark.parametrize("options", [{}, {"reads": ["missing"]}], ids=["nothing declared", "a miss"])
@pytest.mark.parametrize("way", WAYS)
def test_a_warning_names_the_line_that_wraps(way, options):
    with pytest.warns(IbidemWarning, match="the tools are: get, put") as caught:
        WAYS[way](Guard(**options))
    assert [each.filename for each in caught] == [__file__]


def test_a_warning_says_that_other_tools_may_come_later():
    guard = Guard(reads=["get", "put"])
    with pytest.warns(IbidemWarning, match="'put'.*Nothing is wrong if more tools are wrapped with this guard later"):
        ibidem.wrap([get], guard)


def test_a_single_tool_does_not_warn_of_declarations_for_others():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ibidem.wrap(get, Guard(reads=["get", "other"]))


def test_a_declaration_for_a_tool_that_was_met_before_is_no_miss():
    guard = Guard(reads=["get", "other"])

    def other(key):
        return key

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ibidem.wrap(other, guard)
        ibidem.wrap([get, put], guard)


def test_nothing_declared_warns_once_and_lists_the_tools():
    guard = Guard()
    with pytest.warns(IbidemWarning) as caught:
        ibidem.wrap(graph(), guard)
    (warning,) = caught
    assert "get, put" in str(warning.message) and "reads=" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ibidem.wrap(graph(), guard)


@pytest.mark.parametrize("declared", ["decorator", "default", "list"])
def test_what_is_declared_in_any_way_does_not_warn(declared):
    @tool
    def look(key: str) -> str:
        """Look."""
        return key

    guard = {"decorator": Guard(), "default": Guard(default=Live()), "list": Guard(live=["look"])}[declared]
    if declared == "decorator":
        Read()(look)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ibidem.wrap([look], guard)


def test_what_can_be_wrapped_is_wrapped():
    """Callables of every kind that the errors above do not mean."""

    class Callable_:
        def __call__(self, x):
            return x + 1

        def method(self, x):
            return x + 2

        @classmethod
        def of_class(cls, x):
            return x + 3

        @staticmethod
        def of_nobody(x):
            return x + 4

    thing = Callable_()
    partial = functools.partial(lambda y, x: x + y, 5)
    for number, function in enumerate((thing, thing.method, thing.of_class, thing.of_nobody, partial), 1):
        guard = Guard(default=Pure(), store=Memory())
        wrapped = ibidem.wrap(function, guard)
        assert [wrapped(1), wrapped(1)] == [1 + number] * 2
        assert guard.stats().memo == 1
    assert ibidem.wrap(Nested()(lambda x: x), Guard())(1) == 1
