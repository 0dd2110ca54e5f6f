"""Batch fan-out: N reads of a turn are one request, and each call gets exactly its own answer."""

import asyncio
import os
import random
import threading
import time

import pytest

from ibidem import Batch, Breaker, Guard, Pure, Read, Retry, Write, wrap
from ibidem.core.batches import BrokenBatch
from ibidem.core.parties import Table
from ibidem.core.pool import Pool
from ibidem.testing import run_shuffled

SCHEDULES = 2_000 if os.environ.get("IBIDEM_SOAK") else 100
BOTH = pytest.mark.parametrize("way", ["sync", "async"])


class Shop:
    """A batch function that notes what it was asked for, and the tool it stands for."""

    def __init__(self, answer=None):
        self.asked, self.single = [], []
        self.answer = answer or (lambda ids: [f"product {each}" for each in ids])

    def tools(self, way, effect=Read, **options):
        def fetch(ids):
            self.asked.append(list(ids))
            return self.answer(ids)

        async def afetch(ids):
            await asyncio.sleep(0)
            return fetch(ids)

        def get(product_id: int) -> str:
            self.single.append(product_id)
            return f"product {product_id}"

        async def aget(product_id: int) -> str:
            return get(product_id)

        max_size = options.pop("max_size", 100)
        function = fetch if way == "sync" else afetch
        function.__name__ = "fetch"
        given = Batch(function, arg="product_id", max_size=max_size)
        tool = get if way == "sync" else aget
        tool.__name__ = "get"
        return tool, effect(batch=given, identity="get", **options)


def gather(way, guard, tool, ids):
    calls = [(tool, {"product_id": each}) for each in ids]
    return guard.gather(calls) if way == "sync" else asyncio.run(guard.agather(calls))


@BOTH
@pytest.mark.parametrize("effect", [Read, Pure])
def test_twenty_lookups_are_one_request(way, effect):
    shop = Shop()
    tool, effect = shop.tools(way, effect)
    guard = Guard(effects={"get": effect})
    outcomes = gather(way, guard, tool, range(20))
    assert [each.value for each in outcomes] == [f"product {n}" for n in range(20)]
    assert sorted(map(sorted, shop.asked)) == [list(range(20))]
    assert sorted(each.how for each in outcomes) == ["batch"] * 19 + ["ran"]
    assert (guard.stats().ran, guard.stats().total.batch, guard.stats().saved) == (1, 19, 19)


def test_a_sibling_that_is_about_to_come_is_waited_for(monkeypatch):
    """Its thread has begun, so nobody need ask for it; on a busy machine it has its next turn much later."""
    shop = Shop()
    tool, effect = shop.tools("sync")
    guard = Guard(effects={"get": effect})
    board, late = Table.board, threading.Event()

    def slow(table, call, key, most):
        if call.arguments["product_id"] == 0 and not late.is_set():
            late.set()
            time.sleep(0.04)
        elif not late.wait(20):
            raise AssertionError("the other one never came")
        return board(table, call, key, most)

    monkeypatch.setattr(Table, "board", slow)
    assert [each.value for each in gather("sync", guard, tool, range(3))] == ["product 0", "product 1", "product 2"]
    assert sorted(map(sorted, shop.asked)) == [[0, 1, 2]]


@BOTH
def test_each_result_is_remembered_and_only_unique_misses_go(way):
    shop = Shop()
    tool, effect = shop.tools(way)
    guard = Guard(effects={"get": effect})
    gather(way, guard, tool, [1, 2, 3])
    outcomes = gather(way, guard, tool, [1, 4, 5, 4, 2])
    assert [each.value for each in outcomes] == [f"product {n}" for n in (1, 4, 5, 4, 2)]
    assert sorted(shop.asked[-1]) == [4, 5]
    assert len(shop.asked) == 2


@BOTH
def test_a_single_call_runs_its_tool(way):
    shop = Shop()
    tool, effect = shop.tools(way)
    outcomes = gather(way, Guard(effects={"get": effect}), tool, [1])
    assert (outcomes[0].how, shop.single, shop.asked) == ("ran", [1], [])


@BOTH
def test_no_request_is_larger_than_max_size(way):
    shop = Shop()
    tool, effect = shop.tools(way, max_size=7)
    outcomes = gather(way, Guard(effects={"get": effect}), tool, range(20))
    assert [each.value for each in outcomes] == [f"product {n}" for n in range(20)]
    assert max(map(len, shop.asked)) == 7
    assert sorted([each for asked in shop.asked for each in asked] + shop.single) == list(range(20))


@BOTH
def test_a_dict_is_read_by_key(way):
    shop = Shop(lambda ids: {each: f"product {each}" for each in reversed(ids)})
    tool, effect = shop.tools(way)
    outcomes = gather(way, Guard(effects={"get": effect}), tool, [3, 1, 2])
    assert [each.value for each in outcomes] == ["product 3", "product 1", "product 2"]


def test_without_arg_the_function_is_given_dicts():
    asked = []

    def fetch(calls):
        asked.append(calls)
        return [call["a"] + call["b"] for call in calls]

    def add(a: int, b: int) -> int:
        raise AssertionError

    guard = Guard(effects={"add": Pure(batch=fetch, identity="add")})
    assert [o.value for o in guard.gather([(add, {"a": n, "b": 1}) for n in range(3)])] == [1, 2, 3]
    assert sorted(map(str, asked[0])) == [f"{{'a': {n}, 'b': 1}}" for n in range(3)]


WRONG = {
    "too few": (lambda ids: ["x"] * (len(ids) - 1), "1 results for 2 calls"),
    "too many": (lambda ids: ["x"] * (len(ids) + 1), "3 results for 2 calls"),
    "none": (lambda ids: None, "a NoneType for 2 calls"),
    "a text": (lambda ids: "xy", "a str for 2 calls"),
}


@BOTH
@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_of_the_wrong_size_is_a_fault_that_names_the_contract(way, wrong):
    answer, said = WRONG[wrong]
    tool, effect = Shop(answer).tools(way)
    guard = Guard(effects={"get": effect}, retry=Retry(first_delay=0.001), breaker=Breaker(failures=1))
    outcomes = gather(way, guard, tool, [1, 2])
    for each in outcomes:
        assert isinstance(each.fault.exception, BrokenBatch)
        assert said in each.fault.message
        assert "it must answer a list in the order of the calls, or a dict by product_id" in each.fault.message
    assert len(guard.entries()) == 0
    assert guard.circuits()[0].state == "closed"


@BOTH
def test_a_dict_that_leaves_out_a_call_fails_that_call_alone(way):
    tool, effect = Shop(lambda ids: {each: "x" for each in ids if each != 2} | {"other": "y"}).tools(way)
    outcomes = gather(way, Guard(effects={"get": effect}), tool, [1, 2, 3])
    assert [each.value for each in outcomes] == ["x", None, "x"]
    assert "left out a call" in outcomes[1].fault.message


@BOTH
def test_a_dict_cannot_answer_calls_that_are_one_key_in_it(way):
    """`1`, `1.0` and `True` are different calls, and each is remembered by itself: one answer for all would be wrong."""
    tool, effect = Shop(lambda ids: {each: repr(each) for each in ids}).tools(way)
    guard = Guard(effects={"get": effect})
    outcomes = gather(way, guard, tool, [1, 1.0, True, "1", 2])
    assert [each.value for each in outcomes] == [None, None, None, "'1'", "2"]
    assert all("one key" in each.fault.message for each in outcomes[:3])
    assert len(guard.entries()) == 2
    as_list, effect = Shop(lambda ids: [repr(each) for each in ids]).tools(way)
    outcomes = gather(way, Guard(effects={"get": effect}), as_list, [1, 1.0, True])
    assert [each.value for each in outcomes] == ["1", "1.0", "True"], "a list can"


@BOTH
def test_an_item_that_was_cancelled_is_a_failure_of_that_call_alone(way):
    """As `asyncio.gather(return_exceptions=True)` in the function gives it: no caller was cancelled."""
    tool, effect = Shop(lambda ids: [asyncio.CancelledError() if each == 2 else "x" for each in ids]).tools(way)
    outcomes = gather(way, Guard(effects={"get": effect}), tool, [1, 2, 3])
    assert [each.value for each in outcomes] == ["x", None, "x"]
    assert outcomes[1].fault.kind == "cancelled"


@BOTH
def test_many_calls_are_looked_for_once_each(way, monkeypatch):
    """Each request looking at all siblings anew would take seconds for a few thousand."""
    seeks = []
    seek = Guard.seek
    monkeypatch.setattr(Guard, "seek", lambda *args, **kwargs: seeks.append(args) or seek(*args, **kwargs))
    shop = Shop()
    tool, effect = shop.tools(way, max_size=5)
    outcomes = gather(way, Guard(effects={"get": effect}), tool, range(300))
    assert [each.value for each in outcomes] == [f"product {n}" for n in range(300)]
    assert len(shop.asked) == 60
    assert len(seeks) <= 3 * 300


def test_who_goes_with_another_request_is_not_waited_for(monkeypatch):
    """The last request is not full, and nobody comes any more."""
    monkeypatch.setattr("ibidem.layers.batch.NEAR", 5.0)
    began = []

    async def fetch(ids):
        began.append(time.monotonic())
        await asyncio.sleep(0.1)
        return list(ids)

    async def get(product_id: int) -> int:
        return product_id

    guard = Guard(effects={"get": Read(batch=Batch(fetch, arg="product_id", max_size=4))})
    outcomes = gather("async", guard, get, range(10))
    assert [each.value for each in outcomes] == list(range(10))
    assert len(began) == 3
    assert began[-1] - began[0] < 0.1


class Down(Exception):
    status_code = 503


@BOTH
def test_only_failed_items_are_retried_as_a_new_batch(way):
    tries = []

    def answer(ids):
        tries.append(sorted(ids))
        return [Down() if each % 2 and len(tries) < 3 else f"product {each}" for each in ids]

    tool, effect = Shop(answer).tools(way)
    guard = Guard(effects={"get": effect}, retry=Retry(max_retries=2, first_delay=0.001, budget=1.0))
    outcomes = gather(way, guard, tool, range(6))
    assert [each.value for each in outcomes] == [f"product {n}" for n in range(6)]
    assert tries == [[0, 1, 2, 3, 4, 5], [1, 3, 5], [1, 3, 5]]
    assert guard.stats().total.retried == 2


@BOTH
def test_what_will_fail_again_is_not_retried_with_the_rest(way):
    tries = []

    def answer(ids):
        tries.append(sorted(ids))
        if len(tries) > 1:
            return ["fine"] * len(ids)
        return [{1: Down(), 2: ValueError("no such product")}.get(each, "fine") for each in ids]

    tool, effect = Shop(answer).tools(way)
    guard = Guard(effects={"get": effect}, retry=Retry(first_delay=0.001, budget=1.0))
    outcomes = gather(way, guard, tool, [0, 1, 2])
    assert tries == [[0, 1, 2], [1]]
    assert [each.value for each in outcomes] == ["fine", "fine", None]
    assert outcomes[2].fault.kind == "tool_error"
    assert "no such product" in outcomes[2].fault.message


@BOTH
def test_a_batch_is_one_request_to_the_breaker(way):
    def answer(ids):
        raise Down

    tool, effect = Shop(answer).tools(way)
    guard = Guard(effects={"get": effect}, breaker=Breaker(failures=2))
    outcomes = gather(way, guard, tool, range(10))
    assert {each.fault.kind for each in outcomes} == {"unavailable"}
    assert guard.circuits()[0].failures == 1


@BOTH
def test_a_timeout_ends_a_batch_for_all_of_its_calls(way):
    release = threading.Event()

    def answer(ids):
        release.wait(20)
        return ids

    tool, effect = Shop(answer).tools("sync")
    if way == "async":

        async def afetch(ids):
            await asyncio.sleep(20)

        async def get(product_id: int) -> str:
            return ""

        tool, effect = get, Read(batch=Batch(afetch, arg="product_id"), identity="get")
    outcomes = gather(way, Guard(effects={"get": effect}, timeout=0.1), tool, range(4))
    release.set()
    assert {each.fault.kind for each in outcomes} == {"timeout"}


@BOTH
def test_an_item_that_reports_an_error_is_a_failure_of_that_call(way):
    tool, effect = Shop(lambda ids: ["bad" if each == 1 else "good" for each in ids]).tools(
        way, is_error=lambda value: value == "bad"
    )
    guard = Guard(effects={"get": effect})
    outcomes = gather(way, guard, tool, range(3))
    assert [each.failed for each in outcomes] == [False, True, False]
    assert len(guard.entries()) == 2


@pytest.mark.parametrize("threads", [1, 2, 6])
def test_nobody_hangs_in_a_pool_of_few_threads(threads, monkeypatch):
    from ibidem import running
    from ibidem.core import runtime

    few = Pool(threads)
    for module in (running, runtime):
        monkeypatch.setattr(module, "POOL", few)
    shop = Shop()
    tool, effect = shop.tools("sync")
    outcomes = gather("sync", Guard(effects={"get": effect}), tool, range(20))
    assert [each.value for each in outcomes] == [f"product {n}" for n in range(20)]


def test_what_is_started_at_once_outside_a_turn_goes_out_together():
    shop = Shop()
    tool, effect = shop.tools("async")
    get = wrap(tool, Guard(effects={"get": effect}))

    async def main():
        return await asyncio.gather(*(get(n) for n in range(5)))

    assert asyncio.run(main()) == [f"product {n}" for n in range(5)]
    assert len(shop.asked) == 1


def test_two_conversations_are_never_in_one_request():
    shop = Shop()
    tool, effect = shop.tools("async")
    guard = Guard(effects={"get": effect})
    get = wrap(tool, guard)

    async def of(name):
        with guard.conversation(name):
            return await asyncio.gather(*(get(n) for n in range(3)))

    async def main():
        return await asyncio.gather(of("a"), of("b"))

    asyncio.run(main())
    assert sorted(map(sorted, shop.asked)) == [[0, 1, 2], [0, 1, 2]]


def test_a_batch_function_that_calls_the_tool_itself_does_not_wait_for_itself():
    guard = Guard()

    async def fetch(ids):
        return [await get(each) for each in ids]

    async def one(product_id):
        return f"product {product_id}"

    get = wrap(Read(batch=Batch(fetch, arg="product_id"), identity="get")(one), guard)

    async def main():
        return await asyncio.wait_for(asyncio.gather(*(get(n) for n in range(3))), 10)

    assert asyncio.run(main()) == [f"product {n}" for n in range(3)]


def test_an_asynchronous_function_serves_synchronous_callers_one_by_one():
    shop = Shop()
    tool, effect = shop.tools("async")
    sync, _ = shop.tools("sync")
    outcomes = gather("sync", Guard(effects={"get": effect}), sync, range(3))
    assert [each.value for each in outcomes] == [f"product {n}" for n in range(3)]
    assert shop.asked == []


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Read(batch=3), "is no function"),
        (lambda: Batch(len, arg=""), "names no argument"),
        (lambda: Batch(len, max_size=0), "makes no sense"),
    ],
)
def test_declarations_that_make_no_sense_are_refused(make, problem):
    with pytest.raises((TypeError, ValueError), match=problem):
        make()


@pytest.mark.soak
def test_under_any_schedule_each_call_gets_its_own_answer_and_none_is_stale():
    """Turns of lookups and writes, cancelled callers among them: a batch reads what its calls may be given."""
    for seed in range(SCHEDULES):
        rng = random.Random(seed)
        state = dict.fromkeys(range(4), 0)

        async def fetch(ids, state=state, rng=rng):
            seen = []
            for each in ids:
                await asyncio.sleep(rng.choice((0, 1)))
                seen.append((each, state[each]))
            return seen

        async def get(product_id):
            return (await fetch([product_id]))[0]

        async def put(product_id, state=state, rng=rng):
            await asyncio.sleep(rng.choice((0, 1)))
            state[product_id] += 1

        effects = {
            "get": Read("p:{product_id}", batch=Batch(fetch, arg="product_id", max_size=3), identity="get"),
            "put": Write("p:{product_id}"),
        }
        guard = Guard(effects=effects)

        async def turn(guard=guard, get=get, put=put, rng=rng, state=state):
            program = [(rng.choice((get, get, get, put)), {"product_id": rng.randrange(4)}) for _ in range(8)]
            expected, counts = [], dict(state)
            for tool, arguments in program:
                counts[arguments["product_id"]] += tool is put
                expected.append(None if tool is put else (arguments["product_id"], counts[arguments["product_id"]]))
            task = asyncio.ensure_future(guard.agather([(get, {"product_id": n}) for n in range(4)]))
            await asyncio.sleep(rng.choice((0, 1)))
            task.cancel()
            outcomes = await guard.agather(program)
            assert [each.value for each in outcomes] == expected, f"seed {seed}"
            await asyncio.gather(task, return_exceptions=True)

        async def main(turn=turn):
            for _ in range(3):
                await turn()

        run_shuffled(main(), seed)


def test_layers_around_execution_see_each_result_so_nothing_is_put_together():
    shop = Shop()
    tool, effect = shop.tools("sync")
    seen = []

    async def look(call, inner):
        outcome = await inner(call)
        seen.append(outcome.value)
        return outcome

    gather("sync", Guard(effects={"get": effect}, inside=[look]), tool, range(3))
    assert (sorted(seen), shop.asked) == (["product 0", "product 1", "product 2"], [])


def test_a_trial_puts_nothing_together():
    shop = Shop()
    tool, effect = shop.tools("sync")
    gather("sync", Guard(effects={"get": effect}, mode="shadow"), tool, range(3))
    assert (sorted(shop.single), shop.asked) == ([0, 1, 2], [])
