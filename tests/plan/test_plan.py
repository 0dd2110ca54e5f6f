"""Plans by hand: references, order, failures, conditions, maps, optional steps, mistakes; sync and async alike."""

import asyncio
import threading
from collections.abc import Mapping

import pytest

import ibidem
from ibidem import Fault, Guard, Plan, PlanError, Pure, Read, Retry, Write, text
from ibidem.plan import StepSkipped, UpstreamFailed
from ibidem.testing import run_shuffled

BOTH = pytest.mark.parametrize("way", ["sync", "async"])


def run(way, plan, guard=None, **options):
    if way == "sync":
        return plan.run(guard, **options)
    return asyncio.run(plan.arun(guard, **options))


class Calls:
    """Tools that write down their calls."""

    def __init__(self):
        self.made = []
        self.lock = threading.Lock()

    def note(self, *what):
        with self.lock:
            self.made.append(what)

    def tool(self, name, answer=lambda **given: given, effect=None):
        def tool(**given):
            self.note(name, given)
            return answer(**given)

        tool.__name__ = name
        return effect(tool) if effect is not None else tool


def geocode(city):
    return {"name": city, "lat": 48.9, "spots": [{"id": 1}, {"id": 2}]}


def weather(lat, day=None):
    return f"{lat} {day}"


def fail(message="no", **_):
    raise OSError(message)


def echo(x=None):
    return x


@BOTH
def test_results_reach_the_steps_that_refer_to_them(way):
    plan = Plan()
    place = plan.call(geocode, city="Paris")
    sky = plan.call(weather, lat=place["lat"], day={"ids": [place["spots"][1]["id"]], "whole": place["spots"]})
    result = run(way, plan)
    assert result[sky] == "48.9 {'ids': [2], 'whole': [{'id': 1}, {'id': 2}]}"
    assert result[place["spots"][0]] == {"id": 1}
    assert result["geocode"]["name"] == "Paris"


@BOTH
def test_every_keyword_belongs_to_the_tool(way):
    def odd(self, tool, after, when, map, optional):  # noqa: A002
        return [self, tool, after, when, map, optional]

    plan = Plan()
    step = plan.call(odd, self=1, tool=2, after=3, when=4, map=5, optional=6)
    assert run(way, plan)[step] == [1, 2, 3, 4, 5, 6]


@BOTH
def test_text_is_made_of_results(way):
    plan = Plan()
    place = plan.call(geocode, city="Paris")
    said = plan.call(echo, x=text("{} {{today}} {}", place["name"], place["spots"]))
    assert run(way, plan)[said] == 'Paris {today} [{"id": 1}, {"id": 2}]'


USES = [str, "{}".format, bool, list, lambda ref: 1 in ref, lambda ref: f"{ref}"]
USES += [
    lambda ref: ref == 48.9,
    lambda ref: 48.9 != ref,
    lambda ref: ref > 1,
    lambda ref: 1 >= ref,
    lambda ref: ref in [1],
]


@pytest.mark.parametrize("use", USES)
def test_a_reference_is_no_value_and_says_what_to_write(use):
    place = Plan().call(geocode, city="Paris")
    with pytest.raises(TypeError, match="write ibidem.text|step.when|step.map"):
        use(place["lat"])


def test_references_are_told_apart_as_objects():
    place = Plan().call(geocode, city="Paris")
    one, other = place["lat"], place["lat"]
    assert one == one  # noqa: PLR0124
    assert one != other
    assert {one: 1, other: 2}[one] == 1


def test_where_no_tools_were_given_it_is_said_how_to_give_them():
    with pytest.raises(PlanError, match=r"there is no tool 'x': give the plan its tools, plan.run\(tools="):
        Plan.from_json({"steps": [{"id": "a", "tool": "x"}]}).run()


@pytest.mark.parametrize("key", ["__class__", "__dict__", 1.5, None, True])
def test_a_reference_goes_by_keys_and_positions_only(key):
    place = Plan().call(geocode, city="Paris")
    with pytest.raises(TypeError):
        place[key]
    with pytest.raises(AttributeError):
        place.lat


@BOTH
def test_a_reference_reaches_no_attribute(way):
    class Place:
        lat = 1

    plan = Plan()
    place = plan.call(lambda: Place())
    sky = plan.call(weather, lat=place["lat"])
    fault = run(way, plan).outcome(sky).fault
    assert (fault.kind, fault.message) == (
        "invalid_arguments",
        "$step__lambda_.lat: 'lat' of a Place, which is neither a dict nor a list",
    )


@BOTH
def test_a_reference_goes_into_text_that_is_json(way):
    plan = Plan()
    place = plan.call(lambda: '{"lat": 48.9, "ids": [1, 2]}')
    sky = plan.call(weather, lat=place["lat"], day=place["ids"][1])
    assert run(way, plan)[sky] == "48.9 2"


@BOTH
def test_each_that_refers_to_a_result_has_a_copy_of_its_own(way):
    def spoil(x):
        x.append("spoilt")
        return x

    plan = Plan()
    found = plan.call(lambda: [1])
    first, second = plan.call(spoil, x=found), plan.call(spoil, x=found)
    result = run(way, plan)
    assert result[first] == result[second] == [1, "spoilt"]
    assert result[found] == [1]


@BOTH
def test_a_failure_skips_who_needs_it_names_the_root_and_costs_nobody_else(way):
    plan = Plan()
    bad = plan.call(fail, message="disk")
    needs = plan.call(echo, x=bad)
    further = plan.call(echo, x=needs)
    waits = plan.call(echo, x=1).after(further)
    apart = plan.call(echo, x=2)
    result = run(way, plan)
    assert result[apart] == 2
    for step in (needs, further, waits):
        fault = result.outcome(step).fault
        assert isinstance(fault, Fault)
        assert fault.kind == "upstream_failed"
        assert "step 'fail'" in fault.message
        assert isinstance(fault.exception.__cause__, OSError)
        with pytest.raises(UpstreamFailed):
            result[step]
    with pytest.raises(OSError, match="disk"):
        result[bad]
    assert [each.id for each in result.failed] == ["fail", "echo", "echo_2", "echo_3"]


@BOTH
def test_who_needs_an_optional_step_runs_without_it(way):
    plan = Plan()
    bad = plan.call(fail).optional()
    goes_on = plan.call(echo, x=[bad, 1])
    result = run(way, plan)
    assert result[goes_on] == [None, 1]
    assert result[bad] is None
    assert result.outcome(bad).fault.kind == "tool_error"


@BOTH
def test_who_needs_a_step_with_a_fallback_is_given_that(way):
    def down():
        raise ConnectionError("down")

    plan = Plan()
    step = plan.call(down)
    goes_on = plan.call(echo, x=step["lat"])
    result = run(way, plan, Guard(effects={"down": Read(fallback={"lat": 0})}))
    assert (result[goes_on], result.failed) == (0, [])


@BOTH
def test_the_first_failure_stops_a_plan_that_is_to_stop(way):
    calls = Calls()
    plan = Plan()
    bad = plan.call(fail)
    late = plan.call(calls.tool("late")).after(plan.call(echo, x=1), plan.call(echo, x=2))
    result = run(way, plan, on_fault="stop", max_concurrency=1)
    assert result.outcome(bad).fault.kind == "tool_error"
    assert result.outcome(late).fault.kind == "cancelled"
    assert calls.made == []


@BOTH
@pytest.mark.parametrize(
    ("op", "value", "runs"),
    [
        ("eq", 48.9, True),
        ("eq", 48, False),
        ("ne", 48, True),
        ("lt", 49, True),
        ("gt", 49, False),
        ("in", [1, 48.9], True),
        ("in", [], False),
        ("exists", True, True),
        ("exists", False, False),
    ],
)
def test_a_step_runs_only_if_its_condition_holds(way, op, value, runs):
    calls = Calls()
    plan = Plan()
    place = plan.call(geocode, city="Paris")
    step = plan.call(calls.tool("then"), x=1).when(place["lat"], op, value)
    needs = plan.call(echo, x=step)
    after = plan.call(echo, x=3).after(step)
    result = run(way, plan)
    assert len(calls.made) == runs
    assert result[after] == 3
    assert [each.id for each in result.skipped] == ([] if runs else ["then", "echo"])
    if not runs:
        with pytest.raises(StepSkipped, match="condition did not hold, because that of step 'then'"):
            result[needs]


@BOTH
def test_true_is_not_one(way):
    plan = Plan()
    one = plan.call(echo, x=1)
    step = plan.call(echo, x=2).when(one, "eq", True)
    assert run(way, plan).skipped[0].id == step.id


@BOTH
def test_what_does_not_exist_can_be_asked_for_and_not_be_compared(way):
    plan = Plan()
    place = plan.call(geocode, city="Paris")
    absent = plan.call(echo, x=1).when(place["zip"], "exists", False)
    wrong = plan.call(echo, x=1).when(place["zip"], "eq", 1)
    uneven = plan.call(echo, x=1).when(place["name"], "lt", 1)
    result = run(way, plan)
    assert result[absent] == 1
    assert "there is no 'zip'; there are: 'name', 'lat', 'spots'" in result.outcome(wrong).fault.message
    assert "cannot be compared" in result.outcome(uneven).fault.message


@BOTH
def test_a_mapped_step_runs_once_for_each_element_and_answers_in_their_order(way):
    plan = Plan()
    place = plan.call(geocode, city="Paris")
    spots = plan.call(weather, lat=plan.item["id"], day=place["name"]).map(over=place["spots"])
    last = plan.call(echo, x=spots[-1])
    result = run(way, plan)
    assert result[spots] == ["1 Paris", "2 Paris"]
    assert result[last] == "2 Paris"


@BOTH
def test_a_mapped_step_fails_with_its_first_element_and_an_optional_one_leaves_a_gap(way):
    def odd(x):
        if x % 2 == 0:
            raise OSError(x)
        return x

    for optional in (False, True):
        plan = Plan()
        numbers = plan.call(lambda: [1, 2, 3])
        step = plan.call(odd, x=plan.item).map(over=numbers)
        needs = plan.call(echo, x=step)
        result = run(way, plan) if not optional else (step.optional(), run(way, plan))[1]
        if optional:
            assert result[needs] == [1, None, 3]
        else:
            assert result.outcome(needs).fault.kind == "upstream_failed"


@BOTH
@pytest.mark.parametrize("over", ["abc", 3, None, {"a": 1}])
def test_map_goes_over_a_list_only(way, over):
    plan = Plan()
    step = plan.call(echo, x=plan.item).map(over=plan.call(lambda: {"over": over})["over"])
    assert run(way, plan).outcome(step).fault.kind == "invalid_arguments"


@BOTH
def test_a_map_over_nothing_is_an_empty_list(way):
    plan = Plan()
    step = plan.call(fail, message=plan.item).map(over=plan.call(lambda: []))
    assert run(way, plan)[step] == []


@BOTH
def test_an_empty_plan_runs(way):
    assert len(run(way, Plan())) == 0


def test_all_mistakes_are_told_at_once_before_anything_runs():
    calls = Calls()
    plan, other = Plan(), Plan()
    first = plan.call(calls.tool("first"))
    plan.call(geocode, town="Paris")
    plan.call(geocode, city=other.call(echo)["x"])
    plan.call(echo, x=plan.item)
    plan.call(echo, x=first).after(first)
    with pytest.raises(PlanError) as problem:
        plan.run()
    assert [(each.step, each.message.partition(";")[0]) for each in problem.value.mistakes] == [
        ("geocode", "geocode has no argument 'town'"),
        ("geocode", "geocode needs 'city'"),
        ("geocode_2", "$echo.x belongs to another plan"),
        ("echo", "$item stands for an element, and the step is run once: give it map"),
    ]
    assert calls.made == []


def test_a_circle_is_told_by_its_path():
    plan = Plan()
    first = plan.call(echo, x=1)
    second = plan.call(echo, x=first)
    third = plan.call(echo, x=second)
    first.after(third)
    with pytest.raises(PlanError, match="echo.*->.*echo.* -> ") as problem:
        plan.check()
    assert {"echo ", "echo_2", "echo_3"} <= {
        name for name in ("echo ", "echo_2", "echo_3") if name in str(problem.value)
    }


def test_a_synchronous_run_refuses_what_can_only_be_awaited():
    async def later():
        return 1

    plan = Plan()
    step = plan.call(later)
    with pytest.raises(PlanError, match="await plan.arun"):
        plan.run()
    assert asyncio.run(plan.arun())[step] == 1


def test_batches_are_topological_and_the_guard_adds_hazards():
    def plan_of(guard):
        plan = Plan()
        read = plan.call(read_order, key="1")
        plan.call(write_order, key="1")
        plan.call(read_order, key="1")
        plan.call(read_order, key="2")
        plan.call(echo, x=read)
        return plan.batches(guard)

    def read_order(key): ...

    def write_order(key): ...

    guard = Guard(effects={"read_order": Read("order:{key}"), "write_order": Write("order:{key}")})
    assert plan_of(guard) == [["read_order", "read_order_3"], ["write_order", "echo"], ["read_order_2"]]
    assert plan_of(Guard(live=["*"])) == [["read_order", "write_order", "read_order_2", "read_order_3"], ["echo"]]


@BOTH
@pytest.mark.parametrize("schedule", ["eager", "batches"])
def test_hazards_keep_their_order_where_a_reference_hides_what_is_touched(way, schedule):
    world = {"1": "packed"}

    def find():
        return {"id": "1"}

    def cancel(key):
        world[key] = "cancelled"
        return key

    def look(key):
        return world[key]

    plan = Plan()
    found = plan.call(find)
    before = plan.call(look, key="1")
    plan.call(cancel, key=found["id"])
    after = plan.call(look, key="1")
    guard = Guard(effects={"find": Pure(), "look": Read("order:{key}"), "cancel": Write("order:{key}")})
    result = run(way, plan, guard, schedule=schedule)
    assert (result[before], result[after]) == ("packed", "cancelled")


def test_a_map_over_a_write_runs_its_elements_one_by_one():
    at_once, most = [0], [0]

    async def write(key):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        await asyncio.sleep(1)
        at_once[0] -= 1

    plan = Plan()
    plan.call(write, key=plan.item).map(over=plan.call(lambda: [1, 2, 3]))
    asyncio_guard = Guard(effects={"write": Write("x")})
    run_shuffled(plan.arun(asyncio_guard), 1, threads=True)
    assert most[0] == 1


@BOTH
def test_steps_go_through_the_guard_with_its_memo_and_retries(way):
    calls = Calls()
    state = {"failures": 1}

    def flaky(x):
        calls.note("flaky", x)
        if state["failures"]:
            state["failures"] -= 1
            raise ConnectionError("once")
        return x

    guard = Guard(effects={"flaky": Read()}, retry=Retry(first_delay="1ms"))

    def plan():
        plan = Plan()
        first = plan.call(flaky, x=1)
        return plan, plan.call(flaky, x=1).after(first)

    written, again = plan()
    result = run(way, written, guard)
    assert result.outcome("flaky").attempts == 2
    assert result.outcome(again).how == "memo"
    written, again = plan()
    assert [each.outcome.how for each in run(way, written, guard).steps.values()] == ["memo", "memo"]
    assert len(calls.made) == 2


def test_identical_reads_of_a_plan_are_one_run():
    calls = Calls()

    async def read(x):
        calls.note(x)
        await asyncio.sleep(1)

    plan = Plan()
    for _ in range(10):
        plan.call(read, x=1)
    run_shuffled(plan.arun(Guard(reads=["read"])), 1)
    assert len(calls.made) == 1


def test_eager_starts_a_step_when_its_own_inputs_are_there_and_batches_wait():
    async def wait(seconds, x=None):
        await asyncio.sleep(seconds)

    def plan():
        plan = Plan()
        quick = plan.call(wait, seconds=1)
        plan.call(wait, seconds=10)
        plan.call(wait, seconds=10, x=quick)
        return plan

    async def seconds(**options):
        loop = asyncio.get_running_loop()
        began = loop.time()
        await plan().arun(**options)
        return loop.time() - began

    assert run_shuffled(seconds(), 1) == 11
    assert run_shuffled(seconds(schedule="batches"), 1) == 20


def test_with_few_slots_the_longest_remaining_path_goes_first():
    order = []

    async def wait(name, x=None):
        order.append(name)
        await asyncio.sleep(1)

    plan = Plan()
    plan.call(wait, name="short")
    long = plan.call(wait, name="long")
    plan.call(wait, name="longer", x=plan.call(wait, name="on", x=long))
    run_shuffled(plan.arun(max_concurrency=1), 1)
    assert order == ["long", "on", "short", "longer"] or order[:2] == ["long", "on"]


def test_no_more_calls_run_at_once_than_there_are_slots():
    at_once, most = [0], [0]

    async def wait(x):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        await asyncio.sleep(1)
        at_once[0] -= 1

    plan = Plan()
    for x in range(20):
        plan.call(wait, x=x)
    plan.call(wait, x=plan.item).map(over=plan.call(lambda: list(range(20))))
    run_shuffled(plan.arun(max_concurrency=3), 1, threads=True)
    assert most[0] == 3


def test_time_that_is_over_fails_what_has_not_ended_and_says_whether_it_may_have_run():
    async def hang(x=None):
        await asyncio.Event().wait()

    plan = Plan()
    read = plan.call(hang)
    write = plan.call(change := _renamed(hang, "change"))
    late = plan.call(echo, x=read)
    guard = Guard(effects={"hang": Pure(), "change": Write("x")})
    result = run_shuffled(_with_timer(plan, guard), 1, threads=True)
    assert change.__name__ == "change"
    kinds = [result.outcome(step).fault.kind for step in (read, write, late)]
    assert kinds == ["timeout", "maybe_executed", "timeout"]


async def _with_timer(plan, guard):
    return await plan.arun(guard, timeout=5)


def _renamed(function, name):
    async def renamed(x=None):
        return await function(x)

    renamed.__name__ = name
    return renamed


def test_a_synchronous_run_out_of_time_does_not_wait_for_a_hung_tool():
    release = threading.Event()
    plan = Plan()
    step = plan.call(lambda: release.wait(30))
    result = plan.run(Guard(live=["*"]), timeout=0.05)
    release.set()
    assert result.outcome(step).fault.kind == "timeout"


def test_cancelling_a_plan_cancels_its_steps():
    ended = []

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def main():
        plan = Plan()
        plan.call(hang)
        plan.call(hang)
        task = asyncio.create_task(plan.arun(Guard(live=["hang"])))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_shuffled(main(), 1)
    assert ended == [1, 1]


def test_one_call_passes_one_guard_and_another_is_a_mistake():
    tool = ibidem.wrap(echo, Guard())
    plan = Plan()
    plan.call(tool, x=1)
    assert plan.run()["echo"] == 1
    with pytest.raises(PlanError, match="passes another guard"):
        plan.run(Guard())


@BOTH
def test_a_guard_that_is_off_lets_plans_run(way, monkeypatch):
    monkeypatch.setenv("IBIDEM", "off")
    plan = Plan()
    step = plan.call(echo, x=plan.call(geocode, city="Paris")["lat"])
    assert run(way, plan, Guard())[step] == 48.9


@pytest.mark.parametrize(
    "options", [{"schedule": "lazy"}, {"on_fault": "ignore"}, {"max_concurrency": 0}, {"timeout": 0}, {"timeout": -1}]
)
def test_an_option_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match="unknown|makes no sense"):
        Plan().run(**options)


def test_a_mapped_write_that_was_stopped_midway_is_told_to_have_run_perhaps():
    written = []

    async def write(key):
        await asyncio.sleep(2)
        written.append(key)

    async def fail_soon():
        await asyncio.sleep(1)
        raise OSError("no")

    async def keys():
        return [1, 2, 3]

    plan = Plan()
    mapped = plan.call(write, key=plan.item).map(over=plan.call(keys))
    failed = plan.call(fail_soon)
    guard = Guard(effects={"write": Write("x"), "fail_soon": Pure(), "keys": Pure()})
    result = run_shuffled(plan.arun(guard, on_fault="stop"), 1)
    assert written == [1]
    assert result.outcome(failed).fault.kind == "tool_error"
    assert result.outcome(mapped).fault.kind == "maybe_executed"


class Row(Mapping):
    """A row of a database that is closed."""

    def __getitem__(self, key):
        raise RuntimeError("closed")

    __len__ = __iter__ = __getitem__


class Rows(list):
    def __iter__(self):
        raise RuntimeError("closed")

    __getitem__ = __iter__


@BOTH
@pytest.mark.parametrize("use", ["part", "element", "text", "condition", "map"])
def test_a_result_that_cannot_be_looked_at_fails_the_step_that_looks(way, use):
    """What else the plan has done is answered all the same."""
    plan = Plan()
    row, rows = plan.call(lambda: Row()), plan.call(lambda: Rows([1]))
    looks = plan.call(echo, x={"part": row["id"], "element": rows[0], "text": text("{}", rows)}.get(use))
    if use == "condition":
        looks.when(row["id"], "eq", 1)
    elif use == "map":
        looks.map(over=rows)
    other = plan.call(echo, x=1)
    result = run(way, plan)
    assert result[other] == 1
    assert result.outcome(looks).fault.kind == "invalid_arguments"


def test_asking_a_result_for_a_step_that_is_not_there_names_those_that_are():
    plan = Plan()
    plan.call(Calls().tool("geocode"))
    result = plan.run()
    for ask in (result.__getitem__, result.outcome):
        with pytest.raises(KeyError, match="no step 'place': its steps are geocode"):
            ask("place")
    assert "place" not in result and result.get("place") is None
