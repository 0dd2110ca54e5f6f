"""A guard answers questions: what was declared, what came from where, what is remembered; and forgets on request."""

import logging
import threading

import pytest
from adapter_kit import BOTH, Counter, ask, call, came, contents, node_graph, thread, turn
from langchain_core.tools import ToolException, tool
from langgraph.prebuilt import ToolNode

import ibidem
from ibidem import Event, Guard, Live, Memory, Nested, Pure, Read, Write

pytestmark = pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning")


class Shop:
    """Tools of several effects, in a graph behind a guard."""

    def __init__(self, **options):
        runs = self.runs = Counter()

        @tool
        def get(key: str) -> str:
            """Get."""
            return f"{key} {runs('get', key)}"

        @tool
        def square(n: int) -> int:
            """Square."""
            runs("square", n)
            return n * n

        @tool
        def now() -> int:
            """Now."""
            return runs("now")

        @tool
        def put(key: str) -> str:
            """Put."""
            runs("put", key)
            return "done"

        @tool
        def fail(key: str) -> str:
            """Fail."""
            runs("fail", key)
            raise ToolException("no")

        @tool
        def unknown() -> str:
            """Undeclared."""
            return "?"

        fail.handle_tool_error = True
        effects = {
            "get": Read("k:{key}", ttl="10m", scope="user"),
            "square": Pure(scope="shared"),
            "now": Live(),
            "put": Write("k:{key}"),
            "fail": Read(),
            "agent": Nested(),
        }
        self.guard = Guard(effects=effects, user=lambda config, context: config["configurable"]["user_id"], **options)
        self.tools = [get, square, now, put, fail, unknown]
        self.graph = ibidem.wrap(node_graph(ToolNode(self.tools)), self.guard)

    def turn(self, way, *calls, name="t"):
        return turn(way, self.graph, *calls, config=thread(name, user_id=name))


@BOTH
def test_stats_say_where_results_came_from(way):
    shop = Shop()
    assert shop.guard.stats().calls == 0
    shop.turn(way, call("get", {"key": "a"}, "1"), call("square", {"n": 2}, "2"), call("now", {}, "3"))
    shop.turn(way, call("get", {"key": "a"}, "1"), call("square", {"n": 2}, "2"), call("now", {}, "3"))
    shop.turn(way, call("fail", {"key": "a"}, "1"))
    stats = shop.guard.stats()
    got = {name: (each.calls, each.ran, each.memo, each.shared, each.failed) for name, each in stats.tools.items()}
    assert got == {"get": (2, 1, 1, 0, 0), "square": (2, 1, 1, 0, 0), "now": (2, 2, 0, 0, 0), "fail": (1, 1, 0, 0, 1)}
    assert (stats.calls, stats.ran, stats.memo, stats.saved) == (7, 5, 2, 2)
    assert stats.saved_seconds > 0
    assert stats.total.seconds >= stats.saved_seconds
    before = str(stats)
    shop.turn(way, call("get", {"key": "a"}, "1"))
    assert str(stats) == before, "a snapshot stays as it was"
    text = str(shop.guard.stats())
    assert all(word in text for word in ("tool", "memo", "get", "square", "total"))
    assert repr(stats) == str(stats)
    assert "<table" in stats._repr_html_() and "square" in stats._repr_html_()


def test_stats_count_why_results_were_not_remembered():
    guard = Guard(effects={"get": Read(scope="user")})

    @tool
    def get(key: str) -> str:
        """Get."""
        return key

    wrapped = ibidem.wrap(get, guard)
    for _ in range(3):
        wrapped.invoke({"key": "a"})
    ((reason, count),) = guard.stats().uncacheable.items()
    assert count == 3 and "Guard(user=...)" in reason
    assert reason in str(guard.stats())


def test_explain_says_what_was_declared_and_where():
    shop = Shop()
    rows = {row.tool: row for row in shop.guard.explain(shop.graph)}
    assert rows.keys() == {"get", "square", "now", "put", "fail", "unknown"}
    assert (rows["get"].effect, rows["get"].declared) == ("Read('k:{key}', ttl=600.0, scope='user')", "effects")
    assert (rows["get"].ttl, rows["get"].scope) == ("600 s", "user")
    assert rows["square"].ttl == "none" and rows["square"].scope == "shared"
    assert rows["put"].identity == rows["now"].scope == ""
    assert (rows["unknown"].effect, rows["unknown"].declared) == ("Undeclared()", "nothing")
    explained = shop.guard.explain()
    assert len(explained) == 6
    assert explained[0].tool == "fail"
    assert all(word in repr(explained) for word in ("tool", "effect", "declared", "Write('k:{key}')"))
    assert "&#x27;k:{key}&#x27;" in explained._repr_html_()


@pytest.mark.parametrize(
    "make",
    [lambda t: t, lambda t: [t], lambda t: {"x": t}, lambda t: ToolNode([t]), lambda t: node_graph(ToolNode([t]))],
    ids=["tool", "list", "dict", "node", "graph"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_explain_takes_whatever_can_be_wrapped(make, wrapped):
    @tool
    def get(key: str) -> str:
        """Get."""
        return key

    guard = Guard(reads=["get"])
    target = ibidem.wrap(make(get), guard) if wrapped else make(get)
    (row,) = guard.explain(target)
    assert (row.tool, row.declared) == ("get", "reads=['get']")


def test_explain_says_why_a_declared_tool_is_not_remembered():
    from typing import Annotated

    from langgraph.prebuilt import InjectedState

    @tool
    def get(key: str, state: Annotated[dict, InjectedState]) -> str:
        """Get."""
        return key

    (row,) = Guard(reads=["get"]).explain(get)
    assert "state" in row.note and "identity=" in row.note


@BOTH
def test_entries_say_what_is_remembered(way):
    shop = Shop()
    assert len(shop.guard.entries()) == 0
    assert "nothing yet" in repr(shop.guard.entries())
    shop.turn(way, call("get", {"key": "<a>"}, "1"))
    shop.turn(way, call("square", {"n": 3}, "2"), name="u")
    entries = {row.tool: row for row in shop.guard.entries()}
    assert entries.keys() == {"get", "square"}
    got = entries["get"]
    assert (got.arguments, got.conversation, got.scope, got.ttl) == ('{"key":"<a>"}', "t", "user", 600.0)
    assert got.value == "<a> 1" and got.age >= 0 and got.size > 0
    assert (entries["square"].conversation, entries["square"].scope, entries["square"].ttl) == ("u", "shared", None)
    assert "&lt;a&gt; 1" in shop.guard.entries()._repr_html_()
    assert "<a> 1" not in shop.guard.entries()._repr_html_()


@BOTH
def test_forget(way):
    shop = Shop()

    def fill():
        for name in ("t", "u"):
            shop.turn(way, call("get", {"key": "a"}, "1"), name=name)
        shop.turn(way, call("square", {"n": 3}, "2"), name="t")
        assert len(shop.guard.entries()) == 3

    fill()
    assert shop.guard.forget(conversation="t") == 2
    assert [row.conversation for row in shop.guard.entries()] == ["u"]
    fill()
    assert shop.guard.forget(tool="get") == 2
    assert [row.tool for row in shop.guard.entries()] == ["square"]
    fill()
    assert shop.guard.forget(tool="get", conversation="u") == 1
    assert shop.guard.forget(tool="missing") == 0
    assert shop.guard.forget() == 2
    assert len(shop.guard.entries()) == 0
    before = len(shop.runs)
    shop.turn(way, call("get", {"key": "a"}, "1"))
    assert len(shop.runs) == before + 1


def test_forgetting_a_user_takes_what_is_kept_for_that_user_alone_r37():
    guard = Guard()
    mine = ibidem.wrap(Read(scope="user", identity="mine")(lambda: 1), guard)
    ours = ibidem.wrap(Read(scope="shared", identity="ours")(lambda: 2), guard)
    for user in ("ann", "bob", 42):
        with guard.conversation("t", user=user):
            mine(), ours()
    assert len(guard.entries()) == 4
    assert guard.forget(user="ann") == 1
    assert guard.forget(user="ann") == 0
    assert guard.forget(user=42, conversation="u") == 0
    assert guard.forget(user=42, conversation="t", tool="<lambda>") == 1
    assert sorted(row.scope for row in guard.entries()) == ["shared", "user"]
    with pytest.raises(ValueError, match="does not name a user"):
        guard.forget(user="")


@BOTH
@pytest.mark.parametrize(
    ("resource", "forgets"),
    [("k:a", "a"), ("k:b", "b"), ("k:*", "ab"), ("*", "ab"), ("other", ""), (("k", "a"), "a"), ("k", "")],
    ids=str,
)
def test_touch_tells_of_a_change_from_outside(way, resource, forgets):
    shop = Shop()
    for key in "ab":
        shop.turn(way, call("get", {"key": key}, "1"))
    shop.guard.touch(resource)
    for key in "ab":
        (message,) = shop.turn(way, call("get", {"key": key}, "1"))
        assert came(message) == ("ran" if key in forgets else "memo")


@BOTH
def test_events_tell_what_happens(way):
    events: list[Event] = []
    shop = Shop(on_event=events.append)
    shop.turn(way, call("get", {"key": "a"}, "1"))
    shop.turn(way, call("get", {"key": "a"}, "2"))
    shop.turn(way, call("fail", {"key": "a"}, "3"))
    shop.turn(way, call("put", {"key": "a"}, "4"))
    assert [(e.kind, e.tool, e.conversation) for e in events] == [
        ("ran", "get", "t"),
        ("memo", "get", "t"),
        ("failed", "fail", "t"),
        ("ran", "put", "t"),
    ]
    assert events[1].age >= 0
    assert events[0].elapsed > 0


@BOTH
def test_an_observer_that_raises_changes_nothing(way, caplog):
    def observe(event):
        raise RuntimeError("observer")

    shop = Shop(on_event=observe)
    with caplog.at_level(logging.ERROR, "ibidem"):
        for _ in range(2):
            assert contents(shop.turn(way, call("get", {"key": "a"}, "1"))) == ["a 1"]
    assert sum("on_event failed" in record.message for record in caplog.records) == 2
    assert shop.guard.stats().memo == 1


def test_what_was_not_kept_is_told_and_logged(caplog):
    events = []
    guard = Guard(reads=["get"], on_event=events.append)

    @tool
    def get(key: str) -> object:
        """Get."""
        return threading.Lock()

    with caplog.at_level(logging.DEBUG, "ibidem"):
        ibidem.wrap(get, guard).invoke({"key": "a"})
    assert {e.kind for e in events} == {"ran", "not remembered"}
    assert "get" in caplog.text


def test_guard_of():
    @tool
    def get(key: str) -> str:
        """Get."""
        return key

    def function(key):
        return key

    guard = Guard(reads=["get", "function"])
    for target in (get, function, ToolNode([get]), node_graph(ToolNode([get]))):
        assert ibidem.guard_of(target) is None
        assert ibidem.guard_of(ibidem.wrap(target, guard)) is guard
        assert ibidem.guard_of(ibidem.wrap(target, guard.bind(user="ann"))) is guard
    assert ibidem.guard_of(5) is None
    assert ibidem.guard_of(None) is None


def test_repr_of_a_guard_prints_what_runs():
    async def layer(call, inner):
        return await inner(call)

    guard = Guard(outside=[layer], inside=[layer])
    assert repr(guard).startswith("<Guard <function") and "Memo(" in repr(guard) and "Execute()" in repr(guard)
    assert "'ann'" in repr(guard.bind(user="ann"))


def test_a_replaced_guard_shares_the_store():
    runs = Counter()

    @tool
    def get(key: str) -> int:
        """Get."""
        return runs(key)

    @tool
    def put(key: str) -> str:
        """Put."""
        return key

    first = Guard(effects={"get": Read("k:{key}"), "put": Write("k:{key}")})
    second = first.replace(on_event=lambda event: None)
    assert second is not first and second.store is first.store
    reads = [ibidem.wrap(get, guard) for guard in (first, second)]
    assert [each.invoke({"key": "a"}) for each in reads] == [1, 1]
    ibidem.wrap(put, second).invoke({"key": "a"})
    assert [each.invoke({"key": "a"}) for each in reads] == [2, 2]


@BOTH
def test_layers_outside_see_every_call_and_those_inside_what_runs(way):
    seen = {"outside": [], "inside": []}

    def layer(where):
        async def step(call, inner):
            seen[where].append(dict(call.arguments))
            return await inner(call)

        return step

    @tool
    def get(key: str) -> str:
        """Get."""
        return key

    graph = ibidem.wrap(
        node_graph(ToolNode([get])), Guard(reads=["get"], outside=[layer("outside")], inside=[layer("inside")])
    )
    for _ in range(3):
        turn(way, graph, call("get", {"key": "a"}), config=thread("t"))
    assert seen == {"outside": [{"key": "a"}] * 3, "inside": [{"key": "a"}]}


@BOTH
def test_a_full_store_says_so(way):
    guard = Guard(reads=["get"], store=Memory(max_entries=1))

    @tool
    def get(key: str) -> str:
        """Get."""
        return key

    wrapped = ibidem.wrap(get, guard)
    for key in "abc":
        assert ask(way, wrapped, {"key": key}) == key
    assert len(guard.entries()) <= 1


def test_entries_lists_only_what_would_be_served():
    guard = Guard(effects={"get": Read("k:{key}", identity="g"), "put": Write("k:{key}")})
    get, put, other = (ibidem.wrap(f, guard) for f in (_named("get"), _named("put"), _named("other")))
    get("a"), get("b")
    assert len(guard.entries()) == 2
    put("a")
    assert [entry.arguments for entry in guard.entries()] == ['{"key":"b"}']
    other("c")
    assert len(guard.entries()) == 0


def _named(name):
    def function(key):
        return key

    function.__name__ = name
    return function
