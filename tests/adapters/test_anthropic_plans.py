"""The plan tool of Anthropic loops: a model submits a plan, and reads what came of it in one message."""

import enum
import json
import time

import pytest
from adapter_kit import BOTH, Counter, wait
from anthropic import beta_async_tool, beta_tool
from anthropic_kit import ASK, client, message

from ibidem import Guard, Read, Write
from ibidem.anthropic import aanswer, answer, aplan_tool, plan_tool, runner, tools_for
from ibidem.testing import MessagesServer, text, use

STEPS = [
    {"id": "place", "tool": "geocode", "args": {"city": "Paris"}},
    {"id": "sky", "tool": "weather", "args": {"lat": "$place.lat"}},
]


class World:
    def __init__(self):
        self.log = Counter()

        def geocode(city: str) -> dict:
            """Find a place."""
            self.log("geocode", city)
            return {"lat": 48.9}

        def weather(lat: float) -> str:
            """Say what the weather is like."""
            self.log("weather", lat)
            return f"sunny at {lat}"

        def pay(account: str) -> str:
            """Pay."""
            self.log("pay", account)
            return "paid"

        self.tools = [geocode, weather, pay]
        self.guard = Guard({"geocode": Read(), "weather": Read(), "pay": Write("account:{account}")})


def submitted(way, world, told, **options):
    if way == "sync":
        tool = plan_tool(world.tools, world.guard, **options)
        return answer(message(use("plan", told)), [*world.tools, tool], world.guard)["content"][0]
    tool = aplan_tool(world.tools, world.guard, **options)
    return wait(aanswer(message(use("plan", told)), [*world.tools, tool], world.guard))["content"][0]


@BOTH
def test_a_plan_is_run_and_only_what_was_asked_for_is_told(way):
    world = World()
    block = submitted(way, world, {"steps": STEPS, "return": ["sky"]})
    assert json.loads(block["content"]) == {"sky": "sunny at 48.9"} and "is_error" not in block
    again = submitted(way, world, {"steps": STEPS})
    assert json.loads(again["content"])["place"] == {"lat": 48.9}
    assert len(world.log) == 2, "the steps are remembered"


@BOTH
def test_a_mistake_comes_back_as_one_message_that_says_how_to_mend_it(way):
    world = World()
    block = submitted(way, world, {"steps": [{"id": "sky", "tool": "wether", "args": {}}]})
    assert block["is_error"] is True
    assert "'wether'" in block["content"] and "weather" in block["content"]
    assert not block["content"].startswith("{"), "it is told in the words of the plan, not as a failure of a tool"
    assert len(world.log) == 0


@BOTH
def test_a_write_is_run_only_where_it_is_named(way):
    world = World()
    steps = {"steps": [{"id": "paid", "tool": "pay", "args": {"account": "a"}}]}
    assert submitted(way, world, steps)["is_error"] and len(world.log) == 0
    block = submitted(way, world, steps, writes=["pay"])
    assert json.loads(block["content"]) == {"paid": "paid"} and len(world.log) == 1


def test_the_runner_of_the_sdk_takes_it_too():
    world = World()
    tools = [*map(beta_tool, world.tools), plan_tool(map(beta_tool, world.tools), world.guard)]
    with MessagesServer([use("plan", {"steps": STEPS})], [text("done")]) as server, client(server) as ours:
        made = runner(ours.beta.messages.tool_runner(**ASK, tools=tools), world.guard)
        assert [item.stop_reason for item in made] == ["tool_use", "end_turn"]
        assert len(server.requests) == 2 and not server.violations
        assert "sunny at 48.9" in str(server.requests[1]["messages"][-1])
    assert len(world.log) == 2


def test_its_description_names_the_tools_that_steps_may_use():
    world = World()
    (told,) = tools_for([plan_tool(world.tools, world.guard)])
    assert "geocode, weather" in told["description"] and "pay" not in told["description"]
    assert told["input_schema"]["properties"].keys() == {"steps", "return"}


def test_a_tool_may_have_another_name_than_its_function():
    def look(city: str) -> str:
        """Look."""
        return city

    tool = plan_tool([beta_tool(look, name="search")], Guard(reads=["search"]))
    assert tool.call({"steps": [{"id": "a", "tool": "search", "args": {"city": "Paris"}}]}) == '{"a": "Paris"}'


class Kind(enum.Enum):
    A = "a"


@BOTH
@pytest.mark.parametrize("is_off", [False, True])
@pytest.mark.parametrize("form", ["function", "tool"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"number": "5"}, "5 Kind.A"),
        ({"number": 5, "kind": "a"}, "5 Kind.A"),
        ({"number": 5, "kind": "$first"}, "5 Kind.A"),
        ({"number": 5, "kind": "b"}, None),
        ({"number": "five"}, None),
        ({"number": "$first"}, None),
    ],
)
def test_a_step_is_given_what_its_tool_would_be_given_by_itself(way, is_off, form, given, told, monkeypatch):
    """The SDK validates what a model gives a tool, and changes it: a step must not get round that."""
    if is_off:
        monkeypatch.setenv("IBIDEM", "off")

    def look(number: int, kind: Kind = Kind.A) -> str:
        """Look."""
        assert type(number) is int
        return f"{number} {kind}"

    async def alook(number: int, kind: Kind = Kind.A) -> str:
        """Look."""
        return look(number, kind)

    def first() -> str:
        """Give the first kind."""
        return "a"

    body = look if way == "sync" else alook
    made = body if form == "function" else (beta_tool if way == "sync" else beta_async_tool)(body)
    steps = [{"id": "first", "tool": "first"}, {"id": "it", "tool": body.__name__, "args": given}]
    guard = Guard(effects={"look": Read("thing:{number}"), "alook": Read("thing:{number}"), "first": Read()})
    tool = (plan_tool if way == "sync" else aplan_tool)([first, made], guard)
    found = json.loads(tool.call({"steps": steps}) if way == "sync" else wait(tool.call({"steps": steps})))["it"]
    if told is None:
        assert found["error"]["kind"] == "invalid_arguments"
    else:
        assert found == told


def test_what_a_loop_cannot_await_and_what_is_missing_is_told_before_anything_runs():
    async def alook(number: int) -> str:
        """Look."""
        return str(number)

    tool = plan_tool([alook], Guard(reads=["alook"]))
    with pytest.raises(Exception, match="alook is asynchronous(.|\n)*alook needs 'number'"):
        tool.call({"steps": [{"id": "a", "tool": "alook"}]})


@BOTH
@pytest.mark.parametrize("is_plan_first", [False, True])
def test_a_plan_keeps_its_place_among_the_blocks_of_its_message(way, is_plan_first):
    """A read after a change that the model wrote before it sees the change, whichever of them is in a plan."""
    order = {"1": "open"}

    def look(order_id: str) -> str:
        """Look at an order."""
        status = order[order_id]
        time.sleep(0.02)
        return status

    def close(order_id: str) -> str:
        """Close an order."""
        time.sleep(0.02)
        order[order_id] = "closed"
        return "ok"

    guard = Guard({"look": Read("order:{order_id}"), "close": Write("order:{order_id}")})
    tool = (plan_tool if way == "sync" else aplan_tool)([look, close], guard, writes=["close"])
    looks, closes = ({"id": "a", "tool": name, "args": {"order_id": "1"}} for name in ("look", "close"))
    blocks = [use("close", {"order_id": "1"}, "t1"), use("plan", {"steps": [looks]}, "t2")]
    if is_plan_first:
        blocks = [use("plan", {"steps": [closes]}, "t1"), use("look", {"order_id": "1"}, "t2")]
    asked, tools = message(*blocks), [look, close, tool]
    reply = answer(asked, tools, guard) if way == "sync" else wait(aanswer(asked, tools, guard))
    assert "closed" in reply["content"][1]["content"]
