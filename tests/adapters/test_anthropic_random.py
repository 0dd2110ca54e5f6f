"""Random conversations: whatever runs at once, the model reads what it would have read one call after another."""

import random
import time

import pytest
from adapter_kit import wait
from anthropic_kit import ASK, SOAK, client, message

from ibidem import Guard, Read, Write
from ibidem.anthropic import aanswer, answer, runner, stream
from ibidem.testing import MessagesServer, Reply, text, use

SEEDS = range(400 if SOAK else 40)
KEYS = "ab"
REQUEST = {"model": "claude-test", "max_tokens": 100, "messages": ASK["messages"]}
EFFECTS = {
    "get": Read("key:{key}"),
    "list_keys": Read("key:*"),
    "put": Write("key:{key}"),
    "clear": Write("key:*"),
}  # "touch" is declared nowhere


class World:
    """Keys and values, and the tools that read and change them; each takes a moment of its own before and after."""

    def __init__(self, seed, *, hurry=False):
        self.values, self.draw, self.runs = dict.fromkeys(KEYS, "0"), random.Random(seed), []

        def moment():
            if not hurry:
                time.sleep(self.draw.choice([0, 0, 0.0005, 0.002]))

        def get(key: str) -> str:
            moment()
            return self.values[key]

        def list_keys() -> str:
            moment()
            return str(self.values)

        def put(key: str, value: int) -> str:
            moment()
            old, self.values[key] = self.values[key], str(value)
            self.runs.append(("put", key, value))
            moment()
            return f"was {old}"

        def clear() -> str:
            moment()
            self.values.update(dict.fromkeys(KEYS, "0"))
            self.runs.append(("clear",))
            return "cleared"

        def touch(key: str) -> str:
            moment()
            self.values[key] += "!"
            self.runs.append(("touch", key))
            moment()
            return self.values[key]

        self.tools = [get, list_keys, put, clear, touch]


def conversation(seed):
    """Messages of random calls."""
    draw = random.Random(seed)

    def one():
        name = draw.choice(["get", "get", "get", "list_keys", "put", "put", "clear", "touch"])
        arguments = {} if name in ("list_keys", "clear") else {"key": draw.choice(KEYS)}
        return use(name, {**arguments, "value": draw.randrange(9)} if name == "put" else arguments)

    return [[one() for _ in range(draw.randint(1, 6))] for _ in range(4)]


def one_after_another(seed):
    world = World(seed, hurry=True)
    tools = {tool.__name__: tool for tool in world.tools}
    return [[tools[call["name"]](**call["input"]) for call in calls] for calls in conversation(seed)], world.runs


def read(results):
    return [block["content"] for block in results["content"]]


def by_hand(seed, guard, world):
    return [read(answer(message(*calls), world.tools, guard)) for calls in conversation(seed)]


def by_hand_async(seed, guard, world):
    return [read(wait(aanswer(message(*calls), world.tools, guard))) for calls in conversation(seed)]


def by_runner(seed, guard, world):
    from anthropic import beta_tool

    with MessagesServer(*map(Reply, conversation(seed)), [text("done")]) as server, client(server) as ours:
        plain = ours.beta.messages.tool_runner(**REQUEST, tools=[beta_tool(tool) for tool in world.tools])
        runner(plain, guard).until_done()
        assert server.violations == []
        return [[block["content"] for block in request["messages"][-1]["content"]] for request in server.requests[1:]]


def by_stream(seed, guard, world):
    found = []
    with MessagesServer(*(Reply(calls, seed=seed) for calls in conversation(seed))) as server, client(server) as ours:
        for _ in conversation(seed):
            with stream(ours, guard, tools=world.tools, **REQUEST) as early:
                found.append(read(early.answer()))
    return found


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::ibidem.IbidemWarning")
@pytest.mark.parametrize("run", [by_hand, by_hand_async, by_runner, by_stream], ids=lambda run: run.__name__)
def test_the_model_reads_what_it_would_have_read_one_call_after_another(run):
    seeds = SEEDS if run in (by_hand, by_hand_async) else SEEDS[: len(SEEDS) // 4]
    for seed in seeds:
        world, guard = World(seed), Guard(EFFECTS)
        results, changes = one_after_another(seed)
        assert run(seed, guard.bind(conversation="c"), world) == results, seed
        assert sorted(map(str, world.runs)) == sorted(map(str, changes)), seed


def test_the_comparison_can_fail():
    """The negative control: with a read that claims to depend on nothing that is written, something stale is read."""
    wrong = {**EFFECTS, "get": Read("another")}
    found = []
    for seed in range(10):
        world = World(seed)
        found.append(by_hand(seed, Guard(wrong).bind(conversation="c"), world) == one_after_another(seed)[0])
    assert not all(found)
