"""Plans as data: the form, its escapes, round trips, and what anybody may send."""

import importlib
import json
import os
import random
import sys
from pathlib import Path

import pytest

from ibidem import Plan, PlanError, text
from ibidem.plan.form import MAX_DEPTH, SCHEMA

SOAK = os.environ.get("IBIDEM_SOAK")
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
documents = importlib.import_module("_hostile")


def geocode(city):
    return {"name": city, "lat": 48.9, "a key": [{"0": "zero", "id": 7}]}


def echo(x=None, y=None):
    return [x, y]


TOOLS = [geocode, echo]


def step(name="s", tool="echo", **more):
    return {"id": name, "tool": tool, **more}


def answer(*steps, name="s"):
    return Plan.from_json({"steps": [step("place", "geocode", args={"city": "Paris"}), *steps]}, TOOLS).run()[name]


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("$place.lat", 48.9),
        ("$place", {"name": "Paris", "lat": 48.9, "a key": [{"0": "zero", "id": 7}]}),
        ('$place["a key"][0].id', 7),
        ('$place["a key"].0.id', 7),
        ('$place["a key"][-1].0', "zero"),
        ("$$5 off", "$5 off"),
        ("$$$5", "$$5"),
        ("a $place.lat", "a $place.lat"),
        ({"$text": ["$place.name", " for $", "$$1 ", "$place.lat"]}, "Paris for $$1 48.9"),
        ({"$$text": ["$place.lat"]}, {"$text": [48.9]}),
        ([{"deep": ["$place.lat"]}, None, True, 1.5], [{"deep": [48.9]}, None, True, 1.5]),
    ],
)
def test_references_are_typed_and_dollars_can_be_written(written, given):
    assert answer(step(args={"x": written})) == [given, None]


def test_the_options_of_a_step_are_fields():
    found = answer(
        step("s", args={"x": "$item.id"}, map='$place["a key"]', when={"ref": "$place.lat", "op": "gt", "value": 40}),
    )
    assert found == [[7, None]]
    plan = Plan.from_json({"steps": [step("b", after=["a"]), step("a", optional=True, when=[])]}, TOOLS)
    assert plan.batches() == [["a"], ["b"]]


def test_a_plan_by_hand_comes_back_from_json_equal():
    plan = Plan()
    place = plan.call(geocode, city="$Paris")
    said = plan.call(echo, x=text("{} is {}", place["name"], place["a key"][0]["0"]), y={"$k": [place["lat"], [1, 2]]})
    plan.call(echo, x=plan.item["id"]).map(over=place["a key"]).after(said).optional()
    plan.call(echo, x=1).when(place["lat"], "in", [1, 48.9]).when(place["zip"], "exists", False)
    document = json.loads(json.dumps(plan.to_json()))
    again = Plan.from_json(document, TOOLS)
    assert again.to_json() == document
    one, other = plan.run(), again.run()
    assert [one[name] for name in one] == [other[name] for name in other]
    assert one["echo"] == ["$Paris is zero", {"$k": [48.9, [1, 2]]}]


def test_what_json_has_not_is_refused_in_writing():
    plan = Plan()
    plan.call(echo, x={1, 2}, y=float("nan"))
    plan.call(echo, x=object())
    with pytest.raises(PlanError) as problem:
        plan.to_json()
    assert len(problem.value.mistakes) == 2


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([step("place", "geocod", args={"city": "x"})], "there is no tool 'geocod'; did you mean 'geocode'"),
        ([step(args={"x": "$plac.lat"}), step("place", "geocode", args={"city": 1})], "did you mean 'place'"),
        ([step(args={"x": "$s"})], "s -> s"),
        ([step(after=["later"])], "there is no step 'later'"),
        ([step(args={"z": 1})], "echo has no argument 'z'"),
        ([step("place", "geocode")], "geocode needs 'city'"),
        ([step(), step()], "two steps have this id"),
        ([step("item")], "is not 'item'"),
        ([step("__class__")], "begins with a letter"),
        ([step(args={"x": "$5"})], "text that begins with $ as $$"),
        ([step(args={"x": "$s.__class__"})], "never '__class__'"),
        ([step(args={"x": '$s["__class__"]'})], "never '__class__'"),
        ([step(args={"x": "$s.a()"}), step("a")], "s -> s"),
        ([step(args={"x": {"$ref": 1}})], "written with $$"),
        ([step(when={"ref": "$s", "op": "matches", "value": 1})], "op='matches' is unknown"),
        ([step(when={"ref": "1 < 2"})], "when is"),
        ([step(when={"ref": "1 < 2", "op": "eq"})], "is no reference"),
        ([step(map=[1, 2])], "a reference is text"),
        ([step(map="$item")], "'$item stands|there is only in the arguments"),
        ([step(args=[1])], "args is an object"),
        ([step(tool=3)], "tool is the name"),
        ([step(timeout=3)], "there is no 'timeout' in a step"),
        (["s"], "step 1 is no step"),
        ([step(str(n)) for n in range(1001)], "may have 1,000"),
    ],
)
def test_a_mistake_says_which_step_and_what_to_write(steps, said):
    with pytest.raises(PlanError) as problem:
        Plan.from_json({"steps": steps}, TOOLS).check()
    assert any(each in str(problem.value) for each in said.split("|"))


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{", "null", '{"steps": 1}', '{"steps": [], "x": 1}', '{"steps": [], "steps": []}', "[" * 100_000, b"\xff", 3,
     '{"steps": [{"id": "a", "tool": "echo", "args": {"x": NaN}}]}', '{"steps": [{"id": "a", "tool": "echo", "args": {"x": 1e400}}]}' * 2,
     '{"steps": [{"id": "a", "tool": "echo", "args": {"x": ' + "9" * 5000 + "}}]}", " " * 1_000_001],
)  # fmt: skip
def test_what_is_no_plan_is_a_plan_error(document):
    with pytest.raises(PlanError):
        Plan.from_json(document, TOOLS)


def test_arguments_nested_too_deeply_are_refused():
    deep = "$s"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(PlanError, match="nested more than"):
        Plan.from_json({"steps": [step(args={"x": deep})]}, TOOLS)


def test_the_schema_is_one():
    assert SCHEMA["properties"]["steps"]["items"]["required"] == ["id", "tool"]
    json.dumps(SCHEMA)


class Secret:
    """A result with attributes that no plan may reach."""

    password = "hunter2"

    def __getitem__(self, key):
        raise AssertionError("a plan has reached into what is no dict or list")


@pytest.mark.parametrize(
    "more",
    [
        {"args": {"x": [1] * 10_001}},
        {"after": ["place"] * 10_001},
        {"when": {"ref": "$place", "op": "in", "value": [1] * 10_001}},
    ],
)
def test_all_that_a_document_says_counts(more):
    with pytest.raises(PlanError, match="more than 10,000 values"):
        Plan.from_json({"steps": [step(**more)]})


@pytest.mark.soak
def test_hostile_documents_end_in_a_result_or_in_a_plan_error():
    reached = []

    def secret(x=None, y=None):
        return Secret()

    def seen(x=None, y=None):
        reached.append((x, y))
        return {"x": x, "y": y}

    seen.__name__ = "echo"
    ran = 0
    for seed in range(10_000 if SOAK else 600):
        rng = random.Random(seed)
        try:
            Plan.from_json(documents.document(rng), [seen, secret], max_steps=20).run(max_concurrency=1)
            ran += 1
        except PlanError as problem:
            assert len(str(problem)) < 20_000
    assert ran > (seed + 1) / 50
    assert "hunter2" not in repr(reached)


def test_the_hostile_documents_would_show_a_leak():
    """Negative control: a tool that does give the secret away is noticed."""
    plan = Plan.from_json({"steps": [step("a", "give"), step("b", args={"x": "$a.password"})]}, [lambda_give, echo])
    assert "hunter2" in repr(plan.run()["b"])


def lambda_give():
    return vars(Secret)["password"] and {"password": Secret.password}


lambda_give.__name__ = "give"
